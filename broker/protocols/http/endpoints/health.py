"""health/checks/…: 200 where all is well, 503 with a reason where it is not.

What an old check of RabbitMQ's has become a no-op there is one here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.admin.members import quorum_queues
from fluffle.broker.admin.queues import leader_now
from fluffle.broker.base.features import PROTOCOL_ALIASES
from fluffle.broker.config.config import Config
from fluffle.broker.config.listeners import LISTENER_KINDS
from fluffle.broker.patterns.patterns import UnusablePattern, compiled_once
from fluffle.broker.process.certificates import ends_in
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import H, Routes
from fluffle.broker.protocols.http.endpoints.overview import node_of
from fluffle.broker.protocols.http.pagination import fitting
from fluffle.broker.protocols.http.responses import Reply, bad_request, get_refusal
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.queues.arguments import Declaration

routes = Routes()
NO_LEADER = "quorum-queues-without-elected-leaders"

UNITS: Mapping[str, float] = {"days": 1, "weeks": 7, "months": 365 / 12, "years": 365}
"""In days."""


def expiring(config: Config, listeners: Iterable[Row], until_ms: int) -> Iterator[Row]:
    """Rows by RabbitMQ's names, of listeners with TLS whose files name a day before that."""
    cert, ca = ends_before(config.tls_cert, until_ms), ends_before(config.tls_ca, until_ms)
    if not (cert or ca):
        return
    for row in listeners:
        if row["tls"]:
            yield {
                "node": row["node"],
                "protocol": row["protocol"],
                "interface": row["ip_address"],
                "port": row["port"],
                "certfile": str(config.tls_cert or ""),
                "cacertfile": str(config.tls_ca or ""),
                "certfile_expires_on": cert,
                "cacertfile_expires_on": ca,
            }


def ends_before(file: Path | None, until_ms: int) -> list[str]:
    """When the certificates in a file end, of those that do before that time."""
    ends = ends_in(file) if file is not None else []
    return [f"{end:%Y-%m-%d %H:%M:%S}" for end in ends if end.timestamp() * 1000 < until_ms]


OK: Row = {"status": "ok"}
AMQP = ("amqp", "amqp/ssl")
CLIENTS = frozenset(kind.shown for kind in LISTENER_KINDS)
"""Protocols of clients that a drained node keeps out."""
NOT_SERVING = "this rabbit node is not currently available to serve"
ALIVENESS_QUEUE = "aliveness-test"
ALIVENESS_BODY = b"test_message"
TOO_FEW_NODES = "target cluster size is not reached"


def check(path: str, summary: str, may: Right = Right.MANAGEMENT) -> Callable[[H], H]:
    return routes.get(f"health/checks/{path}", may, summary)


def failed(reason: str, **more: Any) -> Reply:
    """503, with what helps to find out."""
    body = json.dumps({"status": "failed", "reason": reason, **more}, default=str).encode()
    return Reply(HTTPStatus.SERVICE_UNAVAILABLE, body)


@check("alarms", "Nothing is low on any node.")
async def alarms(call: Call) -> Row | Reply:
    """Check that no resource alarm is raised on any node."""
    raised = await call.rows("alarms.list")
    return failed("There are alarms in effect in the cluster", alarms=raised) if raised else OK


@check("local-alarms", "Nothing is low on this node.")
async def local_alarms(call: Call) -> Row | Reply:
    """Check that no resource alarm is raised on this node."""
    own = call.context.config.node_name
    raised = [row for row in await call.rows("alarms.list") if row["node"] == own]
    return failed("There are alarms in effect on the node", alarms=raised) if raised else OK


@check("virtual-hosts", "All virtual hosts are there.")
async def virtual_hosts(_call: Call) -> Row:
    """Always OK: virtual hosts run as long as the node does."""
    return OK


@check("port-listener/{port}", "Something listens at a port.")
async def port_listener(call: Call) -> Row | Reply:
    """Check that a port has a listener."""
    try:
        port = int(call.path["port"])
    except ValueError:
        raise bad_request("Invalid port") from None
    ports = [row["port"] for row in await listeners(call)]
    if port in ports:
        return {**OK, "port": port}
    return failed("No active listener", missing=port, ports=ports)


