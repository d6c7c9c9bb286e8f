"""A led queue with edges and clients: what they were promised, against what they get.

The log is a list; which proposals are committed, and when, is up to the test, and so is how many of
those under way a change of leader leaves behind.  Edges keep what they asked for until they hear of
its outcome, and ask again after a link was cut and of each next leader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.consumers import UNLIMITED
from fluffle.broker.queues.counts import Counts
from fluffle.broker.queues.dead import DeadMessages
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import FINAL, Handout, Outcome
from fluffle.broker.queues.replicated import effects as e
from fluffle.broker.queues.replicated.encoding import decode, read_messages
from fluffle.broker.queues.replicated.facts import Reason, SessionId
from fluffle.broker.queues.replicated.image import Image
from fluffle.broker.queues.replicated.leadership import Leadership
from fluffle.broker.queues.replicated.surroundings import Surroundings
from fluffle.broker.queues.replicated.terms import Terms
from fluffle.protocol.deaths import DeathReason
from tests.broker.queues.replicated.make import ORIGIN

GETTING_CHANNEL = 7
PLAIN = QueueSpec("q")


def full(max_length: int, overflow: str | None = "reject-publish") -> QueueSpec:
    """A quorum queue in which no more may wait."""
    return QueueSpec("q", queue_type=QueueType.QUORUM, max_length=max_length, overflow=overflow)


COMES_BACK = [Outcome.RETURNED, Outcome.REFUSED, Outcome.LOST]


@dataclass
class Operation:
    """Something an edge has asked for, and has not heard the outcome of."""

    ask: Callable[[Leadership, int, int], None]
    """(leadership, session, number)"""
    count: int = 1
    """How many numbers it takes."""
    contents: list[bytes] = field(default_factory=list)
    """That it publishes."""
    acknowledges: bool | None = None
    """Whether the consumer does that it attaches."""
    ends: set[tuple[int, int]] = field(default_factory=set)
    """Sequence numbers and ordinals of what it settles or gives back."""
    is_final: bool = False
    is_refusal: bool = False


@dataclass
class Hold:
    """A message in somebody's hands, as its edge knows it."""

    holder: int
    ordinal: int


@dataclass
class Edge:
    """A node with clients of the queue, and what they have been told."""

    id: SessionId
    next: int = 1
    pending: dict[int, Operation] = field(default_factory=dict)
    consumers: dict[int, bool] = field(default_factory=dict)
    """By key; whether it acknowledges."""
    getters: set[int] = field(default_factory=set)
    """Keys."""
    holds: dict[int, Hold] = field(default_factory=dict)
    """By sequence number."""
    is_cut: bool = False
    """Nothing comes through."""


