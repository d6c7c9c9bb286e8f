"""Classic queues of a cluster: each lives on the node on which it was declared, its home.

There it is the engine's queue, which clients of that node use, too, and a `ClassicQueueHost` serves
it to the sessions of other nodes.  Everywhere else it is a `SessionQueue`.

    operations of sessions --> the queue: done at once --> effects leave
                                 |                            ^
                                 +-- recorded, not durable ---+    what vouches for that waits

Nothing of this outlives the process, and the home leads for as long as it lives: whatever a session
was sent once is repeated until it has arrived, so an operation that was done is never answered
again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from fluffle.broker.base.clock import CallLater
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions.session_server import SessionServer
from fluffle.broker.cluster.queues.node_sessions import NodeSessions
from fluffle.broker.cluster.queues.pending_replies import ClassicErrorTexts, Deletions
from fluffle.broker.cluster.queues.placement import ID_BITS
from fluffle.broker.cluster.queues.ports import KnownLeader, LeaderCounts, named
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.durability.local_journal import ClusterJournals
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery_counts import Counts as Brought
from fluffle.broker.queues.engine import Queue, QueueExpiry
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_in
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.publish_target import (
    DeadLetterIds,
    EnqueueResult,
    PartialResult,
    PublishReceipt,
    accepted_spans,
)
from fluffle.broker.queues.queue_api import (
    BY_CLIENT,
    FINAL,
    Consumer,
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    QueueHandle,
)
from fluffle.broker.queues.queue_view import KeptDead, ReadyView
from fluffle.broker.queues.quorum.facts import (
    GetterAttached,
    Key,
    SessionId,
)
from fluffle.broker.queues.quorum.holders import (
    HolderNotifications,
    Holders,
    HolderState,
    RemoteGetter,
    Terms,
)
from fluffle.broker.queues.quorum.messages import (
    IN_EXCLUSIVE_USE,
    ActiveConsumerNotice,
    AnswerReply,
    CancelNotice,
    DoneReply,
    Effect,
    ExpectedReply,
    GetAnswer,
    Leader,
    RejectedReply,
    RevokeNotice,
    TimeoutNotice,
    Token,
    deliver_of,
)
from fluffle.broker.queues.quorum.state import QueueState
from fluffle.broker.runtime.commits import Commits, CommitWaiter
from fluffle.broker.vhosts.queue_changes import delete_unused
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.config import NodeId

NOTHING_ON_RECORD = QueueState()
"""Empty state of sessions: a classic queue has nothing on record."""


class SessionsHost(Protocol):
    """Sessions of a classic queue, as its leader uses them."""

    def room(self, holder: Key) -> int:
        """How many messages the client node of a consumer takes now; it wakes the consumer after a
        0."""

    def release(self, effects: list[Effect]) -> None:
        """Take effects for client nodes."""

    def unused(self, queue: Queue) -> None:
        """The last consumer has gone, and it was one of a client node."""


class CommitLog(Protocol):
    """The commits of this node's store."""

    def wait(self, waiter: CommitWaiter, ticket: int) -> None:
        """Call `waiter` back once the commit `ticket`, which is yet to be done, has been."""


class DeletedQueueHost:
    """The `SessionsHost` of a queue that is deleted: no client node hears of it any more."""

    def room(self, _holder: Key) -> int:
        return 0

    def release(self, _effects: list[Effect]) -> None:
        """Drop the effects."""

    def unused(self, _queue: Queue) -> None:
        """Do nothing: the queue is deleted already."""


class DeletedQueueNotifications:
    """The `HolderNotifications` of a queue that is deleted, which keep nothing of it alive."""

    def deliver(self, _holder: Key, _delivery_batch: DeliveryBatch) -> None:
        """Nothing is delivered any more."""

    def cancelled(self, _holder: Key) -> None:
        """Do nothing: consumers were cancelled when the queue was deleted."""

    def overdue(self, _holder: Key, _late: OverdueDeliveries) -> None:
        """Nothing is held any more."""

    def activity_changed(self, _holder: Key, _consumer: Consumer) -> None:
        """Do nothing: there is no consumer."""


class UndurableOperation(NamedTuple):
    """Effect of something done to the queue that is not on disk yet."""

    ticket: int
    effect: Effect
    """Says that it is."""


