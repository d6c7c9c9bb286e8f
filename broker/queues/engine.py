"""The queue: what is ready, which consumer is served, what is in flight, what comes back.

Pure and deterministic: no clock, no chance, no IO.  Messages come in as batches, `pump` returns
what must be delivered as runs, and no message is an object of its own while it waits: nothing costs
anything per message that could cost it per run.  The public methods are the only ways to change a
queue.  What `pump` and `get` return is accounted for, and may be delivered as late as one likes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, cast

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.consumers import ConsumerTimeouts, schedule_of
from fluffle.broker.queues.conversion_buffer import ConversionHold
from fluffle.broker.queues.dead_letters import AtMostOnceDeadLettering, Bury, RepublishDeadLetters
from fluffle.broker.queues.deduplication import DuplicateFilter, EnqueueFilter
from fluffle.broker.queues.delayed_ready_list import DelayedReadyList
from fluffle.broker.queues.delivery_counts import DeliveryCountIndex
from fluffle.broker.queues.expiry_times import (
    NEVER_MS,
    Deadlines,
    Lifetimes,
    deadlines_of,
    is_instant,
)
from fluffle.broker.queues.journal import Damage, Journal, Owner, PageStore, QueueDefinition
from fluffle.broker.queues.length_limit import LengthLimit, length_limit_of, limit_of
from fluffle.broker.queues.priority_ready_list import (
    AnyReadyList,
    PriorityLevels,
    PriorityReadyList,
    levels_of,
    spread,
)
from fluffle.broker.queues.publish_target import (
    BlockedPublisher,
    Enqueue,
    EnqueueResult,
    PartialResult,
    release_publishers,
)
from fluffle.broker.queues.queue_api import (
    FINAL,
    Consumer,
    DeliveryBatch,
    DirectWriter,
    Holder,
    Outcome,
    PeekRequest,
    PeekResult,
    QueueClock,
    QueueCounts,
)
from fluffle.broker.queues.queue_view import ReadyView, peek
from fluffle.broker.queues.ready_list import NO_MESSAGE, ReadyList
from fluffle.broker.queues.requeue import NO_DELAYS, DelayedRetries, RequeueOrder
from fluffle.broker.queues.segment import TakenMessages
from fluffle.broker.queues.settings import DEFAULTS, DeduplicationCache, QueueSettings, settings_of
from fluffle.protocol.headers import DeathReason

BURST_BYTES = 1_048_576
"""No run is larger: a consumer's turn ends where a write becomes worth its system call."""

EXPIRED_SEGMENTS_MAX = 8
"""Most segments removed in one turn, each a megabyte or a thousand messages."""

BEHIND_MESSAGES = 4096
"""A backlog beyond this slows publishers while there are consumers: several reads' worth."""


class QueueTurn(Protocol):
    """Turn of an event loop, in which queues are pumped."""

    def touch_queue(self, queue: Queue, /) -> None:
        """Have `pump` called before the turn ends."""

    def touch_queue_last(self, queue: Queue, /) -> None:
        """The same, behind all others for which that was asked."""