class Bench:
    """Everything."""

    def __init__(self, spec: QueueSpec = PLAIN) -> None:
        self.spec = spec
        self.log: list[bytes] = []
        self.image = Image()
        self.follower = Image()
        self.proposals: deque[tuple[bytes, Callable[[bool], None]]] = deque()
        self.edges: list[Edge] = []
        self.is_touched = False
        self.boots = 0
        self.published = 0
        self.confirmed: set[bytes] = set()
        self.settled: set[int] = set()
        """Sequence numbers of what clients were told is settled, and of what needs no ack."""
        self.seen: dict[int, bytes] = {}
        """What clients have got, by sequence number."""
        self.rejected: set[bytes] = set()
        """What clients have not wanted back, and were told is done."""
        self.refused: set[bytes] = set()
        """Publishes that were not taken."""
        self.dead: list[tuple[DeathReason, bytes, Counts]] = []
        """What has been republished."""
        self.leaders = 0
        self.room = UNLIMITED
        self.is_open = True
        self.now_ms = 0
        self.lead()

    # Leading

    def lead(self) -> None:
        around = Surroundings(
            propose=lambda payload, on_fate: self.proposals.append((payload, on_fate)),
            read_entry=lambda index: self.log[index - 1],
            damaged=self.on_damage,
            takes=lambda _content_bytes: self.is_open,
            now_ms=lambda: self.now_ms,
            room=lambda _key: self.room,
            touch=self.touch,
            release=self.release,
            ended=self.on_ended,
            dead_letter=self.on_dead,
        )
        self.leaders += 1
        self.led = Leadership(self.image, self.spec, around)

    def on_damage(self, index: int) -> None:
        raise AssertionError(f"nothing is damaged, and entry {index} is said to be")

    def on_ended(self) -> None:
        raise AssertionError("every entry is taken")

    def on_dead(self, queue: QueueSpec, dead: DeadMessages) -> None:
        assert queue.dead_letter_exchange is not None
        assert dead.time_ms is not None
        assert dead.time_ms <= self.image.state.queue_time_ms
        live = {number for run, _pending in self.image.state.pending for number in run}
        for origin, content in zip(dead.origins, dead.contents, strict=True):
            assert origin is ORIGIN or origin.exchange == ORIGIN.exchange
            assert any(self.seen.get(number) == content for number in live), "it is not on record"
            self.dead.append((dead.reason, content, dead.counts))

    def touch(self, _led: Leadership) -> None:
        self.is_touched = True

    def turn(self) -> None:
        while self.is_touched:
            self.is_touched = False
            assert self.led.pump() == []

    def commit(self) -> None:
        """The first proposal that is under way."""
        if self.proposals:
            payload, on_fate = self.proposals.popleft()
            self.apply(payload)
            on_fate(True)

    def apply(self, payload: bytes) -> None:
        self.log.append(payload)
        for image in (self.image, self.follower):
            image.apply(len(self.log), payload)
        self.image.state.check()

    def settle_down(self) -> None:
        """Until nothing is under way."""
        self.turn()
        while self.proposals:
            self.commit()
            self.turn()

    def change_leader(self, kept: int, *, is_elsewhere: bool) -> None:
        """Of what is under way only so many entries are in the next leader's log."""
        self.led.end()
        for payload, _on_fate in list(self.proposals)[:kept]:
            self.apply(payload)
        fates = [on_fate for _payload, on_fate in self.proposals]
        self.proposals.clear()
        for on_fate in fates:
            on_fate(False)
        if is_elsewhere:
            self.image, self.follower = self.follower, Image.restored(self.image.snapshot()[1])
        self.lead()
        for edge in self.edges:
            self.resume(edge)

    def resume(self, edge: Edge) -> None:
        """The edge and its leader tell each other what they know."""
        edge.is_cut = False
        session = self.led.sessions.open(edge.id)
        ended = {token for operation in edge.pending.values() for token in operation.ends}
        for key, ordinal, run in self.led.holds(session):
            for sequence in run:
                if sequence not in edge.holds and (sequence, ordinal) not in ended:
                    self.led.deliver_again(key, [(ordinal, range(sequence, sequence + 1))])
        for number, operation in edge.pending.items():
            operation.ask(self.led, session, number)

    # Edges

    def open_edge(self) -> Edge:
        self.boots += 1
        edge = Edge(SessionId(f"node {len(self.edges)}", self.boots, 1, 1))
        self.edges.append(edge)
        self.led.sessions.open(edge.id)
        return edge

    def ask(self, edge: Edge, operation: Operation) -> None:
        number, edge.next = edge.next, edge.next + operation.count
        edge.pending[number] = operation
        if not edge.is_cut:
            operation.ask(self.led, self.led.sessions.open(edge.id), number)

    def publish(self, edge: Edge, count: int) -> None:
        numbers = range(self.published, self.published + count)
        self.published += count
        contents = [b"body %d" % number for number in numbers]
        origins = [ORIGIN] * count
        self.ask(
            edge,
            Operation(lambda led, s, n: led.publish(s, n, origins, contents), count, contents),
        )

    def attach(self, edge: Edge, *, prefetch: int = 0, no_ack: bool = False) -> None:
        terms = Terms(1, "tag", prefetch=prefetch, no_ack=no_ack)
        operation = Operation(lambda led, s, n: led.attach(s, n, terms))
        operation.acknowledges = not no_ack
        self.ask(edge, operation)

    def detach(self, edge: Edge, keys: list[int], outcome: Outcome | None) -> None:
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

    def get(self, edge: Edge, *, no_ack: bool) -> None:
        self.ask(edge, Operation(lambda led, s, n: led.get(s, n, GETTING_CHANNEL, no_ack=no_ack)))

    def purge(self, edge: Edge) -> None:
        self.ask(edge, Operation(lambda led, s, n: led.purge(s, n)))

    def end(self, edge: Edge, sequences: Iterable[int], outcome: Outcome) -> None:
        """Clients settle what they hold, or give it back."""
        tokens: dict[int, list[tuple[int, range]]] = {}
        for sequence in sequences:
            hold = edge.holds.pop(sequence)
            token = (hold.ordinal, range(sequence, sequence + 1))
            tokens.setdefault(hold.holder, []).append(token)
        for key, of_it in tokens.items():
            self.ask(edge, self._ending(key, of_it, outcome))

    def _ending(self, key: int, tokens: list[tuple[int, range]], outcome: Outcome) -> Operation:
        operation = Operation(lambda led, s, n: led.settle(s, n, key, tokens, outcome=outcome))
        operation.ends = {(run.start, ordinal) for ordinal, run in tokens}
        operation.is_final = outcome in FINAL
        operation.is_refusal = outcome is Outcome.REJECTED
        return operation

    def lose(self, edge: Edge) -> None:
        """Its process is known to be gone."""
        self.edges.remove(edge)
        self.led.drop_session(self.led.sessions.open(edge.id), Outcome.LOST)

    # What edges are told

    def release(self, effects: list[e.Effect]) -> None:
        for effect in effects:
            edge = self.edge_of(effect.session)
            if edge is not None and not edge.is_cut:
                self.TOLD[type(effect)](self, edge, effect)

    def edge_of(self, session: int) -> Edge | None:
        known = self.image.state.sessions.get(session)
        of_it = [edge for edge in self.edges if known is not None and edge.id == known.id]
        return of_it[0] if of_it else None

    def over(
        self, edge: Edge, session: int, first: int, count: int, *, is_taken: bool = True
    ) -> list[Operation]:
        """The operations of an edge that are over, by what it is told."""
        assert first + count <= self.image.state.sessions[session].next, "it is not applied"
        over = []
        for number, operation in list(edge.pending.items()):
            stop = number + operation.count
            told = range(max(number, first), min(stop, first + count))
            if told and operation.contents and is_taken:
                self.confirmed.update(operation.contents[n - number] for n in told)
            if told and told.stop == stop:
                over.append(edge.pending.pop(number))
        return over

    def on_done(self, edge: Edge, effect: e.Done) -> None:
        for operation in self.over(edge, effect.session, effect.first, effect.count):
            if operation.is_final:
                self.settled.update(sequence for sequence, _ordinal in operation.ends)
            if operation.is_refusal:
                self.rejected.update(self.seen[sequence] for sequence, _ordinal in operation.ends)

    def on_not_taken(self, edge: Edge, effect: e.NotTaken) -> None:
        assert self.spec.overflow == "reject-publish"
        told = range(effect.first, effect.first + effect.count)
        for number, operation in edge.pending.items():
            inside = (n - number for n in told if n - number in range(operation.count))
            self.refused.update(operation.contents[place] for place in inside)
        self.over(edge, effect.session, effect.first, effect.count, is_taken=False)

    def on_answer(self, edge: Edge, effect: e.Answer) -> None:
        for operation in self.over(edge, effect.session, effect.number, 1):
            if operation.acknowledges is not None:
                edge.consumers[effect.answer] = operation.acknowledges

    def on_delivery(self, edge: Edge, effect: e.Delivery) -> None:
        self.receive(edge, effect.holder, effect.handout)

    def on_got(self, edge: Edge, effect: e.Got) -> None:
        self.over(edge, effect.session, effect.number, 1)
        edge.getters.add(effect.holder)
        if effect.handout is not None:
            self.receive(edge, effect.holder, effect.handout)

    def never_told(self, _edge: Edge, effect: e.Effect) -> None:
        raise AssertionError(f"{effect}: edges keep to what they hold, and ask in order")

    TOLD: ClassVar[dict[type[e.Effect], Callable[[Bench, Edge, Any], None]]] = {
        e.Done: on_done,
        e.NotTaken: on_not_taken,
        e.Answer: on_answer,
        e.Delivery: on_delivery,
        e.Got: on_got,
        e.Stale: never_told,
        e.Expected: never_told,
    }

    def receive(self, edge: Edge, holder: int, handout: Handout) -> None:
        """A client gets messages: nobody else has them, and what is said of them is true."""
        limit = self.spec.delivery_limit
        assert limit is None or handout.counts.failed <= limit, "it has failed too often"
        for sequence, content in zip(handout.sequences, handout.contents, strict=True):
            if edge.holds.get(sequence) == Hold(holder, handout.counts.acquired):
                continue  # it was asked for again, twice
            assert sequence not in self.settled, "it was settled"
            assert handout.redelivered or sequence not in self.seen, "it was seen"
            assert all(sequence not in other.holds for other in self.edges), "two have it"
            assert self.seen.setdefault(sequence, content) == content
            if handout.holder.no_ack:
                self.settled.add(sequence)
            else:
                held = self.image.state.holders[holder].held
                assert sequence in held, "it left before it was applied"
                edge.holds[sequence] = Hold(holder, handout.counts.acquired)

    # What must hold

    def check(self) -> None:
        """At rest: the engine is where the image is, and edges hold what they are said to."""
        state, queue = self.image.state, self.led.queue
        assert self.image.digest() == self.follower.digest()
        assert queue.ready_count == state.waiting_count
        assert queue.in_flight == state.held_count
        assert list(waiting_again(queue)) == [(n, c) for run, c in state.returned for n in run]
        for edge in self.edges:
            assert edge.pending == {}
            session = self.led.sessions.open(edge.id)
            tokens = self.led.holds(session)
            assert {number for *_, run in tokens for number in run} == {*edge.holds}
        stored = [content for entry in self.log for content in contents_of(entry)]
        assert len(stored) == len(set(stored)), "something was enqueued twice"
        assert self.confirmed <= set(stored)
        assert self.refused.isdisjoint(stored)
        if self.spec.overflow == "reject-publish":
            assert state.entries.ready_count <= (self.spec.max_length or 0)
        elif self.spec.max_length is not None:
            assert state.waiting_count <= self.spec.max_length
        else:
            assert state.gone[Reason.MAXLEN] == 0
        self.check_dead()

    def check_dead(self) -> None:
        """What had to be republished has been, and nothing else; once, by each leader."""
        state, limit = self.image.state, self.spec.delivery_limit
        assert state.pending.count == 0
        kept = self.spec.dead_letter_exchange is not None
        by_reason = [state.gone[reason] for reason in (Reason.REJECTED, Reason.DELIVERY_LIMIT)]
        assert sum(by_reason) == 0 if kept else not self.dead
        rejected = {content for reason, content, _ in self.dead if reason is DeathReason.REJECTED}
        assert self.rejected <= rejected or not kept
        assert state.gone[Reason.DEAD_LETTERED] == len({content for _, content, _ in self.dead})
        for reason, content, counts in self.dead:
            assert self.dead.count((reason, content, counts)) <= self.leaders
            if reason is DeathReason.DELIVERY_LIMIT:
                assert limit is not None
                assert counts.failed == limit + 1
                assert counts.acquired >= counts.failed


