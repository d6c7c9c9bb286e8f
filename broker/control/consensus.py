"""raft.members: how the member of a quorum queue on this node is; `everywhere.rows` asks all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.control.members import quorum_queue
from fluffle.broker.control.parts import Parts, Rows


def raft(parts: Parts, *, name: str, vhost: str) -> Rows:
    """None where there is no member."""
    definition = quorum_queue(parts, name, vhost)
    hosted = parts.company.groups.get(definition.id)
    if hosted is None:
        return
    status, shown = hosted.status, parts.company.shown
    is_voter = any(shown(each.node) == parts.config.node_name for each in status.config.voters)
    yield {
        "role": status.role.value,
        "membership": "voter" if is_voter else "learner",
        "term": status.term,
        "leader": shown(status.leader) if status.leader else None,
        "last": status.last,
        "durable": status.durable,
        "commit": status.commit,
        "applied": status.applied,
        "snapshot": status.floor,
        "voters": [shown(each.node) for each in status.config.voters],
        "learners": [shown(each.node) for each in status.config.learners],
        "quarantined": status.is_quarantined,
    }


READS: Mapping[str, Callable[..., Any]] = {"raft.members": raft}
