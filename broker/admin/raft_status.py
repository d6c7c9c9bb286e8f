"""queues.raft: how the member of a quorum queue at one node stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.admin.members import quorum_queue
from fluffle.broker.queues.quorum.encoding import VERSION

if TYPE_CHECKING:
    from fluffle.raft.group import Status

NO_SNAPSHOT = -1


def raft(context: NodeContext, *, name: str, vhost: str) -> Rows:
    """One row, or none if there is no member here."""
    definition = quorum_queue(context, name, vhost)
    hosted = context.company.groups.get(definition.id)
    if hosted is not None:
        status = hosted.status
        yield row_of(context, status.role.value, status)
    elif context.cluster is None:  # it leads without a log
        yield row_of(context, "leader", None)


def row_of(context: NodeContext, role: str, status: Status | None) -> Row:
    """Of a member here."""
    node = context.config.node_name
    return {
        "Node Name": node,
        "Raft State": role.replace("-", "_"),
        "Membership": membership(context, status),
        "Last Log Index": None if status is None else status.last,
        "Last Written": None if status is None else status.durable,
        "Last Applied": None if status is None else status.applied,
        "Commit Index": None if status is None else status.commit,
        "Snapshot Index": NO_SNAPSHOT if status is None else status.floor or NO_SNAPSHOT,
        "Term": None if status is None else status.term,
        "Machine Version": VERSION,
    }


def membership(context: NodeContext, status: Status | None) -> str:
    """Whether it votes."""
    member = context.company.known(context.config.node_name)
    is_voter = status is None or member in {voter.node for voter in status.config.voters}
    return "voter" if is_voter else "promotable"


READS: Mapping[str, Callable[..., Any]] = {"queues.raft": raft}
