"""Leadership of a replicated queue by one member, from the first entry of its own term to its end.

    operations of clients --> the engine decides --> facts in an entry, effects in a buffer
                                                        |                     |
                                   once a turn: one entry is proposed         |
                                                        |                     |
                                      committed and applied to the image --> effects leave

The engine is built from the image and is ahead of it by what is under way.  When leadership ends,
or an entry is not taken, all of this is thrown away: what is not applied may never be, and the
image is where the next leader begins, here or elsewhere.

Every operation of a client has a session and a number, one behind the other.  One that was done
before is answered again from what the image says of it; one that comes too soon is not done.

A `QueueReplica` is what the host of the Raft group calls: it applies what is committed, and leads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fluffle.broker.base.message import Origin
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.deduplication import DuplicateFilter
from fluffle.broker.queues.delayed_ready_list import DelayedReadyList
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue, QueueStores, QueueTurn
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import DeadLetterIds, Enqueue
from fluffle.broker.queues.queue_api import (
    FINAL,
    Consumer,
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
)
from fluffle.broker.queues.quorum.dead_letter_outbox import UNDER_WAY_MAX, DeadLetterOutbox
from fluffle.broker.queues.quorum.entry_codec import VERSION, encode_settings, settings_on_record
from fluffle.broker.queues.quorum.facts import (
    NO_HOLDER,
    Detached,
    GetterAttached,
    InvalidEntry,
    Key,
    OperationDoneWithAnswer,
    OperationsDone,
    OperationsRejected,
    Purged,
    SpecChanged,
)
from fluffle.broker.queues.quorum.holders import (
    DeliveryResender,
    Holders,
    HolderState,
    RemoteGetter,
    Terms,
    effects_of,
    facts_of,
    on_record_before,
    sent,
)
from fluffle.broker.queues.quorum.leader_services import LeaderServices, LeadershipReplica
from fluffle.broker.queues.quorum.log_journal import (
    ImageDueTimes,
    LogJournal,
    stored_of,
)
from fluffle.broker.queues.quorum.messages import (
    ActiveConsumerNotice,
    AnswerReply,
    CancelNotice,
    DoneReply,
    Effect,
    GetAnswer,
    RejectedReply,
    RevokeNotice,
)
from fluffle.broker.queues.quorum.proposals import (
    BufferedEffect,
    DeadLetterEffect,
    EffectBuffer,
    EntryBuilder,
    EntryVersions,
    PendingPurge,
    Proposals,
    QueueTime,
)
from fluffle.broker.queues.quorum.sessions import (
    DeadLetterDedup,
    LoggedDeduplicationKeys,
    QuorumSessionTable,
    SessionPublisher,
    enqueue_of,
)
from fluffle.broker.queues.quorum.settlement import Settlement
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.broker.queues.requeue import DelayedRetries, RequeueFifo
from fluffle.broker.queues.segment import TakenMessages
from fluffle.broker.queues.settings import DeduplicationCache, QueueSettings
from fluffle.protocol.headers import DeathReason
from fluffle.raft.config import NodeId
from fluffle.raft.log import DATA, Entry, SnapshotMeta
from fluffle.raft.ranges import Ranges

ENTRY_BYTES = 4 << 20
"""Most content bytes in one entry, unless one message is larger: links, logs and readers take an
entry at once, and a single live message keeps all of it on the disks."""

DUE_MAX = 2 * UNDER_WAY_MAX
"""So many that are due may wait for being handed on, and some more; the others stay where they
are, which costs less."""


class BufferedNotifications:
    """The `HolderNotifications` of a leadership: what its queue says goes on record first."""

    __slots__ = ("_builder", "_effects", "_leadership")

    def __init__(
        self, leadership: Leadership, builder: EntryBuilder, effects: EffectBuffer
    ) -> None:
        self._leadership: Leadership | None = leadership
        self._builder = builder
        self._effects = effects

    def end(self) -> None:
        """End with the leadership, which is not known here any more."""
        self._leadership = None

    def deliver(self, holder: Key, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("a delivery leaves through the effect buffer")

    def cancelled(self, holder: Key) -> None:
        """Do nothing: clients are notified when the queue is deleted."""

    def overdue(self, holder: Key, late: OverdueDeliveries) -> None:
        if self._leadership is not None:
            self._leadership.time_out(holder, late)

    def activity_changed(self, holder: Key, consumer: Consumer) -> None:
        """A consumer alone is served from now on, or is no more."""
        if self._leadership is None:
            return
        self._builder.name_active(holder if consumer.is_active else NO_HOLDER)  # mutant: R12a
        held = self._leadership.holders.get(holder)
        if held is not None:
            effect = Effect(held.session, ActiveConsumerNotice(holder, consumer.is_active))
            self._effects.keep_known(lambda: [effect])


class Leadership:
    """A leadership: the engine of the queue, its sessions, and entries that are under way.

    Called from one thread, and never more once it `is_over`.
    """

    __slots__ = (
        "_builder",
        "_contents",
        "_effects",
        "_host",
        "_image",
        "_log",
        "_logged_keys",
        "_notifications",
        "_proposals",
        "_publisher",
        "_replica",
        "_services",
        "_settlement",
        "_time",
        "_versions",
        "holders",
        "is_over",
        "on_record",
        "outbox",
        "queue",
        "sessions",
    )  # fmt: skip

    def __init__(
        self, image: QueueImage, services: LeaderServices, replica: LeadershipReplica, *, term: int
    ) -> None:
        """Everything up to the first entry of the own term is applied to the image.

        Raises `InvalidEntry` if the settings that are on record cannot be read.
        """
        spec = services.spec
        self._image = image
        self._services = services
        self._log = services.log
        self._replica = replica
        self._builder = builder = EntryBuilder(image.state)
        self._effects = EffectBuffer(self._builder)
        self._versions = EntryVersions(image, self._builder, services.log.readers)
        self._proposals = Proposals(self._versions, services, replica)
        self._contents = contents = LogJournal(
            image.state, self._builder, services.log, stored_of(spec)
        )
        self._time = time = QueueTime(image.state.queue_time_ms, services.clock, services.wake)
        self.is_over = False
        self.sessions = QuorumSessionTable(
            image.state, self._builder, self._effects, services.touch
        )
        """Open sessions, and how far the operations of each are done."""
        self._logged_keys = LoggedDeduplicationKeys(  # mutant: K1
            image.state.window, self._builder, self._versions, time, services.dropped_duplicates
        )
        self._host = LeaderEngineHost(self, time, self._logged_keys)
        delayed_list = delayed_list_of(spec, contents, self._host.other_counted_messages)
        self.queue = self._engine(spec, delayed_list)
        """The engine: to be looked at, and used through this alone."""
        delivery_counts = contents.delivery_counts if delayed_list is None else None
        arrivals = DeadLetterDedup(image.state, builder, self._versions, services.queues)
        self._publisher = SessionPublisher(
            enqueue_of(self.queue), self.sessions, self._effects, arrivals, delivery_counts,
            self._versions, services.log.may_grow,
        )  # fmt: skip
        self._notifications = BufferedNotifications(self, self._builder, self._effects)
        self.holders = Holders(self.queue, self._notifications, services.room)
        self.on_record = DeliveryResender(image.state, self.holders, contents, self._effects)
        self.outbox = DeadLetterOutbox(
            self.queue, self._contents, self._builder,
            dead_letter=services.dead_letter, source=(services.group, term), time=time,
            touch=services.touch, confirm_timeout_ms=services.dead_letter_confirm_timeout_ms,
        )  # fmt: skip
        """Dead letters that must arrive and are not confirmed."""
        self._settlement = Settlement(
            self.queue, self._contents, self._builder, self._effects,
            dead_letter=services.dead_letter, time=time, outbox=self.outbox,
        )  # fmt: skip
        self._take_up()

    def _engine(self, spec: QueueSpec, delayed_list: DelayedReadyList | None) -> Queue:
        """Make the queue that this leadership decides with."""
        stores = QueueStores(  # mutant: LE28
            self._contents,
            requeued=RequeueFifo(self._contents.fetch),
            delays=DelayedRetries(self._builder.mature),
            delayed_list=delayed_list,
            delivery_counts=self._contents.delivery_counts,
        )
        # mutant: R17b
        settings = settings_on_record(self._image.state.spec, spec)
        return Queue(spec, self._host, stores, settings=settings)

    def _touch(self) -> None:
        self._services.touch()

    def _on_queue_expired(self) -> None:
        """Announce the expiry, unless consumers have left in an entry that the next leader may
        lack."""
        self._effects.keep_known(self._queue_expired)  # mutant: UN1
        self._touch()

    def _queue_expired(self) -> Sequence[BufferedEffect]:
        if self.is_queue_expired:
            self._services.queue_expired()
        return ()

    @property
    def is_queue_expired(self) -> bool:
        """True if it leads a queue that was unused for its whole x-expires time and has no
        consumers by the log."""
        has_gone_by = not self.is_over and self.queue.is_queue_expired
        return has_gone_by and not self._image.state.consumers  # mutant: UN2

    def _take_up(self) -> None:
        """Take over queue, holders and settlements from the image."""
        self.queue.recover()
        for row in self._image.state.holders.values():
            held = self.holders.add(row.attached, is_detached=row.is_detached)
            for run, (counts, since_ms) in row.held:
                expiries = self._contents.expiries_of(run)
                # mutant: H1
                delivery_batch = on_record_before(held.holder, run, counts, since_ms, expiries)
                self.queue.account_delivery(delivery_batch)
                held.add(delivery_batch)  # mutant: LE25
        self._attach_all()
        self._settlement.take_up(self._image.state)
        self._touch()

    def _attach_all(self) -> None:
        """Consumers on record: the single active one before the others, for it stays so; then
        those of a higher priority, of whom the first may be next at once."""
        state = self._image.state
        line = [
            (each.key != state.sac_active, -each.priority, each.key)  # mutant: R12b
            for each in state.consumers
        ]
        for _is_other, _priority, key in sorted(line):
            held = self.holders.get(key)
            assert held is not None
            assert isinstance(held.holder, Consumer)
            self.queue.attach(held.holder)

    def end(self) -> None:
        """This node leads no more.  Nothing of it leaves after this, and its parts forget it: no
        cycle is left to the collector."""
        self.is_over = True
        self._host.end()
        self._notifications.end()
        self._proposals.end()
        self._effects.end()
        self.holders.end()
        self.outbox.end()
        self.queue.drop_references()

    # What clients ask for

    def publish(
        self, session: Key, first: int, origins: list[Origin], contents: list[bytes],
        *, persistent: bool = True, expiration_ms: Lifetimes = None,
        dead_letter_ids: DeadLetterIds | None = None, counts: Counts = NEW,
    ) -> None:  # fmt: skip
        """See `SessionPublisher`."""
        del persistent
        self._publisher.publish(
            session, first, origins, contents,
            expiration_ms=expiration_ms, dead_letter_ids=dead_letter_ids, counts=counts,
        )  # fmt: skip
        if self._builder.content_bytes >= ENTRY_BYTES:
            self._end_entry()

    def settle(
        self,
        session: Key,
        number: int,
        holder: Key,
        tokens: Sequence[tuple[int, range]],
        *,
        outcome: Outcome,
    ) -> None:
        """End hand-outs: each run with its ordinal.

        If some have ended before, what ends the others for good is on record as refused: the client
        that asked for it believes that all are settled.
        """
        if self.sessions.already_done(session, number, 1):
            return
        held, is_late = self.holders.get(holder), False
        for ordinal, run in tokens:
            parts, stale = held.take(run, ordinal) if held is not None else ([], [run])
            self._settlement.settle(holder, parts, outcome)
            is_late = is_late or bool(stale)
        if held is not None:
            self.holders.release(holder)
        if is_late and outcome in FINAL:  # mutant: R4c
            self._refused(session, number, 1)
        else:
            self._acted(session, number)

    def get(self, session: Key, number: int, channel: int, *, no_ack: bool) -> None:
        """Hand the next message to a channel, if there is one."""
        if self.sessions.already_done(session, number, 1):
            return
        self.queue.deliver_ready()
        key, held = self._getter(session, channel)
        holder = RemoteGetter(self.queue, no_ack=True) if no_ack else held.holder
        is_shared = not self.queue.spec.single_active_consumer
        delivery_batch = (
            self.queue.get(holder) if is_shared else None
        )  # as clients know, which ask nothing
        if delivery_batch is not None:
            self._handed_out([delivery_batch], lambda _handout: key)
        elif self.queue.damage is not None:
            return  # there is one: the next leader is asked again, and can read it
        self._acted(session, number)
        self._effects.keep(lambda: [self._got(session, number, key, delivery_batch)])  # mutant: R18

    def attach(self, session: Key, number: int, terms: Terms) -> None:
        """Let a consumer take part.  The answer is its key."""
        if self.sessions.already_done(session, number, 1):
            return
        for earlier, of_session in self.holders.earlier(terms):  # mutant: MQ41
            # The client has come over another connection: no cancel notice is due to the old one.
            self._keep(Effect(of_session, RevokeNotice(self.holders.tokens_of(earlier))))
            self._detach(earlier, Outcome.LOST)
        self.queue.deliver_ready()
        key = self._builder.take_key()
        fact = terms.attached(key, session)
        self._builder.add_fact(fact)
        held = self.holders.add(fact)
        assert isinstance(held.holder, Consumer)
        self._answered(session, number, key)
        self.queue.attach(held.holder)  # behind the answer: no client knows the key before

    def detach(
        self, session: Key, number: int, holder: Key, *, outcome: Outcome | None = None
    ) -> None:
        """Hand nothing more to a consumer or getter; what it holds stays held, or all comes back.

        `outcome` says how, if its channel has ended.
        """
        if self.sessions.already_done(session, number, 1):
            return
        if outcome is None:
            self.queue.deliver_ready()
        self._detach(holder, outcome)
        self._acted(session, number)

    def purge(self, session: Key, number: int) -> None:
        """Drop all that waits, and what has died and not arrived.  The answer is how many of the
        former there were, as with RabbitMQ."""
        if self.sessions.already_done(session, number, 1):
            return
        self.queue.deliver_ready()
        self._contents.gone = sweep = PendingPurge(self._contents.state)
        count, self._contents.gone = self.queue.purge(), None
        runs = sweep.next()
        if runs:  # mutant: R7
            self._builder.add_fact(Purged(runs))
        if sweep:
            self._end_entry()
            self._proposals.add_purge(sweep, self._builder.finish(self._time.now_ms()))
        self.outbox.clear()
        self._answered(session, number, count)

    # What the leader does by itself

    def drop_session(self, session: Key, outcome: Outcome, *, keeps_row: bool = False) -> None:
        """A session is over: all that its consumers hold comes back, and they go.

        If the session is kept, with what is known of its operations, its client is notified.
        """
        for key in list(self.holders.of_session(session)):
            if keeps_row:
                self._keep(Effect(session, RevokeNotice(self.holders.tokens_of(key))))
                self._keep(Effect(session, CancelNotice(key)))
            self._detach(key, outcome)
        if not keeps_row:
            self.sessions.close(session)

    def change_settings(self, revision: int | None, settings: QueueSettings) -> None:
        """The queue is to go by these, as definitions of this revision say.  None: those of a node
        that is alone, which are always the newest.

        Nothing is done if that is so, or if what is on record comes from newer definitions: this
        node will hear of them.
        """
        last = self._builder.last_revision
        if revision is None:
            revision = last + 1
        if revision > last and settings != self.queue.settings:  # mutant: R17a
            self._builder.add_fact(SpecChanged(revision, encode_settings(settings)))  # mutant: R17c
            self.queue.settings = settings
            self.outbox.settings_changed()
            self._touch()

    def deliver_again(self, holder: Key, tokens: Sequence[tuple[int, range]]) -> None:
        """Send again what a holder did not receive, as if for the first time."""
        self.on_record.deliver_again(holder, tokens)
        self._touch()

    # The parts of these

    def _keep(self, effect: Effect) -> None:
        self._effects.keep(lambda: [effect])

    def _refused(self, session: Key, first: int, count: int) -> None:
        self.sessions.advance(OperationsRejected(session, first, count))
        self._keep(Effect(session, RejectedReply(first, count)))

    def _acted(self, session: Key, number: int) -> None:
        self.sessions.advance(OperationsDone(session, number, 1))
        self._keep(Effect(session, DoneReply(number, 1)))

    def _answered(self, session: Key, number: int, answer: int) -> None:
        self.sessions.advance(OperationDoneWithAnswer(session, number, answer))
        self._keep(Effect(session, AnswerReply(number, answer)))

    # What becomes of consumers

    def time_out(self, key: Key, late: OverdueDeliveries) -> None:
        """Take messages back from a holder that had them for too long."""
        held = self.holders.get(key)
        assert held is not None, "it holds something"
        self._settlement.take_back(held, late)
        if isinstance(held.holder, Consumer):
            self._detach(key, None)
        self.holders.release(key)

    def _detach(self, key: Key, outcome: Outcome | None) -> None:
        """Nothing more for a holder, which may have been detached before and hold something."""
        held = self.holders.get(key)
        if held is None:
            return
        if not held.is_detached:
            if isinstance(held.holder, Consumer):
                self.queue.detach(held.holder)
            self._builder.add_fact(Detached(key))
            self.holders.detach(key)
        if outcome is not None:  # mutant: LE27
            self._settlement.settle(key, held.take_all(), outcome)
            self.holders.release(key)
        self._touch()

    def _getter(self, session: Key, channel: int) -> tuple[Key, HolderState]:
        """Holder for what this channel gets, made if it is new."""
        found = self.holders.getter(session, channel)
        if found is not None:
            return found
        key = self._builder.take_key()
        attached = GetterAttached(key, session, channel)
        self._builder.add_fact(attached)
        return key, self.holders.add(attached)

    def _handed_out(
        self, delivery_batches: list[DeliveryBatch], key_of: Callable[[DeliveryBatch], Key]
    ) -> None:
        """Messages are in hands: said, and remembered unless they are gone with that."""
        for fact in facts_of(delivery_batches, key_of):
            self._builder.add_fact(fact)
        for delivery_batch in delivery_batches:
            held = self.holders.get(key_of(delivery_batch))
            assert held is not None
            if not delivery_batch.holder.no_ack:
                held.add(delivery_batch)

    # Turns

    def pump(self) -> None:
        """Run once a turn: deliver, propose an entry with all that was decided, send what is known.

        There are more entries if it is much: none has many more bytes than `ENTRY_BYTES`.
        Deliveries leave through the effect buffer.
        """
        if self.is_over:
            return
        self._proposals.propose(self._on_outcome, self._end_unless)
        if self.is_over:  # the log has refused an entry at once
            return
        if self._proposals or not self._log.takes(self._builder.content_bytes):
            return
        self._versions.announce()
        if delivery_batches := self.queue.pump():
            self._handed(delivery_batches)
        if known := self._effects.take_known():
            self._release(known)
        if not self.outbox.is_idle:
            self.outbox.post()
        self._logged_keys.say()
        if self._builder:
            self._end_entry()
            self._proposals.propose(self._on_outcome, self._end_unless)

    def _end_entry(self) -> None:
        """Propose all that is decided as one entry; what is decided later is in the next."""
        content_bytes = self._builder.content_bytes
        self._logged_keys.say()
        self._proposals.add(self._builder.finish(self._time.now_ms()), content_bytes)
        self._effects.entry_ended()
        self._contents.commits.ticket += 1  # mutant: LE29 M28

    def _handed(self, delivery_batches: list[DeliveryBatch]) -> None:
        """Messages are in consumers' hands, and leave when that is applied."""
        self._handed_out(delivery_batches, self.holders.key_of)
        for delivery_batch in delivery_batches:
            key = self.holders.key_of(delivery_batch)
            held = self.holders.get(key)
            assert held is not None
            self._effects.keep(partial(self._leave, key, held, delivery_batch))

    def _leave(self, key: Key, held: HolderState, delivery_batch: DeliveryBatch) -> list[Effect]:
        """Effects that send a hand-out to its consumer."""
        self.holders.left(delivery_batch)
        if held.holder.no_ack:
            held.note(delivery_batch)
            return [Effect(held.session, sent(key, delivery_batch))]
        return effects_of(key, delivery_batch, self.holders)

    def _got(
        self, session: Key, number: int, key: Key, delivery_batch: DeliveryBatch | None
    ) -> Effect:
        """Answer of a get; without the message, if the channel went before it could leave."""
        delivers = []
        if delivery_batch is not None and self.holders.get(key) is not None:
            delivers = [] if delivery_batch.has_gone_back else [sent(key, delivery_batch)]
        is_crashed = not delivers and self.queue.damage is not None
        return Effect(session, GetAnswer(number, key, self.queue.ready_count, delivers, is_crashed))

    def _end_unless(self, is_applied: bool) -> None:  # noqa: FBT001 - see `Proposer`
        if not (is_applied or self.is_over):
            self.end()
            self._replica.ended()

    def _on_outcome(self, is_applied: bool) -> None:  # noqa: FBT001 - see `Proposer`
        self._end_unless(is_applied)
        if self.is_over:
            return
        self._contents.commits.durable += 1
        if self._logged_keys.may_be_said:
            self._touch()
        self._release(self._effects.entry_applied())

    def _release(self, kept: list[BufferedEffect]) -> None:
        """Effects leave for the clients, and the dead are handed on."""
        effects = [effect for effect in kept if not isinstance(effect, DeadLetterEffect)]
        if effects:
            self._services.release(effects)
        for each in kept:
            if isinstance(each, DeadLetterEffect):
                self._settlement.hand_on(each)
                self._touch()


