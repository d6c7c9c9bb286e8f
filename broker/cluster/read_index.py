"""The read index of the metadata group: how far a node must be to know all that was answered.

    callers  --> a round for all of them --> the leader: a majority says that it still leads
             <-- applied here, up to what was committed then <--+

A round costs a frame each way and the leader's heartbeat round, and no entry in the log.  One is
under way at a time: a later caller is in the next, since what was answered somewhere after a
round began may not be known here when it ends.  A frame that is lost, or comes to a node that does
not lead, is sent again: to a new leader at once, to the same one after a while.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.clock import Clock, EventLoop
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.hosted_group import OnEntryOutcome, OnReadable
from fluffle.broker.cluster.ports import FrameSender
from fluffle.broker.queues.queue_api import Deferred
from fluffle.raft.config import NodeId

ASK = 0
ANSWER = 1
NUMBER_BYTES = 8
FRAME_BYTES = 1 + 2 * NUMBER_BYTES
NOT_LEADING = 0
"""In the place of an index."""

ROUNDS_A_BOOT = 1 << 32
"""More than there can be before the node starts again."""

RETRY_MS = 1_000

Failed: TypeAlias = Callable[[BrokerError], None]


class MetadataLog(Protocol):
    """Replicated log of the definitions, which this node leads: a `HostedMetadataLog`."""

    @property
    def may_grow(self) -> bool:
        """True if there is room on the disk here for what makes it longer."""

    def propose(self, payload: bytes, on_outcome: OnEntryOutcome) -> None:
        """Have an entry appended; its outcome comes in a later turn."""

    def read_index(self, done: OnReadable) -> None:
        """Ask consensus for the index that was committed; None, if this node does not lead after
        all: see `HostedGroup.read_index`."""


class MetadataRaft(Protocol):
    """The metadata group on this node, and its leader, as rounds need them."""

    @property
    def leads(self) -> bool:
        """True if this node orders the changes of all."""

    @property
    def leader(self) -> NodeId | None:
        """The node that does, as far as it is known."""

    def give_up_at_ms(self) -> int:
        """When a question that comes now has waited long enough."""

    def not_known(self) -> BrokerError:
        """The error that answers it then."""

    @property
    def log(self) -> MetadataLog:
        """The log, while this node leads it."""

    def commit_nothing(self, done: Callable[[], None]) -> None:
        """Put an entry without a change into the log: once it is applied, so is all before it."""


class PendingRead(NamedTuple):
    """A question that waits for a round."""

    answer: Deferred[None]
    give_up_at_ms: int | None
    """None for a question that waits however long it takes."""


class ReadIndex:
    """The rounds of one node, and the questions that wait for them: its `ReadBarrier`."""

    is_complete = False

    def __init__(
        self,
        group: MetadataRaft,
        boot: int,
        *,
        sender: FrameSender,
        loop: EventLoop,
        clock: Clock,
    ) -> None:
        """`boot`: how often the node has started.  What the leader answers to an earlier start must
        not count for a round of this one."""
        self._group = group
        self._sender = sender
        self._loop = loop
        self._clock = clock
        self.begun = boot * ROUNDS_A_BOOT  # mutant: I6
        """The number of the last round that has begun; one at most is under way."""
        self.confirmed = self.begun
        """The last one whose index is applied here."""
        self._applied = 0
        self._needed: int | None = None
        """The index that the round under way needs, once that is known."""
        self._fresh: list[PendingRead] = []
        """The questions for which no round has begun."""
        self._asked: list[PendingRead] = []
        """The questions that the round under way answers; none is under way without any."""
        self._is_starting = False
        """True if the next turn begins one."""
        self._is_timing = False
        self._sent_at_ms = 0
        self._by_entry = 0
        """The round for which an entry is on its way."""

    @property
    def mark(self) -> int:
        """The first round that settles what is asked now."""
        return self.begun + 1

    def ask(self, done: Callable[[], None], failed: Failed | None = None) -> None:
        """Call `done`, later, once all is applied here that was answered anywhere before; or call
        `failed` with why that cannot be known."""
        answer = Deferred[None]()
        answer.then(lambda _none: done(), failed or cannot_fail)
        give_up_at_ms = None if failed is None else self._group.give_up_at_ms()
        self._fresh.append(PendingRead(answer, give_up_at_ms))  # mutant: I2 I5
        self._start_soon()
        self._time()

    def _start_soon(self) -> None:
        if self._fresh and not (self._is_starting or self._asked):
            self._is_starting = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._is_starting = False
        if self._asked or not self._fresh:
            return
        self._asked, self._fresh = self._fresh, []
        self.begun += 1
        self._needed = None
        self._send()

    def _send(self) -> None:
        """Ask the leader for the round under way; without a leader it waits."""
        group, number = self._group, self.begun
        self._sent_at_ms = self._clock.now_ms()
        if group.leads:
            group.log.read_index(partial(self._answered, number))  # mutant: I3
        elif (leader := group.leader) is None:
            return
        elif self._sender.understands(leader):
            self._sender.send(leader, frame(ASK, number, NOT_LEADING))
        elif self._by_entry != number:
            self._by_entry = number
            group.commit_nothing(partial(self._committed, number))

    def _answered(self, number: int, index: int | None) -> None:
        """The leader has answered a round: what was committed after it had begun, whether it still
        leads or not."""
        if number == self.begun and self._asked and index is not None:
            self._needed = index if self._needed is None else min(index, self._needed)
            self.applied(self._applied)

    def _committed(self, number: int) -> None:
        """An entry that was put into the log for a round is applied here."""
        self._answered(number, self._applied)

    def applied(self, index: int) -> None:
        """Handle that everything up to `index` is applied on this node."""
        self._applied = index
        if not self._asked or self._needed is None or index < self._needed:  # mutant: I4
            return
        asked, self._asked = self._asked, []
        self.confirmed = self.begun
        self._start_soon()
        for asker in asked:
            call_listener(partial(asker.answer.answer, None))

    # Who leads, and over which link

    def leader_changed(self) -> None:
        """The node that leads now has not been asked."""
        if self._asked and self._needed is None:
            self._send()

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Asks again: questions over the link before may be lost."""
        if is_up and node == self._group.leader:
            self.leader_changed()

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Takes a question or an answer of another node.  BadFrame."""
        if len(payload) != FRAME_BYTES or payload[0] not in (ASK, ANSWER):
            raise BadFrame("it asks for no read index, and answers with none")
        number = int.from_bytes(payload[1 : 1 + NUMBER_BYTES], "big")
        if payload[0] == ANSWER:
            index = int.from_bytes(payload[1 + NUMBER_BYTES :], "big")
            self._answered(number, index if index != NOT_LEADING else None)
        elif self._group.leads:
            self._group.log.read_index(partial(self._reply, node, number))
        else:
            self._reply(node, number, None)

    def _reply(self, node: NodeId, number: int, index: int | None) -> None:
        self._sender.send(node, frame(ANSWER, number, index or NOT_LEADING))

    # Time

    def _time(self) -> None:
        """Look at the clock now and then while any question waits."""
        if (self._asked or self._fresh) and not self._is_timing:
            self._is_timing = True
            self._loop.call_later(RETRY_MS / 1_000, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._is_timing = False
        now_ms = self._clock.now_ms()
        late = [asker for asker in (*self._asked, *self._fresh) if is_late(asker, now_ms)]
        if late:
            self._asked = [asker for asker in self._asked if not is_late(asker, now_ms)]
            self._fresh = [asker for asker in self._fresh if not is_late(asker, now_ms)]
        if self._asked and self._needed is None and self._sent_at_ms + RETRY_MS <= now_ms:
            self._send()
        self._start_soon()
        self._time()
        for asker in late:
            call_listener(partial(asker.answer.fail, self._group.not_known()))


def is_late(asker: PendingRead, now_ms: int) -> bool:
    """True if a question must not wait any longer."""
    return asker.give_up_at_ms is not None and asker.give_up_at_ms <= now_ms


def cannot_fail(error: BrokerError) -> None:
    """Where a question waits however long it takes."""
    raise AssertionError("it is waited for however long it takes") from error


def frame(kind: int, number: int, index: int) -> bytes:
    return (
        bytes((kind,)) + number.to_bytes(NUMBER_BYTES, "big") + index.to_bytes(NUMBER_BYTES, "big")
    )