class ClassicSessionTable:
    """The sessions of one queue, and which operation is next in each."""

    __slots__ = ("_ids", "_last_key", "_next")

    def __init__(self) -> None:
        self._ids: dict[SessionId, Key] = {}
        self._next: dict[Key, int] = {}
        self._last_key: Key = 0

    def take_key(self) -> Key:
        """Unused key."""
        self._last_key += 1
        return self._last_key

    def key_of(self, session_id: SessionId) -> Key | None:
        return self._ids.get(session_id)

    def ids(self) -> list[SessionId]:
        return list(self._ids)

    def open(self, session_id: SessionId) -> Key:
        key = self._ids[session_id] = self.take_key()
        self._next[key] = 1
        return key

    def close(self, session: Key) -> None:
        """Nothing more will come of it."""
        del self._next[session]
        self._ids = {session_id: key for session_id, key in self._ids.items() if key != session}

    def acknowledge(self, session: Key, below: int) -> None:
        """Nothing is kept of what is done."""

    def expected(self, session: Key) -> int:
        """The number of the next operation."""
        return self._next[session]

    def advance(self, session: Key, count: int) -> None:
        self._next[session] += count


class ClassicQueueLeader:
    """A `LedQueue`, whose term is the boot of this process."""

    __slots__ = (
        "_commits", "_host", "_notifications", "_undurable", "holders", "queue", "sessions",
    )  # fmt: skip

    def __init__(self, queue: Queue, host: SessionsHost, commits: CommitLog) -> None:
        """`commits`: those of the queue's journal."""
        self._host = host
        self._commits = commits
        self._undurable: deque[UndurableOperation] = deque()
        """Rising tickets."""
        self.queue = queue
        self.sessions = ClassicSessionTable()
        self._notifications: HolderNotifications = ClassicNotifications(self)
        self.holders = Holders(queue, self._notifications, host.room)

    # What client nodes ask for

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
        counts: Brought,
    ) -> None:
        del dead_letter_ids, counts  # nothing of this is on record
        known = self._known(session, first, len(contents))
        if known == len(contents):
            return
        origins, contents = origins[known:], contents[known:]
        expiration_ms = lifetimes_in(expiration_ms, slice(known, None))  # mutant: BA29
        first, count = first + known, len(contents)
        content_bytes = sum(map(len, contents))
        standstill = self.queue.pause.standstill if self.queue.pause is not None else None
        admission = (standstill or self.queue).enqueue(  # mutant: BA30
            origins, contents, content_bytes, persistent=persistent, expiration_ms=expiration_ms
        )
        self.sessions.advance(session, count)  # mutant: BA34
        if isinstance(admission, PublishReceipt):
            assert standstill is not None, "the queue answers at once"
            standstill.is_elsewhere(admission)
            admission.then(partial(self._admitted, session, first))
            return
        results = accepted_spans(admission, count)
        taken = (
            admission.accepted if isinstance(admission, PartialResult) else admission
        )  # mutant: BA31
        say = self._say_later if taken is EnqueueResult.RECORDED else self.say  # mutant: HO1
        for start, stop, is_accepted in results:
            if is_accepted:
                say(Effect(session, DoneReply(first + start, stop - start)))  # mutant: BA32
            else:
                rejected = RejectedReply(first + start, stop - start)
                self.say(Effect(session, rejected))  # mutant: BA33

    def _admitted(
        self, session: Key, first: int, start: int, stop: int, *, is_accepted: bool
    ) -> None:
        """Report the outcome of messages that were held back."""
        reply = DoneReply if is_accepted else RejectedReply  # mutant: BA35
        self.say(Effect(session, reply(first + start, stop - start)))  # mutant: BA36

    def settle(
        self,
        session: Key,
        number: int,
        holder: Key,
        tokens: Sequence[tuple[int, range]],
        *,
        outcome: Outcome,
    ) -> None:
        if self._known(session, number, 1):
            return
        if outcome in BY_CLIENT:
            self.queue.deliver_ready()
        held, is_recorded, is_late = self.holders.get(holder), False, False
        for ordinal, run in tokens:
            parts, stale = held.take(run, ordinal) if held is not None else ([], [run])
            for part in parts:  # mutant: HO4
                self.queue.settle(part.delivery_batch, part.start, part.stop, outcome)
                is_recorded = is_recorded or part.delivery_batch.is_recorded
            is_late = is_late or bool(stale)
        if held is not None:
            self.holders.release(holder)
        self.sessions.advance(session, 1)
        if is_late and outcome in FINAL:
            self.say(Effect(session, RejectedReply(number, 1)))
        else:
            (self._say_later if is_recorded else self.say)(Effect(session, DoneReply(number, 1)))

    def get(self, session: Key, number: int, channel: int, *, no_ack: bool) -> None:
        if self._known(session, number, 1):
            return
        key, held = self._getter(session, channel)
        holder = RemoteGetter(self.queue, no_ack=True) if no_ack else held.holder
        delivery_batch = self.queue.get(holder)
        if delivery_batch is not None and not no_ack:  # mutant: HO5
            held.add(delivery_batch)
        self.sessions.advance(session, 1)
        delivers = [deliver_of(key, delivery_batch)] if delivery_batch is not None else []
        is_crashed = not delivers and self.queue.damage is not None
        answer = GetAnswer(number, key, self.queue.ready_count, delivers, is_crashed)
        self.say(Effect(session, answer))

    def attach(self, session: Key, number: int, terms: Terms) -> None:
        if self._known(session, number, 1):
            return
        queue = self.queue
        self.sessions.advance(session, 1)
        if queue.in_exclusive_use or (terms.is_exclusive and queue.consumer_count):
            self.say(Effect(session, AnswerReply(number, IN_EXCLUSIVE_USE)))
            return
        key = self.sessions.take_key()
        attached = terms.attached(key, session)
        held = self.holders.add(attached)
        assert isinstance(held.holder, Consumer)
        self.say(Effect(session, AnswerReply(number, key)))
        queue.attach(held.holder)
        if queue.damage is not None:  # like those that were there when it was found
            queue.detach(held.holder)
            self._notifications.cancelled(key)

    def detach(
        self, session: Key, number: int, holder: Key, *, outcome: Outcome | None = None
    ) -> None:
        if self._known(session, number, 1):
            return
        if outcome is None:
            self.queue.deliver_ready()
        self.leave(holder, outcome)
        self._acted(session, number)

    def purge(self, session: Key, number: int) -> None:
        if self._known(session, number, 1):
            return
        self.sessions.advance(session, 1)
        try:
            answer = Effect(session, AnswerReply(number, self.queue.purge()))
        except PreconditionFailed:
            self.say(Effect(session, RejectedReply(number, 1)))
            return
        (self.say if self.queue.journal is None else self._say_later)(answer)

    # What becomes of sessions

    def drop_session(self, session: Key, outcome: Outcome, *, keeps_row: bool = False) -> None:
        for key in list(self.holders.of_session(session)):
            if keeps_row:  # mutant: HO7
                self.say(Effect(session, RevokeNotice(self.holders.tokens_of(key))))
                self.say(Effect(session, CancelNotice(key)))
            self.leave(key, outcome)  # mutant: HO6
        if not keeps_row:
            self.sessions.close(session)

    def deliver_again(self, holder: Key, tokens: Sequence[tuple[int, range]]) -> None:
        raise AssertionError("nothing is on record")

    # What becomes of these

    def on_durable(self, ticket: int) -> None:
        """Release the effects that are safe with the commit of this ticket."""
        durable: list[Effect] = []
        while self._undurable and self._undurable[0].ticket <= ticket:  # mutant: HO2
            durable.append(self._undurable.popleft().effect)
        if durable:
            self._host.release(durable)

    def end(self) -> None:
        """The queue is gone: client nodes hear nothing more, and nothing here keeps it alive."""
        self._undurable.clear()
        self._host = host = DeletedQueueHost()
        self._notifications = gone = DeletedQueueNotifications()
        self.holders = Holders(self.queue, gone, host.room)

    # The parts of these

    def _known(self, session: Key, first: int, count: int) -> int:
        """How many of some operations, from the first one on, are not to be done any more."""
        expected = self.sessions.expected(session)
        if first > expected:
            self.say(Effect(session, ExpectedReply(expected)))
            return count
        return min(expected - first, count)  # mutant: HO3

    def say(self, effect: Effect) -> None:
        self._host.release([effect])

    def _acted(self, session: Key, number: int) -> None:
        self.sessions.advance(session, 1)
        self.say(Effect(session, DoneReply(number, 1)))

    def _say_later(self, effect: Effect) -> None:
        """Once the commit that collects has been done."""
        assert self.queue.journal is not None
        ticket = self.queue.journal.commits.ticket
        self._undurable.append(UndurableOperation(ticket, effect))
        self._commits.wait(self, ticket)

    def leave(self, key: Key, outcome: Outcome | None) -> None:
        """Nothing more for a holder, which may have been detached before and hold something."""
        held = self.holders.get(key)
        if held is None:
            return
        is_served = not held.is_detached and isinstance(held.holder, Consumer)
        if is_served:
            assert isinstance(held.holder, Consumer)
            self.queue.detach(held.holder)  # mutant: HO9
        if not held.is_detached:
            self.holders.detach(key)
        if outcome is not None:
            for part in held.take_all():
                self.queue.settle(part.delivery_batch, part.start, part.stop, outcome)
            self.holders.release(key)
        if is_served and not self.queue.consumer_count:
            self._host.unused(self.queue)

    def _getter(self, session: Key, channel: int) -> tuple[Key, HolderState]:
        """Holder for what this channel gets, made if it is new."""
        found = self.holders.getter(session, channel)
        if found is not None:
            return found
        attached = GetterAttached(self.sessions.take_key(), session, channel)
        return attached.key, self.holders.add(attached)


