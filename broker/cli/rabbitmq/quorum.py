"""`rabbitmq-queues`: on which nodes quorum queues are, and what is in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    NOT_FOUND,
    TEXT,
    Failure,
    Invocation,
    Report,
    RowTable,
    UsageFailure,
    Verb,
    calls,
)

STATUS = ("Node Name", "Raft State", "Membership", "Running")
PAYLOAD = "payload (max 64 bytes)"
NOT_FOUND_CODES = "Object (queue, stream, exchange, etc) was not found"
GROUPS = ("all", "quorum", "stream")
COLUMNS = ("vhost", "name", "size", "result")
QUEUES_AT_ONCE = 500
"""Queues in one request: names and virtual hosts have 255 octets each at most."""
PATTERNS: Mapping[str, str] = {"vhost-pattern": TEXT, "queue-pattern": TEXT}


def quorum_status(call: Invocation) -> RowTable:
    rows = call.client.rows("queues.members", name=call.words[0], vhost=call.vhost)
    return RowTable(
        STATUS,
        [
            {
                "Node Name": row["node"],
                "Raft State": row["role"] if row["running"] else "noproc",
                "Membership": "voter" if row["role"] != "none" else "",
                "Running": row["running"],
            }
            for row in rows
        ],
        is_pretty=True,
    )


def peek(call: Invocation) -> Report:
    """Return the message at a place, of which 1 is the next.  Failure."""
    name, place = call.words
    if not place.isdecimal() or place == "0":
        raise UsageFailure("position value must be 1 or greater")
    rows = call.client.rows(
        "queues.peek", name=name, vhost=call.vhost, count=1, offset=int(place) - 1, body_bytes=64
    )
    row = next(rows, None)
    if row is None:
        raise Failure("Target queue does not have a message at that position")
    message: Row = {
        "routing_keys": [row["routing_key"]],
        "exchange": row["exchange"],
        PAYLOAD: row["payload"],
        "header.x-delivery-count": row["delivery_count"] or 0,
    }
    lines = [f"{key}\t{value}" for key, value in message.items()]
    return Report(["keys\tvalues", *lines], {"message": message, "result": "ok"})


def add_member(call: Invocation) -> None:
    name, node = call.words
    check_node(call, node)
    call.client.call("queues.add_member", name=name, node=node, vhost=call.vhost)


def check_node(call: Invocation, node: str) -> None:
    """UsageFailure for one that is not of the cluster."""
    row = call.client.call("status")
    known = {row["node"]}
    if row["cluster"]:
        known |= {each["node"] for each in call.client.rows("cluster.status")}
    if node not in known:
        raise UsageFailure(f"node {node} is not a member of the cluster")


def matching(call: Invocation) -> list[Row]:
    """Quorum queues by the patterns that were given.  UsageFailure."""
    try:
        vhosts, names = (re.compile(call.options.get(name, ".*")) for name in PATTERNS)
    except re.error as error:
        raise UsageFailure(f"that is no pattern: {error}") from error
    return [
        row
        for row in call.client.rows("queues.list")
        if row["type"] == "quorum" and vhosts.search(row["vhost"]) and names.search(row["name"])
    ]


def changed(call: Invocation, verb: str, node: str, rows: list[Row]) -> RowTable:
    """Return the outcomes of all queues together; nothing of those that were deleted meanwhile."""
    meant = [{"vhost": row["vhost"], "name": row["name"]} for row in rows]
    results = []
    for start in range(0, len(meant), QUEUES_AT_ONCE):
        piece = meant[start : start + QUEUES_AT_ONCE]
        for row in call.client.rows(verb, node=node, queues=piece):
            result = f"error: {row['error']}" if row["error"] else "ok"
            results.append({**row, "result": result})
    return RowTable(COLUMNS, results, has_blank_line=True)


def grow(call: Invocation) -> RowTable:
    node, strategy = call.words
    if strategy not in ("all", "even"):
        raise UsageFailure(f"strategy '{strategy}' is neither all nor even")
    check_node(call, node)
    rows = [row for row in matching(call) if node not in row["members"]]
    if strategy == "even":
        rows = [row for row in rows if len(row["members"]) % 2 == 0]
    return changed(call, "queues.grow", node, rows)


def shrink(call: Invocation) -> RowTable:
    (node,) = call.words
    rows = [row for row in matching(call) if node in row["members"]]
    return changed(call, "queues.shrink", node, rows)


def check_group(call: Invocation) -> None:
    """Check the group of queues that is named.  Failure."""
    if call.words[0] not in GROUPS:
        raise Failure(f"type {call.words[0]} is not supported. Try one of {', '.join(GROUPS)}.")


def rebalance(call: Invocation) -> RowTable:
    call.client.call("queues.rebalance")
    rows = matching(call)
    led = Counter(row["leader"] for row in rows if row["leader"])
    nodes = sorted({node for row in rows for node in row["members"]})
    return RowTable(
        ("Node name", "Number of quorum queues"),
        [{"Node name": node, "Number of quorum queues": led[node]} for node in nodes],
        is_pretty=True,
    )


def initial_sync(call: Invocation) -> Report:
    return Report([f"Node {call.node} reported no queues with promotable replicas"])


VERBS: Mapping[str, Verb] = {
    "quorum_status": Verb(
        quorum_status, "<queue>", "Status of quorum queue {0} on node {node} ...", (1, 1),
        failures={NOT_FOUND: DATA}, texts={NOT_FOUND: NOT_FOUND_CODES},
        note="without the numbers of each log, which metrics have",
    ),
    "peek": Verb(
        peek, "<queue> <position>",
        "Peeking at quorum queue {0} at position {1} on node {node} ...", (2, 2),
        note="of classic queues, too",
    ),
    "add_member": Verb(
        add_member, "<queue> <node>", "Adding a replica for queue {0} on node {1}...", (2, 2),
        {"membership": TEXT},
        note="returns once the new one has caught up and votes; if that takes long, with an error, "
        "and it goes on by itself",
    ),
    "delete_member": Verb(
        calls("queues.delete_member", "name", "node", in_vhost=True), "<queue> <node>",
        "Removing a replica of queue {0} on node {1}...", (2, 2),
        note="returns once the queue does not need it any more; a node that there is not is an "
        "error",
    ),
    "transfer_leadership": Verb(
        calls("queues.transfer", "name", "node", in_vhost=True), "<queue> <node>",
        "Transferring leadership of queue {0} to node {1}...", (2, 2), note="not in RabbitMQ 4.0",
    ),
    "grow": Verb(
        grow, "<node> <all | even>", "Growing {1} quorum queues on {0}...", (2, 2),
        {**PATTERNS, "membership": TEXT, "errors-only": "flag"},
    ),
    "shrink": Verb(
        shrink, "<node>", "Shrinking quorum queues on {0}...", (1, 1),
        {**PATTERNS, "errors-only": "flag"},
    ),
    "rebalance": Verb(
        rebalance, "<all | quorum | stream>", "Re-balancing leaders of {0} queues...", (1, 1),
        PATTERNS, check=check_group, note="all quorum queues, whatever the patterns say",
    ),
    "reclaim_quorum_memory": Verb(
        calls("queues.show", "name", in_vhost=True), "<queue>",
        "Will flush Raft WAL of quorum queue {0} ...", (1, 1),
        failures={NOT_FOUND: DATA}, texts={NOT_FOUND: NOT_FOUND_CODES},
        note="nothing is to be done: a log is not kept in memory",
    ),
    "check_if_new_quorum_queue_replicas_have_finished_initial_sync": Verb(
        initial_sync, "",
        "Checking if node {node} runs promotable replicas of any queues ...",
        note="a member that has not caught up is no voter, and counts for nothing",
    ),
}  # fmt: skip
