"""Refusal of a request to a group, with its reason."""

from enum import Enum

from fluffle.raft.config import NodeId


class RefusalReason(Enum):
    """Reason of a refusal.  All but the last two pass by themselves."""

    NOT_LEADER = "not the leader"
    TRANSFERRING = "leadership is being handed over"
    BEHIND = "too much is not committed yet"
    NO_ROOM = "the disk is nearly full"
    NOT_READY = "no entry of this leader is committed yet"
    CHANGE_UNDER_WAY = "another change of membership is not committed yet"
    NOT_CAUGHT_UP = "the member lacks too much of the log"
    NO_MAJORITY = "too few of those who would vote have answered"
    SENDING = "the snapshot is being sent"
    NOT_ALIVE = "the node is not reachable"
    BAD_CHANGE = "the change makes no sense"
    OUT_OF_DATE = "there is a newer snapshot, or the index is not applied"


class ProposalRefused(Exception):
    """Refusal of a request to a group; nothing was done."""

    def __init__(
        self, reason: RefusalReason, *, leader: NodeId | None = None, detail: str = ""
    ) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.leader = leader
        """For `NOT_LEADER`: who is, if that is known."""
