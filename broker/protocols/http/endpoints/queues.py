"""queues: what there is, what is in each, on which nodes quorum queues are, and which leads
them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus

from fluffle.broker.admin.context import Row
from fluffle.broker.admin.members import quorum_queues
from fluffle.broker.base.errors import NotFound
from fluffle.broker.core.topology import without_line_breaks
from fluffle.broker.patterns.patterns import UnusablePattern, compiled_once
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import ARGUMENTS, Routes
from fluffle.broker.protocols.http.endpoints.clients import consumer_object
from fluffle.broker.protocols.http.endpoints.exchanges import bindings_with
from fluffle.broker.protocols.http.endpoints.totals import (
    AGES,
    by_channel,
    check_windows,
    with_counts,
    with_volumes,
)
from fluffle.broker.protocols.http.objects import (
    ENCODINGS,
    EXCLUSIVE_TAG,
    QUEUE_OR_NULL,
    arguments,
    boolean,
    integer,
    message_object,
    queue_basics,
    queue_object,
    queue_totals,
    short,
    with_capacity,
    with_idleness,
    with_publishers,
)
from fluffle.broker.protocols.http.pagination import LISTED, YES, fitting
from fluffle.broker.protocols.http.request_channel import MessageChannel
from fluffle.broker.protocols.http.responses import (
    Created,
    ListingResponse,
    Refusal,
    Reply,
    as_json,
    bad_request,
    get_refusal,
    not_found,
    not_there,
    unavailable,
)
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.queues.arguments import (
    DECLARED_TYPES,
    DEFAULT_QUEUE_TYPE,
    QUEUE_TYPE,
    Declaration,
    QueueType,
)
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.statistics.counters import TICK_MS
from fluffle.broker.statistics.report import time_of
from fluffle.broker.statistics.volumes import HEAD_TIMESTAMP
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import raw_properties
from fluffle.protocol.wire import FieldTable

routes = Routes()
REPLICAS = "queues/quorum/{vhost}/{name}/replicas"

NO_QUEUE = "queue_not_found"

GOT_BYTES_MAX = 1 << 26
"""Bytes of messages in one answer, which is made in memory, after which no more are taken."""

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


@routes.get("queues", Right.MANAGEMENT, "All queues.", TOTALS)
async def list_all(call: Call) -> ListingResponse:
    """Rows of queues in the virtual hosts that the user may see."""
    return shown(call, call.visible(await call.rows("queues.list")))


@routes.get("queues/{vhost}", Right.VHOST, "The queues of a virtual host.", TOTALS)
async def list_of_vhost(call: Call) -> ListingResponse:
    return shown(call, await call.rows("queues.list", vhost=call.vhost().name))


@routes.get("queues/detailed", Right.MANAGEMENT, "All queues.", TOTALS)
async def list_detailed(call: Call) -> ListingResponse:
    """With null for what is not so."""
    return ListingResponse(call.visible(await call.rows("queues.list")), partial(detailed, call))


async def detailed(call: Call, rows: list[Row]) -> list[Row]:
    found = [{**dict.fromkeys(QUEUE_OR_NULL), **row} for row in await formed(call, rows)]
    if form_of(call) is not queue_object:
        return found
    nulls = dict.fromkeys((HEAD_TIMESTAMP, EXCLUSIVE_TAG))
    found = [row if row["type"] == "quorum" else {**nulls, **row} for row in found]
    idle_before = time_of(call.context.runtime.clock.wall_ms() - TICK_MS)
    return [with_idleness(row, idle_before) for row in await with_counts(call, USES, found)]


def shown(call: Call, rows: list[Row]) -> ListingResponse:
    """Give as much of each queue as is wanted.  Refusal."""
    if form_of(call) is queue_object:
        check_windows(call)
    return ListingResponse(rows, partial(formed, call))


async def formed(call: Call, rows: list[Row]) -> list[Row]:
    """With what has happened to each, if that is wanted."""
    form = form_of(call)
    found = [*map(form, rows)]
    if form is not queue_object:
        return found
    counted = await with_counts(call, STATISTICS, await with_volumes(call, found))
    return [with_publishers(with_capacity(row)) for row in counted]


def form_of(call: Call) -> Callable[[Row], Row]:
    """Function that makes the queue's JSON object of a row."""
    if call.query.get("disable_stats") != YES:
        return queue_object
    return queue_totals if call.query.get("enable_queue_totals") == YES else queue_basics


