"""`rabbitmq-upgrade`: a node out of service, and back."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.cli.rabbitmq.nodes import waited
from fluffle.broker.cli.rabbitmq.verb import Invocation, Report, Verb

WAIT_TIMEOUT_S = 120.0


def drain(call: Invocation) -> None:
    call.client.call("node.drain")


def revive(call: Invocation) -> None:
    call.client.call("node.revive")


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
        WAIT_TIMEOUT_S,
    )
    return Report([])


def post_upgrade(call: Invocation) -> Report:
    call.client.call("queues.rebalance")
    return Report(["Rebalancing queue masters..."])


def awaiting(call: Invocation) -> str:
    seconds = call.timeout_s(WAIT_TIMEOUT_S)
    return (
        "Will wait for a quorum + 1 of nodes to be online for all quorum queues and streams for "
        f"{seconds:g} seconds..."
    )


VERBS: Mapping[str, Verb] = {
    "drain": Verb(
        drain, "",
        "Will put node {node} into maintenance mode. The node will no longer serve any client "
        "traffic!",
    ),
    "revive": Verb(
        revive, "",
        "Will put node {node} back into regular operating mode. The node will again serve client "
        "traffic and host primary queue replicas.",
        note="what it led it leads again",
    ),
    "await_online_quorum_plus_one": Verb(await_online_quorum_plus_one, "", awaiting),
    "post_upgrade": Verb(
        post_upgrade, "", "Executing post upgrade tasks...", note="rebalances, and says no numbers"
    ),
}  # fmt: skip