class LeaderEngineHost:
    """The `QueueHost` of the engine that a leadership decides with."""

    __slots__ = ("_keys", "_leadership", "_services", "consumer_timeout_ms", "time")

    dead_letter = None
    """Always None: dead letters are handed on once their death is applied."""

    def __init__(
        self, leadership: Leadership, time: QueueTime, keys: LoggedDeduplicationKeys
    ) -> None:
        self._leadership: Leadership | None = leadership
        self._keys = keys
        self._services = leadership._services
        self.time = time
        self.consumer_timeout_ms = self._services.consumer_timeout_ms

    def end(self) -> None:
        """End with the leadership, which the engine does nothing for any more."""
        self._leadership = None

    @property
    def turn(self) -> QueueTurn:
        return self

    def touch_queue(self, _queue: object) -> None:
        self._services.touch()

    touch_queue_last = touch_queue
    """The same: a leadership has a turn of its own."""

    def other_counted_messages(self) -> int:
        return self._leadership.outbox.count if self._leadership is not None else 0

    def bury(self, reason: DeathReason, taken: TakenMessages) -> None:
        if self._leadership is not None:
            self._leadership._settlement.drop(reason, taken)

    def duplicate_filter(self, cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
        return self._keys.duplicate_filter(cache, enqueue)

    def deliver_early(self, delivery_batches: list[DeliveryBatch]) -> None:
        if self._leadership is not None:
            self._leadership._handed(delivery_batches)

    def on_crash(self, queue: Queue) -> None:
        """Step down: a leader that cannot read its log must not lead: see `LogJournal`."""

    def on_queue_expired(self, _queue: Queue) -> None:
        if self._leadership is not None:
            self._leadership._on_queue_expired()


def delayed_list_of(
    spec: QueueSpec, contents: LogJournal, due_count: Callable[[], int]
) -> DelayedReadyList | None:
    """Where messages of a delayed queue wait; `due_count`: how many have died and not arrived."""
    if not is_delayed_queue(spec.name):
        return None
    return DelayedReadyList(contents, ImageDueTimes(contents), due_count, DUE_MAX)


class QueueReplica:
    """Replica of one quorum queue, on one node."""

    __slots__ = (
        "_is_failing",
        "_is_led",
        "_reads",
        "_services",
        "_under_way",
        "image",
        "leader_epoch",
        "leadership",
    )  # fmt: skip

    def __init__(self, services: LeaderServices, *, reads: int = VERSION) -> None:
        """`services` are only used while this leads.  `reads`: the newest version of entries
        that it understands."""
        self._reads = reads
        self.image = QueueImage(reads=reads)
        self.leadership: Leadership | None = None
        """While this node leads.  Another object is another leadership, to be announced to
        clients as the one before was."""
        self.leader_epoch = 0, 0
        """Term and number in it, from 1, of the last leadership here."""
        self._services: LeaderServices | None = services
        self._is_led = False
        self._is_failing = False
        """True after a failure to lead: it leads again only after `lead_again`."""
        self._under_way = 0
        """How many proposals have no outcome yet."""

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        """Raises `InvalidEntry`, a ValueError."""
        self._end()
        reads = self._reads
        self.image = restored_image(state, reads) if meta.index else QueueImage(reads=reads)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply entries.  Raises `InvalidEntry`: the image is worth nothing then, and cannot
        lead."""
        for entry in entries:
            try:
                if entry.kind == DATA:
                    self.image.apply(entry.index, entry.payload)
                else:
                    self.image.pass_over(entry.index)
            except InvalidEntry as unfit:
                self._end()
                raise InvalidEntry(f"entry {entry.index}: {unfit}") from unfit

    def led(self, term: int) -> None:
        self._is_led = True
        if term != self.leader_epoch[0]:
            self.leader_epoch = term, 0
        if not self._is_failing:
            self._lead()

    def followed(self, term: int, leader: NodeId | None) -> None:
        self._end()  # mutant: M33 R2

    def fail(self) -> None:
        """Something is wrong with this leadership: it is thrown away.  The image is where the next
        begins, once `lead_again` is called."""
        self._is_failing = True
        if self.leadership is not None:
            self.leadership.end()
            self.ended()

    def lead_again(self) -> None:
        """If this node still leads, or once it does."""
        self._is_failing = False
        self._lead_anew()

    def end(self) -> None:
        """End the leadership, if there is one: this node has no such member any more, and no client
        is notified."""
        self._is_led = False
        if self.leadership is not None:
            self.leadership.end()
        self.leadership = self._services = None

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        live, state = take_snapshot(self.image)
        return live, iter((state,))

    def _lead(self) -> None:
        assert self._services is not None, "this has ended"
        term, before = self.leader_epoch
        self.leader_epoch = term, before + 1
        self.leadership = Leadership(self.image, self._services, self, term=term)

    def _lead_anew(self) -> None:
        """Once nothing is under way of the leadership before."""
        may_lead = self._is_led and not self._is_failing
        if may_lead and self.leadership is None and not self._under_way:
            self._lead()

    def _end(self) -> None:
        """This node does not lead."""
        self._is_led = False
        if self.leadership is not None:
            self.leadership.end()
            self.ended()

    # For the leadership

    def ended(self) -> None:
        """Handle the end of the leadership, which may have come by itself."""
        assert self._services is not None, "this has ended"
        self.leadership = None
        self._services.ended()

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        assert self._services is not None, "this has ended"
        self._under_way += 1

        def decided(is_applied: bool) -> None:  # noqa: FBT001 - see `Proposer`
            self._under_way -= 1
            on_outcome(is_applied)
            self._lead_anew()

        self._services.log.propose(payload, decided)
