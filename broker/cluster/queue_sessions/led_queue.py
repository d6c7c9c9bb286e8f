"""Port of a session server: a queue that is led on this node, and the table of its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.facts import Key, SessionId
from fluffle.broker.queues.quorum.holders import Holders, Terms


class SessionTable(Protocol):
    """The sessions of a led queue."""

    def key_of(self, session_id: SessionId) -> Key | None:
        """None for one that is not open."""

    def ids(self) -> list[SessionId]:
        """Ids of all open sessions."""

    def open(self, session_id: SessionId) -> Key:
        """The key of a session, which is opened if it is not open."""

    def acknowledge(self, session: Key, below: int) -> None:
        """The client node knows the outcomes of all operations below `below`."""


class LedQueue(Protocol):
    """A queue that is led here.  What client nodes ask of it is answered by the effects that it
    releases (`LeaderServices.release`)."""

    @property
    def queue(self) -> Queue:
        """Queue, for reading."""

    @property
    def sessions(self) -> SessionTable: ...

    @property
    def holders(self) -> Holders: ...

    def publish(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        *,
        persistent: bool,
        expiration_ms: Lifetimes,
        dead_letter_ids: DeadLetterIds | None,
        counts: Counts,
    ) -> None:
        """Operations `first`, `first + 1` ... are a message each."""

    def settle(
        self,
        session: Key,
        number: int,
        holder: Key,
        tokens: Sequence[tuple[int, range]],
        *,
        outcome: Outcome,
    ) -> None:
        """End hand-outs: each run with its ordinal."""

    def get(self, session: Key, number: int, channel: int, *, no_ack: bool) -> None:
        """Hand the next message to a channel, if there is one."""

    def attach(self, session: Key, number: int, terms: Terms) -> None:
        """Let a consumer take part.  The answer is its key, or `IN_EXCLUSIVE_USE`."""

    def detach(
        self, session: Key, number: int, holder: Key, *, outcome: Outcome | None = None
    ) -> None:
        """Hand nothing more to the holder; what it holds stays held, or all comes back."""

    def purge(self, session: Key, number: int) -> None:
        """Drop all that waits.  The answer is how many messages that is."""

    def drop_session(self, session: Key, outcome: Outcome, *, keeps_row: bool = False) -> None:
        """All that consumers of a session hold comes back, and they go; so does it, if not kept."""

    def deliver_again(self, holder: Key, tokens: Sequence[tuple[int, range]]) -> None:
        """Deliver again what a holder has on record and never received."""
