"""`rabbitmq-upgrade`: a node out of service, and back."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.cli.rabbitmq.nodes import waited
from fluffle.broker.cli.rabbitmq.verb import Call, Told, Verb

PATIENCE_S = 120.0


def drain(call: Call) -> None:
    call.client.call("node.drain")


def revive(call: Call) -> None:
    call.client.call("node.revive")


def await_online_quorum_plus_one(call: Call) -> Told:
    row = call.client.call("status")
    if row["cluster"] is None or row["cluster"]["nodes"] == 1:
        return Told(
            [
                "Target node seems to be the only one in a single node cluster, the command does "
                "not apply"
            ]
        )
    waited(
        call,
        lambda: not list(call.client.rows("queues.critical")),
        "there are queues that have no more than a majority",
        PATIENCE_S,
    )
    return Told([])


def post_upgrade(call: Call) -> Told:
    call.client.call("queues.rebalance")
    return Told(["Rebalancing queue masters..."])


def awaiting(call: Call) -> str:
    seconds = call.patience_s(PATIENCE_S)
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