class QueueHost(Protocol):
    """Part of a node that has made a queue: what the queue needs of it, and what it hears."""

    @property
    def turn(self) -> QueueTurn: ...

    @property
    def time(self) -> QueueClock: ...

    @property
    def consumer_timeout_ms(self) -> int | None:
        """How long anything may be held where nothing else says so; None: for ever."""

    @property
    def dead_letter(self) -> RepublishDeadLetters | None:
        """Function that republishes dead messages; None where there is none."""

    @property
    def bury(self) -> Bury | None:
        """Does all that is to be done about what has died in front; None: the queue does."""

    def other_counted_messages(self) -> int:
        """How many messages count for the limit of the queue that are not in it."""

    def duplicate_filter(self, cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
        """Filter of duplicates for a queue that deduplicates from now on, or did in an earlier
        process."""

    def deliver_early(self, delivery_batches: list[DeliveryBatch]) -> None:
        """Pass on what is handed out before too much waits."""

    def on_crash(self, queue: Queue) -> None:
        """Called when the next message is unreadable, after all deliveries made before it."""

    def on_queue_expired(self, queue: Queue) -> None:
        """Called by `pump` when the queue was unused for its whole x-expires time."""


class QueueStores(NamedTuple):
    """Where the messages of one queue are kept that it does not have in memory, or not as ready."""

    journal: Journal | None = None
    """Journal of persistent messages; None if they end with the process."""
    spill: PageStore | None = None
    """Takes others while memory is short."""
    requeued: RequeueOrder | None = None
    """Order of requeued messages; None: by sequence number."""
    delays: DelayedRetries = NO_DELAYS
    """Requeued messages that wait for their retry delay."""
    delayed_list: DelayedReadyList | None = None
    """Where all that is ready waits, in a delayed queue."""
    delivery_counts: DeliveryCountIndex | None = None
    """Counts that ready messages brought from another quorum queue; None where not needed."""


NO_STORES = QueueStores()
"""All is in memory."""


class QueueExpiry:
    """Idle time of a queue with x-expires.  Consumers use it."""

    __slots__ = ("_after_ms", "_is_announced", "_now_ms", "_since_ms", "_wake")

    def __init__(
        self, after_ms: int, now_ms: Callable[[], int], wake: Callable[[int], None]
    ) -> None:
        """Begin the idle time now, also for a queue of an earlier process.  `wake` is called with
        the time in ms at which to check again."""
        self._after_ms = after_ms
        self._now_ms = now_ms
        self._wake = wake
        self.used()

    def used(self) -> None:
        """Restart the idle time: the queue was used, or its last consumer has gone."""
        self._since_ms = self._now_ms()
        self._is_announced = False
        self._wake(self.due_ms)

    @property
    def due_ms(self) -> int:
        """Time at which the queue is to go, if it stays unused."""
        return NEVER_MS if self._is_announced else self._since_ms + self._after_ms

    @property
    def is_over(self) -> bool:
        """True if the idle time is over; the queue goes if it has no consumers."""
        return self._now_ms() >= self._since_ms + self._after_ms  # mutant: X4

    def is_to_be_announced(self) -> bool:
        """True once, when the time is over and not announced; asking counts as announcing."""
        if self._is_announced or not self.is_over:  # mutant: X5
            return False
        self._is_announced = True
        return True


class Queue:
    """Queue engine: the specification, the messages and the consumers of one queue."""

    unreachable_error = None
    """No error: a queue that lives on this node can always be asked."""
    counts_error = None
    """No error: its counts are known here."""
    settling = None
    """Nothing to wait for: a settlement is final once the commit that collects has been done."""
    is_full = False
    """Messages beyond what memory holds are on disk."""
    apart_count = 0
    """Always 0 here: the leader of a quorum queue has a count of its own."""

    __slots__ = (
        "_bury",
        "_direct",
        "_dying",
        "_entrance",
        "_guards",
        "_host",
        "_is_fed",
        "_length_limit",
        "_levels_if_split",
        "_message_ttl_ms",
        "_overdue",
        "_ready_list",
        "_settings",
        "_time",
        "_touch",
        "_turns",
        "blocked_publishers",
        "damage",
        "definition",
        "delays",
        "in_exclusive_use",
        "in_flight",
        "journal",
        "pause",
        "queue_expiry",
        "spec",
    )  # fmt: skip

    def __init__(
        self,
        spec: QueueSpec,
        host: QueueHost,
        stores: QueueStores = NO_STORES,
        *,
        settings: QueueSettings | None = None,
        definition: QueueDefinition | None = None,
    ) -> None:
        """`settings` are those of its arguments alone, if they are None."""
        self.spec = spec
        self.definition = definition or QueueDefinition(spec)
        """Definition of the queue, as the metadata has it."""
        self.damage: Damage | None = None
        """Damage of the next message, or None.  The queue has crashed: it takes messages, as safely
        as ever, and hands out none until `drop_damaged` or `purge`."""
        self._ready_list, self.journal, self._levels_if_split = initial_ready_list(spec, stores)
        """The journal gets persistent messages; None if it ends with the process."""
        self.delays = stores.delays
        """Requeued messages that wait for their retry delay."""
        self._host, self._touch, self._time = host, host.turn.touch_queue, host.time
        self._dying = AtMostOnceDeadLettering(spec, DEFAULTS, self.journal, host.dead_letter)
        self._bury = host.bury or self._dying.bury
        self.in_flight = 0
        """Messages handed out and not settled."""
        self.in_exclusive_use = False
        """True if the only consumer is an exclusive one."""
        self.blocked_publishers: list[BlockedPublisher] = []
        """Publishers blocked because they enqueued too much, longest blocked first."""
        self._message_ttl_ms: int | None = None
        self._length_limit: LengthLimit | None = None
        self._direct: DirectWriter | None = None
        """That of the only consumer, in a queue whose messages need no place in it."""
        keyed = self.enqueue if spec.guarantee.takes_keys else None
        self._entrance = EnqueueFilter(host.duplicate_filter, keyed)
        self._turns = schedule_of(spec)
        self._is_fed = False
        """True if messages came for which a consumer may have room since the last `pump` or
        `deliver_ready`."""
        self.queue_expiry: QueueExpiry | None = None
        """Idle time after which the queue is deleted (x-expires), if it has one."""
        self._overdue = ConsumerTimeouts(self._time, host.consumer_timeout_ms)
        self._settings = DEFAULTS
        self.pause: ConversionHold | None = None
        """While it is being changed: then nothing leaves it."""
        self._apply_settings(settings if settings is not None else settings_of(spec))

    @property
    def name(self) -> str:
        return self.spec.name

    def redefine(self, definition: QueueDefinition) -> None:
        """Take another definition; what is in force of its arguments is said by `settings`."""
        self.definition, self.spec = definition, definition.spec

    @property
    def settings(self) -> QueueSettings:
        """Settings in force, from arguments and policies; they may be replaced."""
        return self._settings

    @settings.setter
    def settings(self, settings: QueueSettings) -> None:
        self._apply_settings(settings)
        self._touch(self)

    def _apply_settings(self, settings: QueueSettings) -> None:
        """Follow these settings from now on: idle time so far counts for nothing under another
        x-expires, and messages already there keep the deadline that they came with."""
        expires_ms, time = settings.expires_ms, self._time
        if expires_ms != self._settings.expires_ms:
            wake = partial(time.wake, self)
            self.queue_expiry = (
                QueueExpiry(expires_ms, time.now_ms, wake) if expires_ms is not None else None
            )
        if settings.limits != self._settings.limits:
            limit = limit_of(settings, self.spec.queue_type)
            self._length_limit = length_limit_of(limit, self._ready_list, self)
        self._guards = self._entrance.go_by(settings.cache, self._length_limit, self.enqueue)
        if self.spec.mailbox_limit:
            self._guards = (*self._guards, self._drop_untaken)
        self._overdue.go_by(self, settings.consumer_timeout_ms)
        self._settings = self._dying.settings = settings
        self._message_ttl_ms = settings.message_ttl_ms

    # What its length limit asks for: see `LimitedQueue`

    def other_counted_messages(self) -> int:
        return self.delays.count + self._host.other_counted_messages()

    def touch(self) -> None:
        self._touch(self)

    def pump_early(self) -> None:
        self._host.deliver_early(self.pump())

    def drop_surplus(self, taken: TakenMessages) -> None:
        self._take_off(DeathReason.MAXLEN, taken)

    def rejected(self, origins: list[Origin], contents: list[bytes]) -> None:
        self._dying.hand_on(DeathReason.MAXLEN, origins, contents)

    @property
    def owner(self) -> Owner | None:
        return self.definition.owner

    @property
    def ready_count(self) -> int:
        """Messages that could be delivered now."""
        return self._ready_list.count

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
    def queue_counts(self) -> QueueCounts:
        return QueueCounts(self._ready_list.count, self.in_flight, len(self._turns))

    local_counts = queue_counts
    """The same counts: this node leads the queue."""

    @property
    def queue_counts_in_use(self) -> QueueCounts:
        self.deliver_ready()
        self._used()
        return self.queue_counts

    @property
    def is_queue_expired(self) -> bool:
        """True if the queue was unused for its whole x-expires time."""
        return self.queue_expiry is not None and self.is_unused and self.queue_expiry.is_over

    @property
    def unseen(self) -> list[tuple[int, int]]:
        """First sequence number never delivered, with its log of the journal."""
        return self._ready_list.unseen

    def recover(self) -> None:
        """Take up what the journal holds, before anything else happens."""
        assert self.journal is not None
        levels = self._levels_if_split
        if levels is not None and {*self.journal.by_level.levels} - {levels.missing}:
            self._spread(levels)
        self._ready_list.recover(self.journal.recover())
        self._ask_to_be_woken()
        if self._ready_list.damage is not None:
            self._crash(is_announced=True)

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool = False,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult | PartialResult:
        """Add messages at the end.  The caller may keep the lists but must not change them.

        All name a priority or none does.  Once it is deleted, too, it accepts them, as RabbitMQ
        does.
        """
        if (
            self._direct is not None
            and not self._ready_list.count
            and self.pause is None
            and expiration_ms is None
            and self._direct.send_past(origins, contents, content_bytes)
        ):
            return EnqueueResult.ACCEPTED  # nothing is before them
        size_bytes = None
        for guard in self._guards:
            result = guard(origins, contents, content_bytes, persistent, expiration_ms)
            if isinstance(result, int):
                size_bytes = result
            elif result is not None:
                return result
        levels = self._levels_if_split
        if levels is not None and levels.of(contents) != levels.missing:
            self._spread(levels)
        expires = expiration_ms is not None or self._message_ttl_ms is not None
        expires_at_ms = self._expires_at_ms(expiration_ms) if expires else 0
        if self._turns.any_awake:
            self._is_fed = True
            self._touch(self)
        is_recorded = persistent and self.journal is not None
        self._ready_list.put(
            origins,
            contents,
            content_bytes,
            is_recorded=is_recorded,
            expires_at_ms=expires_at_ms,
            size_bytes=size_bytes,
        )
        if self._length_limit is not None:
            self._length_limit.added(len(contents), content_bytes)
        return EnqueueResult.RECORDED if is_recorded else EnqueueResult.ACCEPTED

    def _drop_untaken(
        self, origins: list[Origin], contents: list[bytes], *_how: object
    ) -> EnqueueResult | None:
        """Drop messages that come in if many wait already, and no consumer has room."""
        if self._turns.any_awake or self._ready_list.count <= self.spec.mailbox_limit:
            return None
        self._dying.hand_on(DeathReason.MAXLEN, origins, contents)
        return EnqueueResult.ACCEPTED

    def _spread(self, levels: PriorityLevels) -> None:
        """Not all messages have the same priority any more."""
        self._ready_list = spread(self._ready_list, levels, self.journal)
        self._levels_if_split = None
        if self._length_limit is not None:
            self._length_limit.move(self._ready_list)

    def _take_off(self, reason: DeathReason, taken: TakenMessages) -> None:
        """Messages have died in front."""
        self._bury(reason, taken)
        release_publishers(self, taken.count)

    def _expires_at_ms(self, expiration_ms: Lifetimes) -> Deadlines:
        """Expiry times of incoming messages; wakes the queue if the next message, or one without
        time to live, must be checked."""
        expires_at_ms = deadlines_of(expiration_ms, self._message_ttl_ms, self._time.now_ms())
        if not (self._ready_list.count and isinstance(self._ready_list, ReadyList)) or is_instant(
            expires_at_ms
        ):
            self._touch(self)
        return expires_at_ms

    @property
    def is_behind(self) -> bool:
        """True if more messages are ready than the consumers are likely to take soon."""
        return self._ready_list.count > BEHIND_MESSAGES and len(self._turns) > 0

    def pump(self) -> list[DeliveryBatch]:
        """Hand out what the consumers have room for, message by message in turn.

        Everything is accounted for then, and each run must be delivered, whenever that is.
        """
        self._overdue.look(self)
        self._is_fed, delivery_batches = False, list[DeliveryBatch]()
        is_timed = self._is_timed
        if self._length_limit is not None and self.pause is None:
            self._length_limit.keep_requeued()
        if self.pause is not None or (is_timed and not self._do_due()):
            return delivery_batches
        if not self._deal(delivery_batches, is_timed=is_timed):
            return delivery_batches
        if self._length_limit is not None:
            self._length_limit.keep()
        if is_timed:
            self._look_ahead()
        if self._length_limit is not None:
            self._length_limit.judge()
        return delivery_batches

    def deliver_ready(self) -> None:
        """Hand out at once what has come since the last time: what is done next might have it
        handed to others, and what was published before has happened before.

        `get`, `attach`, `purge`, `queue_counts_in_use` call this; `detach`, `settle` do not, since
        they are done for clients that are gone, too: the caller that acts for one that
        asked calls it before.
        """
        if self._length_limit is not None and self.pause is None:
            self._length_limit.keep_requeued()
        if not self._is_fed:
            return
        self._is_fed, is_timed = False, self._is_timed
        if self.pause is None and self.damage is None and (not is_timed or self._do_due()):
            delivery_batches: list[DeliveryBatch] = []
            self._deal(delivery_batches, is_timed=is_timed, is_crash_announced=False)
            self._host.deliver_early(delivery_batches)

    @property
    def _is_timed(self) -> bool:
        """True if anything in the queue depends on time."""
        return self._ready_list.is_timed or self.queue_expiry is not None or self.delays.count > 0

    def _deal(
        self,
        delivery_batches: list[DeliveryBatch],
        *,
        is_timed: bool,
        is_crash_announced: bool = True,
    ) -> bool:
        """Deal out what is ready and there is room for; whether that is all for now."""
        ready_list = self._ready_list
        while ready_list.count and (not is_timed or self._turns.any_awake):
            available = ready_list.available(BURST_BYTES)
            if not available:
                if ready_list.damage is not None:
                    self._crash(is_announced=is_crash_announced and not delivery_batches)
                    break
                if self.expire():
                    continue
                return False
            served = self._turns.next_with_room(available)
            if not served:
                break
            rounds = min(available // len(served), *(room for _, room in served))
            delivery_batches += self._share(ready_list.take(rounds * len(served)), served)
        return True

    @property
    def due_ms(self) -> int | None:
        """Time at which `pump` has work without any request, or None."""
        is_aging = self._ready_list.is_timed and not self._settings.is_still
        due_ms = min(self.delays.due_ms, self._ready_list.due_ms if is_aging else NEVER_MS)
        if self.queue_expiry is not None and self.is_unused:
            due_ms = min(due_ms, self.queue_expiry.due_ms)
        return due_ms if due_ms < NEVER_MS else None

    def _do_due(self) -> bool:
        """Do all that is due by now; True if nothing due is left."""
        queue_expiry = self.queue_expiry
        if queue_expiry is not None and self.is_unused and queue_expiry.is_to_be_announced():
            self._host.on_queue_expired(self)
        now_ms = self._time.now_ms()
        self._ready_list.now_ms = 0 if self._settings.is_still else now_ms
        self.delays.mature(self._ready_list.give_back, now_ms)
        return self.expire()

    def _look_ahead(self) -> None:
        """Expire messages without time to live that no consumer took, and ask to be woken for the
        next."""
        self._ready_list.new_from = NO_MESSAGE
        self.expire()
        self._ask_to_be_woken()

    def _ask_to_be_woken(self) -> None:
        if (due_ms := self.due_ms) is not None:
            self._time.wake(self, due_ms)

    def expire(self) -> bool:
        """Take messages off the front that have expired.

        Whether the next one has not: there is a limit to what is done in one turn.
        """
        for _ in range(EXPIRED_SEGMENTS_MAX):
            taken = self._ready_list.expire(are_read=self._dying.are_wanted)
            if taken is None:
                return True
            self._take_off(DeathReason.EXPIRED, taken)
        self._touch(self)
        return False

    def _used(self) -> None:
        """Record a use of the queue."""
        if self.queue_expiry is not None:
            self.queue_expiry.used()

    def _crash(self, *, is_announced: bool) -> None:
        """Mark the queue as crashed at an unreadable message, once what this call delivered is
        announced."""
        if not is_announced:
            self._touch(self)
        elif self.damage is None:
            self.damage = self._ready_list.damage
            self._host.on_crash(self)

    def _share(
        self, taken: TakenMessages, served: list[tuple[Consumer, int]]
    ) -> list[DeliveryBatch]:
        """Deal a run out to the consumers, the first message to the first and so on."""
        delivery_batches = []
        for start, (consumer, _room) in enumerate(served):
            delivery_batch = taken.handed_to(consumer, start, len(served))
            self.account_delivery(delivery_batch)
            delivery_batches.append(delivery_batch)
        release_publishers(self, len(taken.contents))
        return delivery_batches

    def account_delivery(self, delivery_batch: DeliveryBatch) -> None:
        """Account for messages that their holder has from now on."""
        holder = delivery_batch.holder
        holder.took(delivery_batch)
        if not holder.no_ack:
            self.in_flight += len(delivery_batch.contents)
            self._overdue.handed(self, delivery_batch)
        elif delivery_batch.is_recorded and self.journal is not None:
            self.journal.settled(delivery_batch.sequences)

    def get(self, holder: Holder) -> DeliveryBatch | None:
        """Hand out the next message to `holder` (basic.get), if there is one and no `damage`."""
        self.deliver_ready()  # mutant: OR2
        self._used()
        ready_list = self._ready_list
        if ready_list.is_timed and self.pause is None and not self._settings.is_still:
            ready_list.now_ms, ready_list.new_from = self._time.now_ms(), NO_MESSAGE
            while not self.expire():  # the answer must not be that there is none if there is
                pass
        if self.pause is not None or not ready_list.count:
            return None
        if not ready_list.available(1):
            self._crash(is_announced=True)
            return None
        delivery_batch = ready_list.take(1).handed_to(holder)
        release_publishers(self, 1)
        self.account_delivery(delivery_batch)
        if ready_list.is_timed:  # its client hears how many more there are
            self._look_ahead()
        return delivery_batch

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> None:
        """Settle the messages `start` to `stop` of a run, which no client holds any more.

        Done with, or back; so is what a holder with no_ack was handed, if it could not be sent.
        Those that came back before, for they were held for too long, are passed over.
        """
        if delivery_batch.delivered_at_ms and not self._overdue.settled(
            delivery_batch, stop - start
        ):
            return
        if outcome not in FINAL:
            self._take_back(delivery_batch, start, stop, outcome)
        elif delivery_batch.is_recorded and self.journal is not None:
            self.journal.settled(delivery_batch.sequences[start:stop])
        dead = delivery_batch.contents[start:stop] if outcome is Outcome.REJECTED else []
        delivery_batch.release(start, stop)
        if not delivery_batch.holder.no_ack:
            self.in_flight -= stop - start
            delivery_batch.holder.settled(stop - start)
        if dead:
            self._dying.hand_on(DeathReason.REJECTED, delivery_batch.origins[start:stop], dead)

    def _take_back(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> None:
        self._ready_list.give_back(delivery_batch.back(start, stop, outcome))
        if delivery_batch.is_recorded and delivery_batch.holder.no_ack and self.journal is not None:
            self.journal.unsettled(delivery_batch.sequences[start:stop])
        if self._length_limit is not None and self.pause is None:
            self._length_limit.came_back(delivery_batch.contents[start:stop])
        if (
            self._turns.any_awake
            or delivery_batch.expiries is not None
            or self._length_limit is not None
        ):
            self._touch(self)

    def peek(self, request: PeekRequest) -> PeekResult:
        """Look at ready messages, which changes nothing."""
        return peek(self, request)

    @property
    def ready_view(self) -> ReadyView:
        """Read-only view of the ready messages."""
        return ReadyView(self._ready_list.stocks)

    def purge(self) -> int:
        """Do `clear` for a client.  Raises PreconditionFailed while `ConversionHold` forbids it."""
        if self.pause is not None:
            self.pause.check_purge()
        self.deliver_ready()  # mutant: OR3
        return self.clear()

    def clear(self) -> int:
        """Drop every ready message, damaged or not, and those that wait to be; how many."""
        dropped = self._ready_list.clear()
        for run in self.delays.clear():
            dropped += len(run)
            if self.journal is not None:
                self.journal.settled(run)
        self.damage = None
        self._entrance.forget()
        release_publishers(self, dropped)
        return dropped

    def end(self) -> None:
        """Drop all messages of a queue that is deleted, and what leads back to it: no cycle is left
        to the collector."""
        self.clear()
        self.drop_references()

    def drop_references(self) -> None:
        """Drop what leads back to this engine, which is used no more; consumers hear nothing."""
        self._guards, self._length_limit, self.queue_expiry = (), None, None
        self._entrance = EnqueueFilter(self._host.duplicate_filter, None)
        self._turns = schedule_of(self.spec)
        self._overdue = ConsumerTimeouts(self._time, None)

    def drop_damaged(self) -> int:
        """Drop the damaged messages that are next, those that were written together; how many.

        `damage` is still set if what comes behind them is damaged as well, and, with 0, if it
        it is unknown where they end.
        """
        ready_list = self._ready_list
        dropped = ready_list.drop_damaged() if ready_list.damage is not None else 0
        if ready_list.damage is None and ready_list.count:
            ready_list.available(1)
        if ready_list.is_timed:
            self._touch(self)
        self.damage = ready_list.damage
        release_publishers(self, dropped)
        return dropped

    def shed(self) -> bool:
        """Memory is short: keep what is next.  False if more may go once the disk catches up."""
        return self._ready_list.shed()

    def attach(self, consumer: Consumer) -> None:
        """Let a consumer take part."""
        self.deliver_ready()  # mutant: OR1
        self.in_exclusive_use |= consumer.exclusive
        self._turns.add(consumer)
        is_lone = self.spec.queue_type is QueueType.MQTT_QOS0 and len(self._turns) == 1
        self._direct = consumer.direct if is_lone else None
        if self._ready_list.count:
            self._touch(self)

    def detach(self, consumer: Consumer) -> None:
        """Deliver nothing more to a consumer.  What it holds stays held."""
        self._turns.remove(consumer)
        self._direct = None
        self.in_exclusive_use &= not consumer.exclusive
        self._used()  # mutant: X6
        if self._ready_list.count and self._turns.any_awake:
            self._touch(self)

    def wake(self, consumer: Consumer) -> None:
        """A consumer may have room again, maybe the same as others of other queues: so this one is
        pumped behind those whose consumers were woken before."""
        if consumer.parked:
            self._turns.wake(consumer)
        if self._ready_list.count:
            self._host.turn.touch_queue_last(self)


class InitialReadyList(NamedTuple):
    """With what a queue begins."""

    ready_list: AnyReadyList
    journal: Journal | None
    levels_if_split: PriorityLevels | None
    """The ready lists to be made once a message comes whose priority is not that of most."""


def initial_ready_list(spec: QueueSpec, stores: QueueStores) -> InitialReadyList:
    """A queue pays for no ready list that it does not need."""
    journal, spill, requeued, _delays, delayed_list, delivery_counts = stores
    if delayed_list is not None:
        return InitialReadyList(delayed_list, journal, None)
    levels = levels_of(spec)
    if levels is None or spec.queue_type is QueueType.QUORUM:
        return InitialReadyList(
            ReadyList(journal, spill, requeued, delivery_counts=delivery_counts), journal, levels
        )
    by_level = journal.by_level if journal is not None else None
    return InitialReadyList(
        PriorityReadyList(levels, by_level, spill), cast("Journal | None", by_level), None
    )