@routes.get("queues/{vhost}/{name}", Right.VHOST, "One queue.")
async def show(call: Call) -> Row:
    """Row of one queue, with its consumers."""
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


@routes.get("queues/{vhost}/{name}/bindings", Right.VHOST, "The bindings that lead to it.", LISTED)
async def list_bindings(call: Call) -> ListingResponse:
    """Rows of the bindings to a queue."""
    name = call.path["name"]
    await call.result("queues.show", vhost=call.vhost().name, name=name)
    return await bindings_with(call, destination_kind="queue", destination_name=name)


def queue_in(vhost: VirtualHost, name: str, refusal: Refusal) -> str:
    """Name of the queue, if it exists.  Refusal."""
    if name not in vhost.queues:
        raise refusal
    return name


@routes.put(
    "queues/{vhost}/{name}",
    Right.VHOST,
    "Declare a queue; 204 if it is there and alike.",
    body=QUEUE,
)
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
    return (
        call.context.cluster_view.known(name) is not None or name == call.context.config.node_name
    )


def typed(table: FieldTable, vhost: VirtualHost) -> FieldTable:
    """With the type that it will have: RabbitMQ writes down what its management declares."""
    default = vhost.metadata.get(DEFAULT_QUEUE_TYPE)
    if default not in DECLARED_TYPES:
        default = QueueType.CLASSIC
    return {QUEUE_TYPE: ("S", str(default).encode()), **table}


@routes.delete(
    "queues/{vhost}/{name}",
    Right.VHOST,
    "Delete a queue with its messages.",
    query={
        "if-empty": "true: not if it has messages",
        "if-unused": "true: not if it has consumers",
    },
)
async def delete(call: Call) -> None:
    name = queue_in(call.vhost(), call.path["name"], not_found())
    if_unused, if_empty = (call.query.get(name) == YES for name in ("if-unused", "if-empty"))
    with call.declarations() as channel:
        await channel.delete_queue(name, if_unused=if_unused, if_empty=if_empty)


@routes.delete("queues/{vhost}/{name}/contents", Right.VHOST, "Drop the messages that are ready.")
async def purge(call: Call) -> None:
    """Drop the messages that are ready."""
    name = queue_in(call.vhost(), call.path["name"], not_found())
    with call.declarations() as channel:
        await channel.purge(name)


@routes.post(
    "queues/{vhost}/{name}/actions",
    Right.VHOST,
    "Refused: queues have no actions.",
    body=ACTION,
)
async def act(call: Call) -> None:
    """RabbitMQ has had no actions since it has had no mirrored queues."""
    queue_in(call.vhost_to_change(NO_QUEUE), call.path["name"], not_there(NO_QUEUE))
    raise bad_request(["unknown", call.json("action")["action"]])


@routes.post("queues/{vhost}/{name}/get", Right.VHOST, "Take messages.", body=GET)
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
    """Take `count` messages, or all that there are."""
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
"""Outcomes of fetched messages by the name of the ack mode."""


ACCEPTED = Reply(HTTPStatus.ACCEPTED)
CLASSIC = "classic_queue_not_supported"
STRATEGIES = ("all", "even")

NODE = {"type": "object", "required": ["node"], "properties": {"node": {"type": "string"}}}
GROWTH = {
    "type": "object",
    "required": ["strategy"],
    "properties": {
        "vhost_pattern": {"type": "string", "default": ".*"},
        "queue_pattern": {"type": "string", "default": ".*"},
        "strategy": {"enum": list(STRATEGIES)},
    },
}


@routes.get(
    "queues/quorum/{vhost}/{name}/status", Right.VHOST, "How each member of a quorum queue stands."
)
async def member_status(call: Call) -> list[Row] | Reply:
    """Status of each member by its own report; `noproc` for one that does not answer."""
    definition = defined_queue(call)
    if definition is None:
        raise not_found()
    if not is_quorum(definition):
        body = json.dumps({"status": "failed", "reason": CLASSIC}).encode()
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE, body)
    spec, cluster_view = definition.spec, call.context.cluster_view
    rows = await call.rows_everywhere("queues.raft", name=spec.name, vhost=call.vhost().name)
    known = [{name: value for name, value in row.items() if name != "node"} for row in rows]
    names = {row["Node Name"] for row in known}
    members = {cluster_view.shown(node) for node in dict(definition.members)}
    return known + [
        {"Node Name": node, "Raft State": "noproc", "Membership": ""}
        for node in sorted(members - names)
    ]


