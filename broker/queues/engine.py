"""The queue: what is ready, who is served, what is in flight, what comes back.

Pure and deterministic: no clock, no chance, no IO.  Messages come in as batches; `pump` returns
what must be delivered, as runs.  Nothing here costs anything per message that could cost it per
run, and no message is an object of its own while it waits.

What features to come will find, and what they must add: the public methods are the only ways to
change a queue, and the journal hears of everything from them; `pump` and `get` decide and account
for what they return, which may be delivered as late as a journal wants.  Sequence numbers
are the queue's, so that priorities can put several lanes behind them.  `enqueue` may refuse, for
length limits.  Time to live needs the time, which no method is given yet, and nothing stops what no
longer fits from being handed out; single active consumer must narrow whom `Turns` returns.
"""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.consumers import Consumer, Turns
from fluffle.broker.queues.counts import Counts
from fluffle.broker.queues.dead import DeadLetter, DeadMessages
from fluffle.broker.queues.handout import FAILED, FINAL, Handout, Holder, Outcome
from fluffle.broker.queues.journal import Damage, Journal, Owner, QueueDefinition, Spill
from fluffle.broker.queues.lane import Lane, Taken
from fluffle.broker.queues.returned import Returns
from fluffle.broker.queues.served import Admission, Debtor, Tally
from fluffle.protocol.deaths import DeathReason

BURST_BYTES = 1_048_576
"""No run is larger: a consumer's turn ends where a write becomes worth its system call."""

BEHIND_MESSAGES = 4096
"""A backlog beyond this slows publishers while there are consumers: several reads' worth."""


