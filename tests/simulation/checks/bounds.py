"""Limits of what is under way, and its accounts at the end: invariant 19.

The limits are those of the code under test, so its own counters are read; that they are right shows
when everything is quiet and they must be back at nothing.
"""

from collections.abc import Callable

from fluffle.raft.config import NodeId
from fluffle.raft.log import GroupId
from fluffle.raft.messages import AppendRequest
from fluffle.raft.state import GroupState
from tests.simulation.facts import Violation
from tests.simulation.watch import Watch


class Bounds:
    """Looks at a leader's window whenever it sends entries."""

    def __init__(self, state_of: Callable[[NodeId, GroupId], GroupState | None]) -> None:
        self._state_of = state_of

    def join(self, watch: Watch) -> None:
        watch.sent[AppendRequest].append(self.sent)

    def sent(self, node: NodeId, receiver: NodeId, request: AppendRequest) -> None:
        """Check the limits of a request: one message may always be under way, and its content may
        exceed a byte."""
        state = self._state_of(node, request.group)
        if not request.entries or state is None or state.leading is None:
            return
        peer = state.leading.peers.get(receiver)
        if peer is None:
            return
        tuning = state.node.tuning
        before = peer.in_flight_bytes - sum(size for _, size in peer._in_flight[-1:])
        if peer.in_flight_messages > tuning.window_messages or before >= tuning.window_bytes:
            raise Violation(
                f"inv 19: {node} has {peer.in_flight_messages} messages and {peer.in_flight_bytes} "
                f"bytes under way to {receiver}: group {request.group}, {tuning}"
            )


def unaccounted(state: GroupState) -> str | None:
    """Text about bytes or messages that a leader believes to be under way although all is quiet."""
    leading = state.leading
    if leading is None:
        return None
    if leading.uncommitted_bytes:
        return f"{leading.uncommitted_bytes} bytes that are not committed"
    for node, peer in leading.peers.items():
        if peer.in_flight_bytes or peer.in_flight_messages:
            return f"{peer.in_flight_messages} messages to {node}, {peer.in_flight_bytes} bytes"
    return None
