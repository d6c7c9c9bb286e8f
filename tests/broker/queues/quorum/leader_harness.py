"""A led queue with edges and clients: what they were promised, against what they get.

The log is a list; which proposals are committed, and when, is up to the test, and so is how many of
those under way a change of leader leaves behind.  Edges keep what they asked for until they hear of
its outcome, and ask again after a link was cut and of each next leader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, islice
from types import MappingProxyType
from typing import Any, ClassVar

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.queue_api import FINAL, UNLIMITED, Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import VERSION, decode
from fluffle.broker.queues.quorum.facts import (
    ConsumerAttached,
    RemovalReason,
    Requeued,
    SessionId,
)
from fluffle.broker.queues.quorum.holders import Terms
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.broker.queues.settings import Overflow, QueueSettings, settings_of
from fluffle.protocol.headers import DeathReason
from fluffle.protocol.wire import PlainValue
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.removal_checks import (
    body,
    check_counts,
    check_death,
    check_expired,
    check_limits,
    check_order,
    waiting_again,
)
from tests.broker.queues.quorum.sample_facts import ORIGIN, Count
from tests.broker.queues.quorum.session_clients import Hold, Operation, SessionClients, contents_of
from tests.broker.queues.quorum.single_active_checks import SingleActiveChecks, check_line
from tests.support.leader_services import FakeLeaderServices
from tests.support.queue_arguments import queue_arguments

GETTING_CHANNEL = 7
GROUP = 3
"""The queue's, and its term is how many have led it."""
PLAIN = QueueSpec("q")


def quorum(**said: PlainValue) -> QueueSpec:
    """A quorum queue with these arguments."""
    return QueueSpec("q", queue_type=QueueType.QUORUM, arguments=queue_arguments(**said))


def full(max_length: int, overflow: str | None = "reject-publish") -> QueueSpec:
    """A quorum queue in which no more may wait."""
    return quorum(max_length=max_length, overflow=overflow)


class BenchClock:
    """The time of a harness: its clock may be set, and what its machine counts goes on."""

    def __init__(self, harness: LeaderHarness) -> None:
        self.now_ms = Count(lambda: harness.now_ms)
        self._bench = harness

    def wall_ms(self) -> int:
        return self._bench.now_ms