async def listeners(call: Call) -> list[Row]:
    """Where this node takes connections; not from clients while it is drained."""
    rows = await call.rows("nodes.listeners")
    return (
        rows if is_in_service(call.context) else [r for r in rows if r["protocol"] not in CLIENTS]
    )


@check("protocol-listener/{protocol}", "A protocol is spoken.")
async def protocol_listener(call: Call) -> Row | Reply:
    """Check that a protocol has a listener."""
    asked = call.path["protocol"]
    protocol = PROTOCOL_ALIASES.get(asked.lower(), asked.lower())
    known = [row["protocol"] for row in await listeners(call)]
    if protocol in known:
        return {**OK, "protocol": asked}
    return failed("No active listener", missing=asked, protocols=known)


@check("certificate-expiration/{within}/{unit}", "Certificates are good for so long.")
async def certificate_expiration(call: Call) -> Row | Reply:
    """Check that certificates are valid for the given time."""
    days = UNITS.get(call.path["unit"].lower())
    if not re.fullmatch(r"\d{1,6}", call.path["within"]):
        raise bad_request("Invalid expiration value.")
    if days is None:
        units = ", ".join(UNITS)
        raise bad_request(f"Time unit not recognised. Supported units: {units}.")
    until_ms = call.context.runtime.clock.now_ms() + int(
        int(call.path["within"]) * days * 86_400_000
    )
    rows = list(expiring(call.context.config, await listeners(call), until_ms))
    return failed("Certificates expiring", expired=rows) if rows else OK


@check("node-is-quorum-critical", "This node may stop.")
async def node_is_quorum_critical(call: Call) -> Row | Reply:
    """Check that this node can stop without a quorum being lost."""
    if len(call.context.catalogue.nodes.entries) <= 1:
        return {**OK, "reason": "single node cluster"}
    critical = await call.rows("queues.critical")
    reason = "There are quorum queues that would lose their quorum if the target node is shut down"
    return failed(reason, queues=critical) if critical else OK


@check(f"{NO_LEADER}/all-vhosts", "All quorum queues are led.")
@check(f"{NO_LEADER}/all-vhosts/pattern/{{pattern}}", "Those of a pattern are.")
@check(f"{NO_LEADER}/vhost/{{vhost}}", "Those of a virtual host are.")
@check(f"{NO_LEADER}/vhost/{{vhost}}/pattern/{{pattern}}", "Some of those are.")
async def leaders(call: Call) -> Row | Reply:
    """Check that each quorum queue has a leader; of one virtual host, or by a pattern, if the path
    says."""
    vhost = call.vhost().name if "vhost" in call.path else None
    try:
        finds = compiled_once(call.path.get("pattern", ".*"))
    except UnusablePattern as error:
        raise bad_request(str(error)) from None
    found = [row for row in leaderless(call.context) if vhost in (None, row["virtual_host"])]

    def fits(row: Row) -> bool:
        return finds(row["name"].encode(errors="surrogateescape"))

    rows = await fitting(found, fits, "pattern")
    return failed("Detected quorum queues without an elected leader", queues=rows) if rows else OK


def leaderless(context: NodeContext) -> list[Row]:
    """Rows of quorum queues without a leader."""
    return [
        {
            "name": each.spec.name,
            "readable_name": f"queue '{each.spec.name}' in vhost '{vhost}'",
            "virtual_host": vhost,
            "type": "quorum",
        }
        for vhost, each in quorum_queues(context)
        if not leader_now(context.cluster_view, each)
    ]


@check("metadata-store/initialized", "Definitions are there.", Right.ANYBODY)
async def metadata_store(call: Call) -> Row | Reply:
    """Check that this node has applied the cluster's definitions."""
    cluster = call.context.cluster
    is_there = cluster is None or cluster.join.is_over
    return OK if is_there else failed("Metadata store has not yet been initialized")


