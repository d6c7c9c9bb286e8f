"""queues.raft: how the member of a quorum queue at one node stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.context import Parts, Row, Rows
from fluffle.broker.admin.members import quorum_queue
from fluffle.broker.queues.quorum.encoding import VERSION

if TYPE_CHECKING:
    from fluffle.raft.group import Status

NO_SNAPSHOT = -1


def raft(parts: Parts, *, name: str, vhost: str) -> Rows:
    """One row, or none if there is no member here."""
    definition = quorum_queue(parts, name, vhost)
    hosted = parts.company.groups.get(definition.id)
    if hosted is not None:
        status = hosted.status
        yield row_of(parts, status.role.value, status)
    elif parts.cluster is None:  # it leads without a log
        yield row_of(parts, "leader", None)


def row_of(parts: Parts, role: str, status: Status | None) -> Row:
    """Of a member here."""
    node = parts.config.node_name
    return {
        "Node Name": node,
        "Raft State": role.replace("-", "_"),
        "Membership": membership(parts, status),
        "Last Log Index": None if status is None else status.last,
        "Last Written": None if status is None else status.durable,
        "Last Applied": None if status is None else status.applied,
        "Commit Index": None if status is None else status.commit,
        "Snapshot Index": NO_SNAPSHOT if status is None else status.floor or NO_SNAPSHOT,
        "Term": None if status is None else status.term,
        "Machine Version": VERSION,
    }


def membership(parts: Parts, status: Status | None) -> str:
    """Whether it votes."""
    member = parts.company.known(parts.config.node_name)
    is_voter = status is None or member in {voter.node for voter in status.config.voters}
    return "voter" if is_voter else "promotable"


READS: Mapping[str, Callable[..., Any]] = {"queues.raft": raft}