class HarnessServices(FakeLeaderServices):
    """The node of a harness, for one leadership there."""

    def __init__(self, harness: LeaderHarness) -> None:
        super().__init__(harness.spec, harness.log, BenchClock(harness), GROUP)
        self.queues = harness
        self.harness = harness
        self.proposals = harness.proposals

    def takes(self, _content_bytes: int) -> bool:
        return self.harness.is_open

    def may_grow(self) -> bool:
        return self.harness.may_grow

    def room(self, _holder: int) -> int:
        return self.harness.room

    def touch(self) -> None:
        self.harness.touch()

    def wake(self, delay_ms: int) -> None:
        self.harness.wakes.append(delay_ms)

    def release(self, effects: list[m.Effect]) -> None:
        self.harness.release(effects)

    def damaged(self, index: int) -> None:
        self.harness.on_damage(index)

    def ended(self) -> None:
        self.harness.on_ended()

    def queue_expired(self) -> None:
        self.harness.on_queue_expired()

    def dead_letter(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        self.harness.on_dead(queue, settings, dead)

    def readers(self) -> Mapping[str, int]:
        return self.harness.readers


class LeaderHarness:
    """Leadership of a queue, its log and image, and the clients of its sessions."""

    readers: Mapping[str, int] = MappingProxyType({})
    """Versions that its members read."""

    def __init__(self, spec: QueueSpec = PLAIN, priorities: Sequence[int | None] = ()) -> None:
        """`priorities`: one of them is given to what is published, if there are any."""
        self.spec = spec
        self.said = [settings_of(spec)]
        """All settings by which it has ever gone; the last is what it is to go by."""
        self.priorities = priorities
        self.expirations: Sequence[Lifetimes] = (None,)
        """TTL of published messages, in turn."""
        if self.said[0].message_ttl_ms is not None:
            self.expirations = None, None, 30, 300, [300, 30, 30, 900]
        self.brings = [NEW]
        """With which counts operations come that publish, in turn."""
        self.brought: dict[bytes, Counts] = {}
        """Delivery counts that messages brought along."""
        self.came_back: set[int] = set()
        self.log: list[bytes] = []
        self.image = QueueImage()
        self.follower = QueueImage()
        self.proposals: deque[tuple[bytes, Callable[[bool], None]]] = deque()
        self.edges: list[SessionClients] = []
        self.is_touched = False
        self.boots = 0
        self.published = 0
        self.confirmed: set[bytes] = set()
        self.settled: set[int] = set()
        """Sequence numbers of what clients heard is settled, and of what needs no ack."""
        self.seen: dict[int, bytes] = {}
        """Contents delivered to clients, by sequence number."""
        self.rejected: set[bytes] = set()
        """Contents that clients rejected, as confirmed."""
        self.refused: set[bytes] = set()
        """Publishes that were not taken."""
        self.dead: list[tuple[DeathReason, bytes, Counts]] = []
        """Dead letters that were republished."""
        self.timed_out: list[m.TimeoutNotice] = []
        self.alone = SingleActiveChecks()
        self.leaders, self.room = 0, UNLIMITED
        self.is_open = True
        self.may_grow = True
        self.now_ms = 0
        self.wakes: list[int] = []
        """After how many milliseconds it wants to be pumped."""
        self.deleted: set[int] = set()
        """Queues that there are no more."""
        self.unknown: set[int] = set()
        """Groups of queues that it has not heard of yet."""
        self.queue_expired = 0
        """How often it was said that nobody uses the queue."""
        self.lead()

    @property
    def settings(self) -> QueueSettings:
        return self.said[-1]

    def change_settings(self, settings: QueueSettings) -> None:
        """Apply new settings, as policies do."""
        self.said.append(settings)
        self.led.change_settings(len(self.said), settings)

    def is_there(self, group: int) -> bool:
        return group not in self.deleted | self.unknown

    def is_gone(self, group: int) -> bool:
        return group in self.deleted

    def bring(self, *counts: Counts) -> None:
        """Messages that come from now on have died elsewhere, but for some."""
        self.readers = {"a": VERSION}
        self.settle_down()
        self.brings = [NEW, *counts]

    # Leading

    def lead(self) -> None:
        self.leaders += 1
        services = HarnessServices(self)
        self.led = Leadership(self.image, services, services, term=self.leaders)
        if len(self.said) > 1:
            self.led.change_settings(len(self.said), self.settings)

    def on_damage(self, index: int) -> None:
        raise AssertionError(f"nothing is damaged, and entry {index} is said to be")

    def on_ended(self) -> None:
        raise AssertionError("every entry is taken")

    def on_queue_expired(self) -> None:
        assert self.led.is_queue_expired
        self.queue_expired += 1

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        if dead.unwanted:
            return
        assert (queue, settings.dead_letter_exchange is None) == (self.spec.name, False)
        assert dead.time_ms is not None
        assert dead.time_ms <= self.image.state.queue_time_ms
        live = {number for run, _pending in self.image.state.pending for number in run}
        for origin, content in zip(dead.origins, dead.contents, strict=True):
            assert origin is ORIGIN or origin.exchange == ORIGIN.exchange
            is_seen = any(self.seen.get(number, content) == content for number in live)
            assert is_seen or dead.reason is DeathReason.EXPIRED, "it is not on record"
            self.dead.append((dead.reason, content, dead.counts))

    def touch(self) -> None:
        self.is_touched = True

    def turn(self) -> None:
        while self.is_touched:
            self.is_touched = False
            self.led.pump()

    def commit(self) -> None:
        """The first proposal that is under way."""
        if self.proposals:
            payload, on_outcome = self.proposals.popleft()
            self.apply(payload)
            on_outcome(True)

    def apply(self, payload: bytes) -> None:
        self.log.append(payload)
        if self.spec.single_active_consumer:
            self.alone.apply(decode(payload))
        for fact in decode(payload).facts:
            if isinstance(fact, Requeued):
                self.came_back.update(number for run in fact.runs for number in run)
        check_expired(payload, self.image.state.entries)
        check_order(payload, self.image.state.entries)
        for image in (self.image, self.follower):
            image.apply(len(self.log), payload)
        self.image.state.check()

    def outlive(self) -> None:
        """Let so much time pass that every message with an expiry has expired."""
        self.now_ms += 100_000
        self.is_touched = True
        self.settle_down()
        if all(settings.message_ttl_ms is not None for settings in self.said):
            assert self.image.state.waiting_count == 0

    def settle_down(self) -> None:
        """Until nothing is under way."""
        self.turn()
        while self.proposals:
            self.commit()
            self.turn()

    def change_leader(self, kept: int, *, is_elsewhere: bool) -> None:
        """Change the leader; only `kept` of the entries under way reach its log."""
        self.led.end()
        for payload, _on_outcome in list(self.proposals)[:kept]:
            self.apply(payload)
        outcomes = [on_outcome for _payload, on_outcome in self.proposals]
        self.proposals.clear()
        for on_outcome in outcomes:
            on_outcome(False)
        if is_elsewhere:
            self.image, self.follower = self.follower, restored_image(take_snapshot(self.image)[1])
        self.lead()
        for edge in self.edges:
            self.resume(edge)

    def resume(self, edge: SessionClients) -> None:
        """The edge and its leader tell each other what they know."""
        edge.is_cut = False
        session = self.led.sessions.open(edge.id)
        ended = {token for operation in edge.pending.values() for token in operation.ends}
        on_record = {
            sequence: Hold(key, ordinal)
            for key, ordinal, run in self.led.on_record.holds(session)
            for sequence in run
        }
        edge.holds = {n: hold for n, hold in edge.holds.items() if on_record.get(n) == hold}
        for sequence, hold in on_record.items():
            if sequence not in edge.holds and (sequence, hold.ordinal) not in ended:
                self.led.deliver_again(hold.holder, [(hold.ordinal, range(sequence, sequence + 1))])
        for number, operation in edge.pending.items():
            operation.ask(self.led, session, number)

    # Edges

    def open_edge(self) -> SessionClients:
        self.boots += 1
        edge = SessionClients(SessionId(f"node {len(self.edges)}", self.boots, 1, 1))
        self.edges.append(edge)
        self.led.sessions.open(edge.id)
        return edge

    def ask(self, edge: SessionClients, operation: Operation) -> None:
        number, edge.next = edge.next, edge.next + operation.count
        edge.pending[number] = operation
        if not edge.is_cut:
            operation.ask(self.led, self.led.sessions.open(edge.id), number)

    def publish(
        self,
        edge: SessionClients,
        count: int,
        expiration_ms: Lifetimes = None,
        priority: int | None = None,
    ) -> None:
        numbers = range(self.published, self.published + count)
        self.published += count
        contents = [body(number, priority) for number in numbers]
        counts = self.brings[len(self.brought) % len(self.brings)]
        self.brought |= dict.fromkeys(contents, counts)
        origins = [ORIGIN] * count
        if isinstance(expiration_ms, list):  # these in turn
            expiration_ms = list(islice(cycle(expiration_ms), count))
        self.ask(
            edge,
            Operation(
                lambda led, s, n: led.publish(
                    s, n, origins, contents, expiration_ms=expiration_ms, counts=counts
                ),
                count,
                contents,
            ),
        )

    def attach(
        self,
        edge: SessionClients,
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        priority: int = 0,
        arguments: bytes = b"",
    ) -> None:
        terms = Terms(1, "tag", prefetch, priority, no_ack, arguments=arguments)
        operation = Operation(lambda led, s, n: led.attach(s, n, terms))
        operation.acknowledges = not no_ack
        self.ask(edge, operation)

    def detach(self, edge: SessionClients, keys: list[int], outcome: Outcome | None) -> None:
        for key in keys:
            edge.consumers.pop(key, None)
            edge.getters.discard(key)
            held = {s: hold.ordinal for s, hold in edge.holds.items() if hold.holder == key}
            operation = Operation(self._detaching(key, outcome))
            if outcome is not None:
                edge.holds = {s: hold for s, hold in edge.holds.items() if s not in held}
                operation.ends = set(held.items())
            self.ask(edge, operation)

    @staticmethod
    def _detaching(key: int, outcome: Outcome | None) -> Callable[[Leadership, int, int], None]:
        return lambda led, s, n: led.detach(s, n, key, outcome=outcome)

    def get(self, edge: SessionClients, *, no_ack: bool) -> None:
        edge.gets[edge.next] = not no_ack
        self.ask(edge, Operation(lambda led, s, n: led.get(s, n, GETTING_CHANNEL, no_ack=no_ack)))

    def purge(self, edge: SessionClients) -> None:
        self.ask(edge, Operation(lambda led, s, n: led.purge(s, n)))

    def end(self, edge: SessionClients, sequences: Iterable[int], outcome: Outcome) -> None:
        """Clients settle what they hold, or give it back."""
        tokens: dict[int, list[tuple[int, range]]] = {}
        for sequence in sequences:
            hold = edge.holds.pop(sequence)
            token = (hold.ordinal, range(sequence, sequence + 1))
            tokens.setdefault(hold.holder, []).append(token)
        for key, of_it in tokens.items():
            self.ask(edge, self._settlement(key, of_it, outcome))

    def _settlement(self, key: int, tokens: list[tuple[int, range]], outcome: Outcome) -> Operation:
        operation = Operation(lambda led, s, n: led.settle(s, n, key, tokens, outcome=outcome))
        operation.ends = {(run.start, ordinal) for ordinal, run in tokens}
        operation.is_final = outcome in FINAL
        operation.is_refusal = outcome is Outcome.REJECTED
        return operation

    def lose(self, edge: SessionClients) -> None:
        """Lose a client node whose process is known to be gone."""
        self.edges.remove(edge)
        self.led.drop_session(self.led.sessions.open(edge.id), Outcome.LOST)

    # What edges hear

    def release(self, effects: list[m.Effect]) -> None:
        for session, message in effects:
            edge = self.edge_of(session)
            # That is heard later: until then its clients do nothing.
            is_heard = isinstance(message, m.TimeoutNotice)
            if edge is not None and (is_heard or not edge.is_cut):
                self.REPORTED[type(message)](self, edge, session, message)

    def edge_of(self, session: int) -> SessionClients | None:
        known = self.image.state.sessions.get(session)
        of_it = [edge for edge in self.edges if known is not None and edge.id == known.id]
        return of_it[0] if of_it else None

    def over(
        self,
        edge: SessionClients,
        session: int,
        first: int,
        count: int,
        *,
        is_accepted: bool = True,
    ) -> list[Operation]:
        """The operations of an edge that are over, by what it hears."""
        assert first + count <= self.image.state.sessions[session].next, "it is not applied"
        over = []
        for number, operation in list(edge.pending.items()):
            stop = number + operation.count
            confirmed = range(max(number, first), min(stop, first + count))
            if confirmed and operation.contents and is_accepted:
                self.confirmed.update(operation.contents[n - number] for n in confirmed)
            if confirmed and confirmed.stop == stop:
                over.append(edge.pending.pop(number))
        return over

    def on_done(self, edge: SessionClients, session: int, message: m.DoneReply) -> None:
        for operation in self.over(edge, session, message.first, message.count):
            if operation.is_final:
                self.settled.update(sequence for sequence, _ordinal in operation.ends)
            if operation.is_refusal:
                self.rejected.update(self.seen[sequence] for sequence, _ordinal in operation.ends)

    def on_rejected(self, edge: SessionClients, session: int, message: m.RejectedReply) -> None:
        """Publishes, or a settlement that came too late to count."""
        confirmed = range(message.first, message.first + message.count)
        for number, operation in edge.pending.items():
            inside = (n - number for n in confirmed if n - number in range(operation.count))
            refused = {operation.contents[place] for place in inside if operation.contents}
            may_be = any(each.overflow is Overflow.REJECT_PUBLISH for each in self.said)
            assert may_be or not refused
            self.refused |= refused
        self.over(edge, session, message.first, message.count, is_accepted=False)

    def on_answer(self, edge: SessionClients, session: int, message: m.AnswerReply) -> None:
        for operation in self.over(edge, session, message.number, 1):
            if operation.acknowledges is not None:
                edge.consumers[message.answer] = operation.acknowledges
                edge.modes[message.answer] = operation.acknowledges

    def on_delivery(self, edge: SessionClients, _session: int, message: m.Deliver) -> None:
        acknowledges = edge.modes.get(message.holder)
        if acknowledges is None:  # a getter, or a consumer of which it has not heard yet
            attached = self.image.state.holders[message.holder].attached
            acknowledges = not (isinstance(attached, ConsumerAttached) and attached.no_ack)
        self.receive(edge, message, acknowledges=acknowledges)

    def on_got(self, edge: SessionClients, session: int, message: m.GetAnswer) -> None:
        self.over(edge, session, message.number, 1)
        edge.getters.add(message.holder)
        for deliver in message.delivers:
            self.receive(edge, deliver, acknowledges=edge.gets[message.number])

    def on_activity(
        self, edge: SessionClients, _session: int, message: m.ActiveConsumerNotice
    ) -> None:
        assert self.spec.single_active_consumer
        assert message.holder < self.image.state.next_key, "it is not applied"

    def on_timed_out(self, edge: SessionClients, session: int, message: m.TimeoutNotice) -> None:
        """Handle a delivery timeout: later settlements of these messages are ignored."""
        assert any(each.consumer_timeout_ms is not None for each in self.said)
        assert message.held_ms >= message.timeout_ms
        self.timed_out.append(message)
        edge.consumers.pop(message.holder, None)
        self.on_revoked(edge, session, m.RevokeNotice(message.tokens))

    def on_revoked(self, edge: SessionClients, _session: int, message: m.RevokeNotice) -> None:
        for holder, ordinal, run in message.tokens:
            edge.consumers.pop(holder, None)
            for sequence in run:
                if edge.holds.get(sequence) == Hold(holder, ordinal):
                    del edge.holds[sequence]

    def never_reported(
        self, _edge: SessionClients, _session: int, message: m.ExpectedReply
    ) -> None:
        raise AssertionError(f"{message}: edges keep to what they hold, and ask in order")

    REPORTED: ClassVar[
        dict[type[m.FromLeader], Callable[[LeaderHarness, SessionClients, int, Any], None]]
    ] = {
        m.DoneReply: on_done,
        m.RejectedReply: on_rejected,
        m.AnswerReply: on_answer,
        m.Deliver: on_delivery,
        m.GetAnswer: on_got,
        m.ActiveConsumerNotice: on_activity,
        m.TimeoutNotice: on_timed_out,
        m.RevokeNotice: on_revoked,
        m.ExpectedReply: never_reported,
    }

    def receive(
        self, edge: SessionClients, deliver: m.Deliver, *, acknowledges: bool | None
    ) -> None:
        """A client gets messages: nobody else has them, and what is said of them is true."""
        limits = [each.delivery_limit for each in self.said if each.delivery_limit is not None]
        has_none, counts = len(limits) < len(self.said), Counts(deliver.ordinal, deliver.failed)
        sequences = [sequence for run in deliver.runs for sequence in run]
        assert deliver.redelivered == (counts.acquired > 0)
        for sequence, content in zip(sequences, deliver.contents, strict=True):
            brought = self.brought.get(content, NEW)
            assert has_none or counts.failed <= max(brought.failed, *limits), "it failed too often"
            check_counts(counts, brought, came_back=sequence in self.came_back)
            if edge.holds.get(sequence) == Hold(deliver.holder, deliver.ordinal):
                continue  # it was asked for again, twice
            assert sequence not in self.settled, "it was settled"
            assert deliver.redelivered or sequence not in self.seen, "it was seen"
            assert all(sequence not in other.holds for other in self.edges), "two have it"
            assert self.seen.setdefault(sequence, content) == content
            if not acknowledges:
                self.settled.add(sequence)
            else:
                held = self.image.state.holders[deliver.holder].held
                assert sequence in held, "it left before it was applied"
                edge.holds[sequence] = Hold(deliver.holder, deliver.ordinal)

    # What must hold

    def check(self) -> None:
        """At rest: the engine is where the image is, and edges hold what they are said to."""
        state, queue = self.image.state, self.led.queue
        assert image_digest(self.image) == image_digest(self.follower)
        assert queue.ready_count == state.waiting_count
        assert queue.in_flight == state.held_count
        assert queue.ready_count + queue.delays.count == state.waiting_count + state.delayed.count
        assert state.delayed.count == 0 or min(at for _, (at, _) in state.delayed) > self.now_ms
        assert self.led._contents.delivery_counts.runs == state.delivery_counts.runs
        assert list(waiting_again(queue)) == [(n, c) for run, c in state.requeued for n in run]
        for edge in self.edges:
            assert edge.pending == {}
            session = self.led.sessions.open(edge.id)
            tokens = self.led.on_record.holds(session)
            assert {number for *_, run in tokens for number in run} == {*edge.holds}
        stored = [content for entry in self.log for content in contents_of(entry)]
        assert len(stored) == len(set(stored)), "something was enqueued twice"
        assert self.confirmed <= set(stored)
        assert self.refused.isdisjoint(stored)
        check_limits(state, self.said)
        self.check_dead()
        check_line(state, is_alone=self.spec.single_active_consumer)

    def check_dead(self) -> None:
        """Check that each leader republished once what had to be, and nothing else."""
        state = self.image.state
        assert state.pending.count == 0
        kept = {each.dead_letter_exchange is not None for each in self.said}
        if kept == {False}:
            assert not self.dead
        elif kept == {True}:
            assert (
                state.gone[RemovalReason.REJECTED] == state.gone[RemovalReason.DELIVERY_LIMIT] == 0
            )
            dead = {content for reason, content, _ in self.dead if reason is DeathReason.REJECTED}
            assert self.rejected <= dead
            gone = state.gone[RemovalReason.DEAD_LETTERED]
            assert gone == len({content for _, content, _ in self.dead})
        for death in self.dead:
            assert self.dead.count(death) <= self.leaders
            check_death(*death, self.said, self.brought)