@check("metadata-store/initialized/with-data", "And there are some.", Right.ANYBODY)
async def metadata_store_with_data(call: Call) -> Row | Reply:
    """And there is something: a user, and where he may go."""
    context = call.context
    if not context.access.users or not context.catalogue.vhosts:
        return failed("Metadata store has not yet been initialized with data")
    return await metadata_store(call)


def is_in_service(context: NodeContext) -> bool:
    """True if clients are served: it is not being drained."""
    return context.maintenance is None or not context.maintenance.is_draining


@check("is-in-service", "It is not being drained.", Right.ANYBODY)
async def in_service(call: Call) -> Row | Reply:
    return OK if is_in_service(call.context) else failed(NOT_SERVING)


def connections(context: NodeContext) -> Row:
    """How many there are, and may be."""
    limit = context.config.limits.connections_max
    return {
        "limit": "infinity" if limit is None else limit,
        "connections": len(context.connections),
    }


def is_below_limit(context: NodeContext) -> bool:
    limit = context.config.limits.connections_max
    return limit is None or len(context.connections) < limit


@check("below-node-connection-limit", "Another client may come.", Right.ANYBODY)
async def below_limit(call: Call) -> Row | Reply:
    """Check that another connection is within the limit."""
    if is_below_limit(call.context):
        return {**OK, **connections(call.context)}
    return failed("node connection limit is reached", **connections(call.context))


@check("ready-to-serve-clients", "A client that comes is served.", Right.ANYBODY)
async def ready(call: Call) -> Row | Reply:
    """All of this together: whether a client that comes now is served."""
    if not is_in_service(call.context):
        return failed("the rabbit node is not currently available to serve")
    if not any(row["protocol"] in AMQP for row in await listeners(call)):
        return failed("no active listeners for AMQP/AMQPS")
    if not is_below_limit(call.context):
        return failed("node connection limit is reached", connections=len(call.context.connections))
    return OK


@check("reached-target-cluster-size", "All nodes are there.", Right.ANYBODY)
async def target_size(call: Call) -> Row | Reply:
    """Check that all nodes that found the cluster are up.

    A size that has grown says nothing of those that are: a new one has yet to be let in.
    """
    config = call.context.config.cluster
    nodes = call.context.catalogue.nodes.entries
    wanted = 1 if config is None else min(len(config.peers), len(nodes) or len(config.peers))
    running = sum(1 for node in nodes if call.context.cluster_view.is_alive(node)) if nodes else 1
    sizes = {"cluster_size": running, "target_cluster_size": wanted}
    return {**OK, **sizes} if running >= wanted else failed(TOO_FEW_NODES, **sizes)


@routes.get("aliveness-test/{vhost}", Right.VHOST, "A message comes and goes.")
async def aliveness(call: Call) -> Row | Reply:
    """Check that a message can be published in a virtual host and fetched again.  Refusal.

    The queue stays, as with RabbitMQ: not each request makes one.  While an alarm
    is raised nothing is published, and only the rest is tried: a node that makes publishers wait
    is alive, and a probe that says otherwise would have it restarted.
    """
    call.vhost()
    is_published = not call.context.alarms.reason
    async with call.messages(get_refusal) as channel:
        await channel.declare_queue(Declaration(ALIVENESS_QUEUE))
        if is_published:
            await channel.publish("", ALIVENESS_QUEUE, b"\0\0", ALIVENESS_BODY)
        got = await channel.get(ALIVENESS_QUEUE, no_ack=True)
    if is_published and got is None:
        return failed(f"what was published to '{ALIVENESS_QUEUE}' is not there")
    return OK


@routes.get("healthchecks/node", Right.MANAGEMENT, "The node is there.")
@routes.get("healthchecks/node/{node}", Right.MANAGEMENT, "A node is there.")
async def node(call: Call) -> Row:
    """RabbitMQ's old check, a no-op by now: the node is there."""
    if "node" in call.path:
        await node_of(call)
    return OK
