"""queues/quorum and rebalance: on which nodes quorum queues are, and who leads them."""

from __future__ import annotations

import json
from contextlib import suppress
from http import HTTPStatus

from fluffle.broker.admin.context import Row
from fluffle.broker.admin.members import quorum_queues
from fluffle.broker.base.errors import NotFound
from fluffle.broker.patterns.patterns import UnusablePattern, compiled_once
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint
from fluffle.broker.protocols.http.pagination import fitting
from fluffle.broker.protocols.http.responses import (
    Reply,
    as_json,
    bad_request,
    not_found,
    unavailable,
)
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.journal import QueueDefinition

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


async def status(call: Call) -> list[Row] | Reply:
    """What each member says of itself; `noproc` of who says nothing."""
    definition = queue_in(call)
    if definition is None:
        raise not_found()
    if not is_quorum(definition):
        body = json.dumps({"status": "failed", "reason": CLASSIC}).encode()
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE, body)
    spec, company = definition.spec, call.context.company
    rows = await call.rows_everywhere("queues.raft", name=spec.name, vhost=call.vhost().name)
    told = [{name: value for name, value in row.items() if name != "node"} for row in rows]
    names = {row["Node Name"] for row in told}
    members = {company.shown(node) for node in dict(definition.members)}
    return told + [
        {"Node Name": node, "Raft State": "noproc", "Membership": ""}
        for node in sorted(members - names)
    ]


def queue_in(call: Call) -> QueueDefinition | None:
    """That in the path, if it is there."""
    queue = call.vhost().queues.get(call.path["name"])
    return queue.definition if queue is not None else None


def is_quorum(definition: QueueDefinition) -> bool:
    return definition.spec.queue_type is QueueType.QUORUM


async def add(call: Call) -> None:
    """Have the queue on one node more."""
    node, definition = node_wanted(call), queue_in(call)
    if definition is None:
        raise unavailable("not_found")
    try:
        await change_members(call, "queues.add_member", definition, node)
    except NotFound:
        raise unavailable("node_not_running") from None


async def delete(call: Call) -> Reply:
    """Have the queue on one node less, if it is there."""
    node, definition = node_wanted(call), queue_in(call)
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


async def grow(call: Call) -> Reply | None:
    """Have quorum queues on one node more: all, or those with an even number of members."""
    body, node = call.json("strategy"), call.path["node"]
    if body["strategy"] not in STRATEGIES:
        raise bad_request(["unknown_strategy", body["strategy"]])
    if call.context.company.known(node) is None:
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


async def shrink(call: Call) -> Reply:
    """Have all quorum queues on one node less, but those that are nowhere else."""
    rows: list[Row] = []
    with suppress(NotFound):
        rows = await call.rows_of_many("queues.shrink", node=call.path["node"])
    return unfinished(rows) or ACCEPTED


async def rebalance(call: Call) -> None:
    """Have all nodes lead about as many queues; what takes long goes on by itself."""
    with suppress(TimeoutError):
        await call.result("queues.rebalance")


REPLICAS = "queues/quorum/{vhost}/{name}/replicas"

ENDPOINTS = (
    Endpoint(
        "GET",
        "queues/quorum/{vhost}/{name}/status",
        Right.VHOST,
        status,
        "How each member of a quorum queue stands.",
    ),
    Endpoint(
        "POST", f"{REPLICAS}/add", Right.ADMINISTRATOR, add, "Add a member on a node.", body=NODE
    ),
    Endpoint(
        "DELETE",
        f"{REPLICAS}/delete",
        Right.ADMINISTRATOR,
        delete,
        "Delete the member on a node.",
        body=NODE,
    ),
    Endpoint(
        "POST",
        "queues/quorum/replicas/on/{node}/grow",
        Right.ADMINISTRATOR,
        grow,
        "Add members of many quorum queues on a node.",
        body=GROWTH,
    ),
    Endpoint(
        "DELETE",
        "queues/quorum/replicas/on/{node}/shrink",
        Right.ADMINISTRATOR,
        shrink,
        "Delete the members of all quorum queues on a node.",
    ),
    Endpoint(
        "POST",
        "rebalance/queues",
        Right.ADMINISTRATOR,
        rebalance,
        "Have all nodes lead about as many quorum queues.",
        body={},
    ),
)