def defined_queue(call: Call) -> QueueDefinition | None:
    """Definition of the queue in the path, or None."""
    queue = call.vhost().queues.get(call.path["name"])
    return queue.definition if queue is not None else None


def is_quorum(definition: QueueDefinition) -> bool:
    return definition.spec.queue_type is QueueType.QUORUM


@routes.post(f"{REPLICAS}/add", Right.ADMINISTRATOR, "Add a member on a node.", body=NODE)
async def add_member(call: Call) -> None:
    """Have the queue on one node more."""
    node, definition = node_wanted(call), defined_queue(call)
    if definition is None:
        raise unavailable("not_found")
    try:
        await change_members(call, "queues.add_member", definition, node)
    except NotFound:
        raise unavailable("node_not_running") from None


@routes.delete(f"{REPLICAS}/delete", Right.ADMINISTRATOR, "Delete the member on a node.", body=NODE)
async def delete_member(call: Call) -> Reply:
    """Have the queue on one node less, if it is there."""
    node, definition = node_wanted(call), defined_queue(call)
    if definition is None:
        raise not_found()
    with suppress(NotFound):
        await change_members(call, "queues.delete_member", definition, node)
    return ACCEPTED


async def change_members(call: Call, verb: str, definition: QueueDefinition, node: str) -> None:
    """NotFound; Refusal."""
    if not is_quorum(definition):
        raise unavailable(CLASSIC)
    await call.result(verb, name=definition.spec.name, vhost=call.path["vhost"], node=node)


def node_wanted(call: Call) -> str:
    """Refusal."""
    node = call.json("node")["node"]
    if not isinstance(node, str):
        raise bad_request(["not_string", "node"])
    return node


@routes.post(
    "queues/quorum/replicas/on/{node}/grow",
    Right.ADMINISTRATOR,
    "Add members of many quorum queues on a node.",
    body=GROWTH,
)
async def grow(call: Call) -> Reply | None:
    """Have quorum queues on one node more: all, or those with an even number of members."""
    body, node = call.json("strategy"), call.path["node"]
    if body["strategy"] not in STRATEGIES:
        raise bad_request(["unknown_strategy", body["strategy"]])
    if call.context.cluster_view.known(node) is None:
        return None  # as RabbitMQ, which finds no queue that could be there
    is_even = body["strategy"] == "even"
    queues = [
        {"vhost": vhost, "name": definition.spec.name}
        for vhost, definition in await matching_queues(call, body)
        if not (is_even and len(definition.wanted or definition.members) % 2)
    ]
    return unfinished(await call.rows_of_many("queues.grow", node=node, queues=queues))


def unfinished(rows: list[Row]) -> Reply | None:
    """202 with the queues whose members are not as was asked for, by what became of that, and why;
    None if all are."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["error"]:
            queue = {"vhost": row["vhost"], "name": row["name"], "reason": row["error"]}
            found.setdefault(row["result"], []).append(queue)
    return Reply(HTTPStatus.ACCEPTED, as_json(found)) if found else None


async def matching_queues(call: Call, body: Row) -> list[tuple[str, QueueDefinition]]:
    """Quorum queues whose names fit the patterns.  Refusal."""
    patterns = (body.get(name, ".*") for name in ("vhost_pattern", "queue_pattern"))
    try:
        fits_vhost, fits_queue = (compiled_once(str(pattern)) for pattern in patterns)
    except UnusablePattern as error:
        raise bad_request(str(error)) from None

    def fits(found: tuple[str, QueueDefinition]) -> bool:
        names = found[0], found[1].spec.name
        octets = (name.encode(errors="surrogateescape") for name in names)
        return fits_vhost(next(octets)) and fits_queue(next(octets))

    return await fitting(tuple(quorum_queues(call.context)), fits, "queue_pattern")


@routes.delete(
    "queues/quorum/replicas/on/{node}/shrink",
    Right.ADMINISTRATOR,
    "Delete the members of all quorum queues on a node.",
)
async def shrink(call: Call) -> Reply:
    """Have all quorum queues on one node less, but those that are nowhere else."""
    rows: list[Row] = []
    with suppress(NotFound):
        rows = await call.rows_of_many("queues.shrink", node=call.path["node"])
    return unfinished(rows) or ACCEPTED


@routes.post(
    "rebalance/queues",
    Right.ADMINISTRATOR,
    "Have all nodes lead about as many quorum queues.",
    body={},
)
async def rebalance(call: Call) -> None:
    """Have all nodes lead about as many queues; what takes long goes on by itself."""
    with suppress(TimeoutError):
        await call.result("queues.rebalance")