def waiting_again(queue: Queue) -> Iterable[tuple[int, Counts]]:
    """What has come back, in the order in which the engine hands it out."""
    runs = queue._lane._returned.runs
    return ((number, run.counts) for run in runs for number in run.sequences[run.head :])


def contents_of(entry: bytes) -> list[bytes]:
    return read_messages(entry).contents if decode(entry).enqueued is not None else []


def step(bench: Bench, chance: Random) -> None:
    """Something happens."""
    if not bench.edges:
        bench.attach(bench.open_edge())
    edge = chance.choice(bench.edges)
    holding = list(edge.holds)
    some = chance.sample(holding, chance.randint(1, len(holding))) if holding else []
    consumers = list(edge.consumers)
    steps: list[tuple[float, Callable[[], Any]]] = [
        (6, lambda: bench.publish(edge, chance.choice([1, 1, 3, 20]))),
        (
            3,
            lambda: bench.attach(
                edge, prefetch=chance.choice([0, 1, 5]), no_ack=chance.random() < 0.2
            ),
        ),
        (6, lambda: bench.end(edge, sorted(some), Outcome.ACKED)),
        (2, lambda: bench.end(edge, some, Outcome.ACKED)),
        (1, lambda: bench.end(edge, some, Outcome.REJECTED)),
        (3, lambda: bench.end(edge, some, chance.choice(COMES_BACK))),
        (2, lambda: bench.get(edge, no_ack=chance.random() < 0.3)),
        (0.3, lambda: bench.purge(edge)),
        (1, lambda: bench.detach(edge, consumers[:1], None)),
        (1, lambda: bench.detach(edge, consumers[-1:], Outcome.LOST)),
        (0.5, lambda: bench.detach(edge, list(edge.getters), Outcome.LOST)),
        (1 if len(bench.edges) < 3 else 0, bench.open_edge),
        (0.3, lambda: bench.lose(edge)),
        (1, lambda: setattr(edge, "is_cut", True)),
        (1, lambda: bench.resume(edge)),
        (1, lambda: setattr(bench, "now_ms", bench.now_ms + chance.randint(-50, 100))),
        (8, bench.turn),
        (8, bench.commit),
        (2, lambda: change_leader(bench, chance)),
    ]
    weights = [weight for weight, _do in steps]
    chance.choices([do for _weight, do in steps], weights)[0]()


def change_leader(bench: Bench, chance: Random) -> None:
    kept = chance.randint(0, len(bench.proposals))
    bench.change_leader(kept, is_elsewhere=chance.random() < 0.5)


def rest(bench: Bench) -> None:
    """All links are whole, and nothing is under way."""
    for edge in bench.edges:
        if edge.is_cut:
            bench.resume(edge)
    bench.settle_down()
    bench.check()
