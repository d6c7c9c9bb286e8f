"""The check whether a quorum needs a node, before it is stopped."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.cli.rabbitmq.verb import Failure, Invocation, Report, Verb


def check_if_node_is_quorum_critical(call: Invocation) -> Report:
    row = call.client.call("status")
    node, cluster = row["node"], row["cluster"]
    if cluster is None or cluster["nodes"] == 1:
        return Report(
            [
                f"Node {node} seems to be the only one in a single node cluster, the check does "
                "not apply"
            ]
        )
    found = list(call.client.rows("queues.critical"))
    if found:
        names = ", ".join(each["readable_name"] for each in found)
        raise Failure(
            f"Node {node} reported queues/streams with minimum online quorum: {names}",
            content={"result": "error", "queues": found},
        )
    return Report([f"Node {node} reported no queues/streams with minimum online quorum"])


VERBS: Mapping[str, Verb] = {
    "check_if_node_is_quorum_critical": Verb(
        check_if_node_is_quorum_critical, "",
        "Checking if node {node} is critical for quorum of any queues/streams ...",
    ),
}  # fmt: skip
