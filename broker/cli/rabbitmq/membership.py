"""Nodes that come and go, and `rabbitmq-upgrade`: a node out of service, and back.

Clusters are founded by options here, not by commands: what RabbitMQ's verbs would change by hand
is refused with a word on what to do instead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial

from fluffle.broker.cli.client import NodeUnreachable, RequestRefused, running_pid
from fluffle.broker.cli.rabbitmq.nodes import POLL_INTERVAL_S, WAIT_TIMEOUT_S, is_up, waited
from fluffle.broker.cli.rabbitmq.verb import FLAG, TEXT, Failure, Invocation, Report, Verb, calls

JOIN = (
    "nodes do not join by a command here: have one of the cluster let this one in (fluffle cluster "
    "add NAME=HOST:PORT), then start it with an empty data directory, --node NAME and the --peers "
    "of the others"
)
RESET = (
    "a node is not emptied while it runs: stop it, have another one forget it (rabbitmqctl "
    "forget_cluster_node), and start it with an empty data directory"
)
ALONE = "nodes start without the others as far as a majority allows; see fluffle salvage"


def refuse(why: str, _call: Invocation) -> Report:
    raise Failure(why)


def check_here(call: Invocation) -> None:
    """Failure for a node that is elsewhere: the number of its process is another one's here."""
    try:
        call.client.data_dir  # noqa: B018 - whether there is one
    except RequestRefused as refused:
        raise Failure(f"{refused.message}: a node is stopped where it runs") from refused


def stop(call: Invocation) -> None:
    """Ask the process to end; it goes on by itself."""
    os.kill(call.client.pid, signal.SIGTERM)


def shutdown(call: Invocation) -> Report:
    """Stop the node, and wait until it has ended."""
    pid = call.client.pid
    os.kill(pid, signal.SIGTERM)
    end = call.time.monotonic() + call.timeout_s(WAIT_TIMEOUT_S)
    while not call.has("no-wait") and running_pid(call.client.data_dir) == pid:
        if call.time.monotonic() >= end:
            raise Failure(f"the node (process {pid}) has not stopped in time")
        call.time.sleep(POLL_INTERVAL_S)
    return Report([])


def wait(call: Invocation) -> Report:
    """Wait until the node serves: a file with its process is not needed to find it."""
    waited(call, partial(is_up, call), "the node is not up")
    return Report([])


def pinged(call: Invocation) -> str:
    """Return the node that it is about, if it answers."""
    try:
        return call.node
    except NodeUnreachable:
        return "of the data directory"


def with_node(text: str) -> partial[str]:
    return partial(lambda template, call: template.format(node=pinged(call)), text)


VERBS: Mapping[str, Verb] = {
    "forget_cluster_node": Verb(
        calls("cluster.forget", "name"), "<node>", "Removing node {0} from the cluster", (1, 1),
        {"offline": FLAG}, note="with the queues that were on it alone; never --offline",
    ),
    "join_cluster": Verb(
        partial(refuse, JOIN), "<node>", with_node("Clustering node {node} with ..."), (1, 1),
        {"ram": FLAG, "disc": FLAG}, note="refused: a node that is let in joins when it starts",
    ),
    "reset": Verb(
        partial(refuse, RESET), "", with_node("Resetting node {node} ..."),
        note="refused: an empty data directory does it",
    ),
    "force_reset": Verb(
        partial(refuse, RESET), "", with_node("Forcefully resetting node {node} ..."),
        note="refused: an empty data directory does it",
    ),
    "force_boot": Verb(partial(refuse, ALONE), note="refused: fluffle salvage does it"),
    "stop_app": Verb(
        calls("node.drain"), "", with_node("Stopping rabbit application on node {node} ..."),
        note="as rabbitmq-upgrade drain: it serves no client, and remains a member",
    ),
    "start_app": Verb(
        calls("node.revive"), "", with_node("Starting node {node} ..."),
        note="as rabbitmq-upgrade revive",
    ),
    "stop": Verb(
        stop, "[<pidfile>]", with_node("Stopping and halting node {node} ..."), (0, 1),
        {"idempotent": FLAG}, check=check_here,
        note="only of this machine; a file with its process is accepted, and not needed",
    ),
    "shutdown": Verb(
        shutdown, "", with_node("Shutting down RabbitMQ node {node} ..."),
        options={"wait": FLAG}, check=check_here, note="only of this machine",
    ),
    "wait": Verb(
        wait, "[<pidfile>]", "Waiting for the node in its data directory ...", (0, 1),
        {"pid": TEXT}, note="looks at the data directory, not at a file with its process",
    ),
}  # fmt: skip


QUORUM_WAIT_S = 120.0


def await_online_quorum_plus_one(call: Invocation) -> Report:
    row = call.client.call("status")
    if row["cluster"] is None or row["cluster"]["nodes"] == 1:
        return Report(
            [
                "Target node seems to be the only one in a single node cluster, the command does "
                "not apply"
            ]
        )
    waited(
        call,
        lambda: not list(call.client.rows("queues.critical")),
        "there are queues that have no more than a majority",
        QUORUM_WAIT_S,
    )
    return Report([])


def post_upgrade(call: Invocation) -> Report:
    call.client.call("queues.rebalance")
    return Report(["Rebalancing queue masters..."])


def awaiting(call: Invocation) -> str:
    seconds = call.timeout_s(QUORUM_WAIT_S)
    return (
        "Will wait for a quorum + 1 of nodes to be online for all quorum queues and streams for "
        f"{seconds:g} seconds..."
    )


MAINTENANCE: Mapping[str, Verb] = {
    "drain": Verb(
        calls("node.drain"), "",
        "Will put node {node} into maintenance mode. The node will no longer serve any client "
        "traffic!",
    ),
    "revive": Verb(
        calls("node.revive"), "",
        "Will put node {node} back into regular operating mode. The node will again serve client "
        "traffic and host primary queue replicas.",
        note="what it led it leads again",
    ),
    "await_online_quorum_plus_one": Verb(await_online_quorum_plus_one, "", awaiting),
    "post_upgrade": Verb(
        post_upgrade, "", "Executing post upgrade tasks...", note="rebalances, and says no numbers"
    ),
}  # fmt: skip