class Queue:
    """One queue: its specification, its messages and its consumers."""

    absence = None
    """It is here."""

    __slots__ = (
        "_dead_letter",
        "_drop",
        "_lane",
        "_next_sequence",
        "_on_crash",
        "_touch",
        "_turns",
        "damage",
        "debtors",
        "definition",
        "in_exclusive_use",
        "in_flight",
        "journal",
        "spec",
    )

    def __init__(
        self,
        spec: QueueSpec,
        *,
        touch: Callable[[Queue], None],
        definition: QueueDefinition | None = None,
        journal: Journal | None = None,
        spill: Spill | None = None,
        on_crash: Callable[[Queue], None] | None = None,
        returned: Returns | None = None,
        dead_letter: DeadLetter | None = None,
        drop: Callable[[Taken], None] | None = None,
    ) -> None:
        self.spec = spec
        self.damage: Damage | None = None
        """What is next and cannot be read.  The queue has crashed: it takes messages, as safely as
        ever, and hands out none until `drop_damaged` or `purge`."""
        self._dead_letter = dead_letter if spec.dead_letter_exchange is not None else None
        """Republishes what has died here; None if nobody wants that."""
        self._drop = drop if spec.drops_beyond is not None else None
        """Is given what is taken off the front because too much waits."""
        self._on_crash = on_crash
        """Told when that happens, and when all that was handed out before has been delivered."""
        self.journal = journal
        """Told of persistent messages; None for a queue that ends with the process."""
        self.definition = definition or QueueDefinition(spec)
        """What it is, for those who have to remember."""
        self.in_flight = 0
        """Messages handed out and not settled."""
        self.in_exclusive_use = False
        """Whether its consumer is exclusive, and so the only one."""
        self.debtors: list[Debtor] = []
        """Who has put in too much, whoever did so first in front."""
        self._lane = Lane(journal, spill, returned)
        self._next_sequence = 1
        self._turns = Turns()
        self._touch = touch
        """Asks for `pump` to be called before this turn of the loop ends."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def owner(self) -> Owner | None:
        """The connection that alone may use it, for an exclusive queue."""
        return self.definition.owner

    @property
    def ready_count(self) -> int:
        """Messages that could be delivered now."""
        return self._lane.count

    @property
    def consumer_count(self) -> int:
        return len(self._turns)

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        return tuple(self._turns)

    @property
    def is_unused(self) -> bool:
        return not len(self._turns)

    @property
    def tally(self) -> Tally:
        return Tally(self._lane.count, self.in_flight, len(self._turns))

    @property
    def here(self) -> Tally:
        return self.tally

    @property
    def settling(self) -> None:
        """It is so once the commit that collects has been done."""

    @property
    def first_unseen(self) -> int:
        """Messages with lower sequence numbers may have been handed out, those from it on not."""
        return self._lane.first_unseen(self._next_sequence)

    def recover(self) -> None:
        """Take up what the journal holds, before anything else happens."""
        assert self.journal is not None
        recovery = self.journal.recover()
        self._next_sequence = recovery.next_sequence
        self._lane.recover(recovery)
        if recovery.damage is not None:
            self._crash(is_told=True)

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool = False,
    ) -> Admission:
        """Add messages at the end.  The caller may keep the lists but must not change them.

        A queue that has been deleted meanwhile accepts them too, as RabbitMQ does.
        """
        first, journal = self._next_sequence, self.journal
        self._next_sequence = first + len(contents)
        if self._turns.any_awake:
            self._touch(self)
        if journal is None or not persistent:
            self._lane.append(origins, contents, content_bytes, first)
            return Admission.ACCEPTED
        ticket = journal.commits.ticket
        apart = self._lane.append(origins, contents, content_bytes, first, ticket=ticket)
        journal.enqueued(origins, contents, content_bytes, first, apart=apart)
        return Admission.RECORDED

    @property
    def is_full(self) -> bool:
        """Messages beyond what memory holds are on disk."""
        return False

    @property
    def is_behind(self) -> bool:
        """Whether more waits here than its consumers are likely to take soon."""
        return self._lane.count > BEHIND_MESSAGES and len(self._turns) > 0

    def pump(self) -> list[Handout]:
        """Hand out what the consumers have room for, message by message in turn.

        Everything is accounted for when this returns; each run must be delivered then, whenever
        that is.
        """
        lane = self._lane
        handouts: list[Handout] = []
        while lane.count:
            available = lane.available(BURST_BYTES)
            if not available:
                self._crash(is_told=not handouts)
                break
            served = self._turns.next_with_room(available)
            if not served:
                break
            rounds = min(available // len(served), *(room for _, room in served))
            handouts += self._share(lane.take(rounds * len(served)), served)
        if self._drop is not None:
            self._shorten(self._drop)
        return handouts

    def _shorten(self, drop: Callable[[Taken], None]) -> None:
        """Take off the front what waits beyond the limit, and can be read."""
        lane, limit = self._lane, self.spec.drops_beyond
        while limit is not None and lane.count > limit:
            available = lane.available(BURST_BYTES)
            if not available:
                break
            taken = lane.take(min(available, lane.count - limit))
            drop(taken)
            self._pay(len(taken.contents))

    def _crash(self, *, is_told: bool) -> None:
        """What is next is damaged; what was handed out with this call must leave before."""
        if not is_told:
            self._touch(self)
        elif self.damage is None:
            self.damage = self._lane.damage
            if self._on_crash is not None:
                self._on_crash(self)

    def _share(self, taken: Taken, served: list[tuple[Consumer, int]]) -> list[Handout]:
        """Deal a run out to the consumers, the first message to the first and so on."""
        handouts = []
        step = len(served)
        for start, (consumer, _room) in enumerate(served):
            origins, contents, sequences = taken.origins, taken.contents, taken.sequences
            if step > 1:
                origins, contents = origins[start::step], contents[start::step]
                sequences = sequences[start::step]
            handout = Handout(
                consumer,
                origins,
                contents,
                sequences,
                redelivered=taken.redelivered,
                is_recorded=taken.is_recorded,
                counts=taken.counts,
            )
            self._hand(handout)
            handouts.append(handout)
        self._pay(len(taken.contents))
        return handouts

    def _hand(self, handout: Handout) -> None:
        """Account for messages that are in somebody's hands from now on."""
        holder = handout.holder
        holder.took(handout)
        if not holder.no_ack:
            self.in_flight += len(handout.contents)
        elif handout.is_recorded and self.journal is not None:
            self.journal.settled(handout.sequences)

    def take_up(self, handout: Handout) -> None:
        """Account for messages that were in somebody's hands before this queue was made."""
        self._hand(handout)

    def _pay(self, count: int) -> None:
        """Tell the publishers that wait for it, in turn, that `count` messages have left."""
        for debtor in tuple(self.debtors):
            count = debtor.paid(self, count)
            if not count:
                break

    def get(self, holder: Holder) -> Handout | None:
        """Hand out the next message to `holder` (basic.get), if there is one.

        Nor is there if `damage` is set then.
        """
        if not self._lane.count:
            return None
        if not self._lane.available(1):
            self._crash(is_told=True)
            return None
        taken = self._lane.take(1)
        self._pay(1)
        handout = Handout(
            holder,
            taken.origins,
            taken.contents,
            taken.sequences,
            redelivered=taken.redelivered,
            is_recorded=taken.is_recorded,
            counts=taken.counts,
        )
        self._hand(handout)
        return handout

    def settle(self, handout: Handout, start: int, stop: int, outcome: Outcome) -> None:
        """The messages `start` to `stop` of a run are in nobody's hands any more.

        They are done with, or come back; so does, if it could not be sent, what a holder with
        no_ack was handed.
        """
        if outcome not in FINAL:
            self._take_back(handout, start, stop, outcome)
        elif handout.is_recorded and self.journal is not None:
            self.journal.settled(handout.sequences[start:stop])
        dead = handout.contents[start:stop] if outcome is Outcome.REJECTED else []
        handout.release(start, stop)
        if not handout.holder.no_ack:
            self.in_flight -= stop - start
            handout.holder.settled(stop - start)
        if dead and self._dead_letter is not None:
            origins = handout.origins[start:stop]
            self._dead_letter(self.spec, DeadMessages(DeathReason.REJECTED, origins, dead))

    def _take_back(self, handout: Handout, start: int, stop: int, outcome: Outcome) -> None:
        before = handout.counts
        self._lane.give_back(
            handout.origins[start:stop],
            handout.contents[start:stop] if handout.origins else [],
            handout.sequences[start:stop],
            counts=Counts(before.acquired + 1, before.failed + (outcome in FAILED)),
            is_recorded=handout.is_recorded,
        )
        if handout.is_recorded and handout.holder.no_ack and self.journal is not None:
            self.journal.unsettled(handout.sequences[start:stop])
        if self._turns.any_awake:
            self._touch(self)

    def purge(self) -> int:
        """Drop every ready message, damaged or not; how many there were."""
        dropped = self._lane.clear()
        self.damage = None
        self._pay(dropped)
        return dropped

    def drop_damaged(self) -> int:
        """Drop the damaged messages that are next, those that were written together; how many.

        `damage` is still set if what comes behind them is damaged as well, and, with 0, if it
        cannot be told where they end.
        """
        lane = self._lane
        dropped = lane.drop_damaged() if lane.damage is not None else 0
        if lane.damage is None and lane.count:
            lane.available(1)
        self.damage = lane.damage
        self._pay(dropped)
        return dropped

    def shed(self) -> bool:
        """Memory is short: keep in it only what will be handed out next.

        False when the disk must catch up before more can leave.
        """
        return self._lane.shed()

    def attach(self, consumer: Consumer) -> None:
        """Let a consumer take part."""
        self.in_exclusive_use |= consumer.exclusive
        self._turns.add(consumer)
        if self._lane.count:
            self._touch(self)

    def detach(self, consumer: Consumer) -> None:
        """Deliver nothing more to a consumer.  What it holds stays held."""
        self._turns.remove(consumer)
        if consumer.exclusive:
            self.in_exclusive_use = False

    def wake(self, consumer: Consumer) -> None:
        """A parked consumer may have room again."""
        self._turns.wake(consumer)
        if self._lane.count:
            self._touch(self)