class ClassicNotifications:
    """The `HolderNotifications` of a classic queue: client nodes hear of all at once."""

    __slots__ = ("_leader",)

    def __init__(self, leader: ClassicQueueLeader) -> None:
        self._leader = leader

    def deliver(self, holder: Key, delivery_batch: DeliveryBatch) -> None:
        """A consumer of a client node is handed messages."""
        self._leader.holders.left(delivery_batch)
        held = self._leader.holders.get(holder)
        assert held is not None, "a detached consumer gets nothing"
        if held.holder.no_ack:
            held.note(delivery_batch)
        else:
            held.add(delivery_batch)  # mutant: HO8
        self._leader.say(Effect(held.session, deliver_of(holder, delivery_batch)))

    def cancelled(self, holder: Key) -> None:
        """A consumer is not served any more: what it holds stays in its client's hands."""
        held = self._leader.holders.get(holder)
        if held is not None and not held.is_detached:
            self._leader.holders.detach(holder)
            self._leader.say(Effect(held.session, CancelNotice(holder)))

    def overdue(self, holder: Key, late: OverdueDeliveries) -> None:
        """Handle a holder on a client node that has held messages for too long."""
        held = self._leader.holders.get(holder)
        assert held is not None, "it holds something"
        tokens = []
        for part in held.take_of(late.delivery_batches):
            tokens.append(Token(holder, part.delivery_batch.counts.acquired, part.run))
            self._leader.queue.settle(part.delivery_batch, part.start, part.stop, Outcome.TIMED_OUT)
        notice = TimeoutNotice(holder, tokens, late.held_ms, late.timeout_ms)
        self._leader.say(Effect(held.session, notice))
        if isinstance(held.holder, Consumer):
            self._leader.leave(holder, None)
        self._leader.holders.release(holder)

    def activity_changed(self, holder: Key, consumer: Consumer) -> None:
        held = self._leader.holders.get(holder)
        if held is not None and not held.is_detached:
            self._leader.say(Effect(held.session, ActiveConsumerNotice(holder, consumer.is_active)))


