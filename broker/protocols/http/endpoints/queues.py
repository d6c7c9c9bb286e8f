"""queues: what there is, and what is in each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from fluffle.broker.admin.context import Row
from fluffle.broker.core.topology import without_line_breaks
from fluffle.broker.observability.statistics.counts import TICK_MS
from fluffle.broker.observability.statistics.report import time_of
from fluffle.broker.observability.statistics.volumes import HEAD_TIMESTAMP
from fluffle.broker.protocols.http.amqp_json import (
    ENCODINGS,
    arguments,
    boolean,
    integer,
    message_object,
    short,
)
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import ARGUMENTS, Endpoint
from fluffle.broker.protocols.http.endpoints.bindings import list_with
from fluffle.broker.protocols.http.endpoints.clients import consumer_object
from fluffle.broker.protocols.http.endpoints.totals import (
    AGES,
    by_channel,
    check_windows,
    with_counts,
    with_volumes,
)
from fluffle.broker.protocols.http.message_channel import MessageChannel
from fluffle.broker.protocols.http.objects import (
    EXCLUSIVE_TAG,
    QUEUE_OR_NULL,
    queue_basics,
    queue_object,
    queue_totals,
    with_capacity,
    with_idleness,
    with_publishers,
)
from fluffle.broker.protocols.http.pagination import LISTED, YES
from fluffle.broker.protocols.http.responses import (
    Created,
    Listing,
    Refusal,
    bad_request,
    get_refusal,
    not_found,
    not_there,
)
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.queues.arguments import DEFAULT_QUEUE_TYPE, QUEUE_TYPE, Declaration, QueueType
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import raw_properties
from fluffle.protocol.types import FieldTable

NO_QUEUE = "queue_not_found"

GOT_BYTES_MAX = 1 << 26
"""Of messages in one answer, which is made in memory: no more are taken once they are so long."""

OBJECT_BYTES = 1000
"""About as much memory as a message takes besides."""

GOT_AT_ONCE = 100
"""Messages that are taken in one turn of the loop."""


STATISTICS, USES = "queues.statistics", "queues.uses"

QUEUE = {
    "type": "object",
    "properties": {
        "durable": {"type": "boolean", "default": False},
        "auto_delete": {"type": "boolean", "default": False},
        "arguments": ARGUMENTS,
        "node": {"type": "string"},
    },
}
GET = {
    "type": "object",
    "required": ["count", "ackmode", "encoding"],
    "properties": {
        "count": {"type": "integer"},
        "ackmode": {
            "enum": [
                "ack_requeue_true",
                "ack_requeue_false",
                "reject_requeue_true",
                "reject_requeue_false",
            ]
        },
        "encoding": {"enum": ["auto", "base64"]},
        "truncate": {"type": "integer"},
    },
}
ACTION = {
    "type": "object",
    "required": ["action"],
    "properties": {"action": {"type": "string"}},
}

TOTALS = {
    **LISTED,
    **AGES,
    "disable_stats": "true: what queues are, without what is in them",
    "enable_queue_totals": "true: how many messages are in them all the same",
}


async def list_all(call: Call) -> Listing:
    """Of the virtual hosts that he may look at."""
    return shown(call, call.visible(await call.rows("queues.list")))


async def list_of_vhost(call: Call) -> Listing:
    return shown(call, await call.rows("queues.list", vhost=call.vhost().name))


async def list_detailed(call: Call) -> Listing:
    """With null for what is not so."""
    return Listing(call.visible(await call.rows("queues.list")), partial(detailed, call))


async def detailed(call: Call, rows: list[Row]) -> list[Row]:
    found = [{**dict.fromkeys(QUEUE_OR_NULL), **row} for row in await formed(call, rows)]
    if form_of(call) is not queue_object:
        return found
    nulls = dict.fromkeys((HEAD_TIMESTAMP, EXCLUSIVE_TAG))
    found = [row if row["type"] == "quorum" else {**nulls, **row} for row in found]
    idle_before = time_of(call.context.runtime.clock.wall_ms() - TICK_MS)
    return [with_idleness(row, idle_before) for row in await with_counts(call, USES, found)]


def shown(call: Call, rows: list[Row]) -> Listing:
    """Give as much of each queue as is wanted.  Refusal."""
    if form_of(call) is queue_object:
        check_windows(call)
    return Listing(rows, partial(formed, call))


async def formed(call: Call, rows: list[Row]) -> list[Row]:
    """With what has happened to each, if that is wanted."""
    form = form_of(call)
    found = [*map(form, rows)]
    if form is not queue_object:
        return found
    counted = await with_counts(call, STATISTICS, await with_volumes(call, found))
    return [with_publishers(with_capacity(row)) for row in counted]


def form_of(call: Call) -> Callable[[Row], Row]:
    """What is made of a row."""
    if call.query.get("disable_stats") != YES:
        return queue_object
    return queue_totals if call.query.get("enable_queue_totals") == YES else queue_basics


async def show(call: Call) -> Row:
    """One, with who takes from it."""
    vhost, name = call.vhost().name, call.path["name"]
    row = await call.result("queues.show", vhost=vhost, name=name)
    if call.query.get("disable_stats") == YES:
        return form_of(call)(row)
    takers = await call.rows_everywhere("consumers.list", vhost=vhost, queue=name)
    return {
        **(await detailed(call, [row]))[0],
        "deliveries": await by_channel(call, "queues.deliveries", vhost, name),
        "consumer_details": [*map(consumer_object, takers)],
    }


async def list_bindings(call: Call) -> Listing:
    """What leads to it."""
    name = call.path["name"]
    await call.result("queues.show", vhost=call.vhost().name, name=name)
    return await list_with(call, destination_kind="queue", destination_name=name)


def queue_in(vhost: VirtualHost, name: str, refusal: Refusal) -> str:
    """Its name, if it is there.  Refusal."""
    if name not in vhost.queues:
        raise refusal
    return name


async def put(call: Call) -> Created | None:
    """Have one, or find that it is as is wanted."""
    name, vhost = short(call.path["name"], "queue"), call.vhost_to_change()
    body = call.json()
    node = body.get("node")
    if node is not None and not (isinstance(node, str) and is_node(call, node)):
        raise bad_request(f"Node {node} could not be contacted")
    is_there = name in vhost.queues
    declared = Declaration(
        name=without_line_breaks(name),
        durable=boolean(body, "durable"),
        auto_delete=boolean(body, "auto_delete"),
        arguments=typed(arguments(body), vhost),
    )
    with call.declarations() as channel:
        await channel.declare_queue(declared)
    return None if is_there else Created()


def is_node(call: Call, name: str) -> bool:
    return call.context.company.known(name) is not None or name == call.context.config.node_name


def typed(table: FieldTable, vhost: VirtualHost) -> FieldTable:
    """With the type that it will have: RabbitMQ writes down what its management declares."""
    default = vhost.metadata.get(DEFAULT_QUEUE_TYPE)
    if default not in set(QueueType):
        default = QueueType.CLASSIC
    return {QUEUE_TYPE: ("S", str(default).encode()), **table}


async def delete(call: Call) -> None:
    name = queue_in(call.vhost(), call.path["name"], not_found())
    if_unused, if_empty = (call.query.get(name) == YES for name in ("if-unused", "if-empty"))
    with call.declarations() as channel:
        await channel.delete_queue(name, if_unused=if_unused, if_empty=if_empty)


async def purge(call: Call) -> None:
    """Drop the messages that are ready."""
    name = queue_in(call.vhost(), call.path["name"], not_found())
    with call.declarations() as channel:
        await channel.purge(name)


async def act(call: Call) -> None:
    """RabbitMQ has had no actions since it has had no mirrored queues."""
    queue_in(call.vhost_to_change(NO_QUEUE), call.path["name"], not_there(NO_QUEUE))
    raise bad_request(["unknown", call.json("action")["action"]])


async def get(call: Call) -> list[Row]:
    """Some messages of it, which go back or do not."""
    name = queue_in(call.vhost_to_change(NO_QUEUE), call.path["name"], not_there(NO_QUEUE))
    body = call.json("ackmode", "count", "encoding")
    outcome = ACK_MODES.get(body["ackmode"]) if isinstance(body["ackmode"], str) else None
    if outcome is None:
        raise bad_request(["unknown_ackmode", body["ackmode"]])
    encoding = body["encoding"]
    if not isinstance(encoding, str) or encoding not in ENCODINGS:
        raise bad_request("Unsupported encoding. Please use auto or base64.")
    count = integer(body["count"])
    bytes_max = max(0, integer(body["truncate"])) if "truncate" in body else None
    async with call.messages(get_refusal) as channel:
        messages = await taken(channel, name, count, encoding, bytes_max=bytes_max)
        if messages:
            await channel.settle_all(outcome)
    return messages


async def taken(
    channel: MessageChannel, queue: str, count: int, encoding: str, *, bytes_max: int | None
) -> list[Row]:
    """So many messages, or all that there are."""
    messages: list[Row] = []
    size_bytes = 0
    while len(messages) < count and size_bytes < GOT_BYTES_MAX:
        got = await channel.get(queue)
        if got is None:
            break
        messages.append(message_object(got, encoding, bytes_max))
        payload_bytes = len(messages[-1]["payload"])
        size_bytes += OBJECT_BYTES + len(raw_properties(got.content)) + payload_bytes
        if len(messages) % GOT_AT_ONCE == 0:
            await asyncio.sleep(0)
    return messages


ACK_MODES: Mapping[str, Outcome] = {
    "ack_requeue_true": Outcome.NACK_REQUEUED,
    "ack_requeue_false": Outcome.ACKED,
    "reject_requeue_true": Outcome.NACK_REQUEUED,
    "reject_requeue_false": Outcome.REJECTED,
}
"""What becomes of all that was taken."""


ENDPOINTS = (
    Endpoint("GET", "queues", Right.MANAGEMENT, list_all, "All queues.", TOTALS),
    Endpoint("GET", "queues/detailed", Right.MANAGEMENT, list_detailed, "All queues.", TOTALS),
    Endpoint(
        "GET",
        "queues/{vhost}",
        Right.VHOST,
        list_of_vhost,
        "The queues of a virtual host.",
        TOTALS,
    ),
    Endpoint("GET", "queues/{vhost}/{name}", Right.VHOST, show, "One queue."),
    Endpoint(
        "GET",
        "queues/{vhost}/{name}/bindings",
        Right.VHOST,
        list_bindings,
        "The bindings that lead to it.",
        LISTED,
    ),
    Endpoint(
        "PUT",
        "queues/{vhost}/{name}",
        Right.VHOST,
        put,
        "Declare a queue; 204 if it is there and alike.",
        body=QUEUE,
    ),
    Endpoint(
        "DELETE",
        "queues/{vhost}/{name}",
        Right.VHOST,
        delete,
        "Delete a queue with its messages.",
        {"if-empty": "true: not if it has messages", "if-unused": "true: not if it has consumers"},
    ),
    Endpoint(
        "DELETE",
        "queues/{vhost}/{name}/contents",
        Right.VHOST,
        purge,
        "Drop the messages that are ready.",
    ),
    Endpoint("POST", "queues/{vhost}/{name}/get", Right.VHOST, get, "Take messages.", body=GET),
    Endpoint(
        "POST",
        "queues/{vhost}/{name}/actions",
        Right.VHOST,
        act,
        "Refused: there is nothing that a queue could be told to do.",
        body=ACTION,
    ),
)