class ClassicQueueHost:
    """A `HostedQueue` whose home is this node, with the sessions to it."""

    __slots__ = ("_on_output", "_on_unused", "_vhost", "home", "known", "sessions")

    def __init__(
        self,
        queue: Queue,
        own: Leader,
        *,
        vhost: str,
        commits: CommitLog,
        on_unused: Callable[[Queue], None],
        on_output: Callable[[], None],
    ) -> None:
        """`on_output`: client nodes are to hear something before this turn ends."""
        self._on_output = on_output
        self._on_unused = on_unused
        self._vhost = vhost
        self.known = KnownLeader(own.term, own.leadership, own.node)
        self.home = ClassicQueueLeader(queue, self, commits)
        self.sessions = SessionServer(
            queue.definition.id, own, NOTHING_ON_RECORD, self.home, now_ms=0
        )

    @property
    def named(self) -> dict[str, object]:
        definition = self.home.queue.definition
        return named(definition.id, self._vhost, definition)

    @property
    def counts(self) -> LeaderCounts:
        return LeaderCounts(*self.home.queue.queue_counts)

    @property
    def ready_view(self) -> ReadyView:
        return self.home.queue.ready_view

    @property
    def kept_dead(self) -> KeptDead:
        """Classic queues keep none."""
        return KeptDead()

    def confirm(self, done: Callable[[bool], None]) -> None:
        """Confirm at once: no other node takes over."""
        done(True)  # noqa: FBT003 - it is the answer

    @property
    def queue_expiry(self) -> QueueExpiry | None:
        return self.home.queue.queue_expiry

    def pump(self) -> None:
        """The queue has its own place in each turn."""

    def fail(self) -> None:
        """Go on with what there is: a classic queue has nothing to begin anew with."""

    def lead_again(self) -> None:
        """Do nothing: a classic queue has not stopped leading."""

    def end(self) -> None:
        """The queue is deleted."""
        self.home.end()

    # As a `SessionsHost`

    def room(self, holder: Key) -> int:
        return self.sessions.room(holder)

    def release(self, effects: list[Effect]) -> None:
        self.sessions.release(effects)
        self._on_output()

    def unused(self, queue: Queue) -> None:
        self._on_unused(queue)


class ClassicQueuesEnvironment(NamedTuple):
    """The parts of a node that its classic queues are made with."""

    router: NodeSessions
    call_later: CallLater
    commits: Commits
    metadata: Metadata
    vhosts: Mapping[str, VirtualHost]
    deletions: Deletions


class ClassicQueues:
    """The `QueueFactory` of the classic queues of a node of a cluster."""

    def __init__(
        self,
        node: NodeId,
        boot: int,
        local: LocalQueues,
        journals: ClusterJournals,
        *,
        draw_bits: Callable[[int], int],
    ) -> None:
        """`boot`: which life of the node this is; `local` makes those that live here, `journals`
        are theirs."""
        self._node = node
        self._boot = boot
        self._local = local
        self._journals = journals
        self._draw_bits = draw_bits
        self.environment: ClassicQueuesEnvironment
        """Set before anything is made."""

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        del vhost
        boot = 0 if spec.durable and owner is None else self._boot
        queue = self._draw_bits(ID_BITS)
        return QueueDefinition(spec, owner=owner, id=queue, home=self._node, boot=boot)

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        environment = self.environment
        if definition.home != self._node:
            error_texts = ClassicErrorTexts(definition.home, is_durable=definition.spec.durable)
            return SessionQueue(
                definition,
                vhost,
                environment.router,
                environment.call_later,
                error_texts,
                deletions=environment.deletions,
            )
        assert environment.router.boot.counter, "it is a term, and frames of term 0 are questions"
        queue = self._made_here(definition, vhost)
        leaders, id_ = environment.router.leaders, definition.id
        host = ClassicQueueHost(
            queue,
            Leader(self._node, environment.router.boot, environment.router.boot.counter),
            vhost=vhost,
            commits=environment.commits,
            on_unused=partial(self._delete_unused, vhost),
            on_output=partial(leaders.touch_output, id_),
        )
        leaders.queues[id_] = host
        leaders.begin_sessions(id_, host.sessions)
        return queue

    def _delete_unused(self, vhost: str, queue: Queue) -> None:
        """If it is to go with its last consumer."""
        if queue.spec.auto_delete:
            decide = partial(delete_unused, self.environment.vhosts[vhost], queue)
            self.environment.metadata.ensure(decide)

    def _made_here(self, definition: QueueDefinition, vhost: str) -> Queue:
        """Queue of this node, new or from an earlier boot: the log of definitions is read again at
        each start."""
        if not definition.spec.durable:
            return self._local.make(definition, vhost)
        journal, was_there = self._journals.open(definition.id)
        queue = self._local.make_with(journal, definition, vhost)
        if was_there:
            queue.recover()
        return queue

    def reopen(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self.make(definition, vhost)

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        """Give a queue its new definition: it stays on its node."""
        assert isinstance(queue, Queue | SessionQueue), "it was made here"
        if isinstance(queue, Queue):
            queue.redefine(definition)
        else:
            queue.definition = definition

    def renew_settings(self, queue: QueueHandle, vhost: str) -> None:
        if isinstance(queue, Queue):
            self._local.renew_settings(queue, vhost)

    def create_successor(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._local.create_successor(definition, vhost)

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        self._local.promote(successor, definition, vhost)

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        if isinstance(queue, SessionQueue):
            queue.pass_on(successor)
        self.end(queue)

    def end(self, queue: QueueHandle) -> None:
        if isinstance(queue, SessionQueue):
            queue.end()
            return
        host = self.environment.router.leaders.queues.pop(queue.definition.id, None)
        self._local.end(queue)
        if isinstance(host, ClassicQueueHost):
            host.end()
        self._journals.forget(queue.definition.id)
