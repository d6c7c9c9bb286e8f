"""Reference model of clients' promises, kept naively: message by message, from what they see and
the log.

G1 to G5, G6, G9 of what must hold whatever happens; see `check_rest` for what holds at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient
from fluffle.broker.queues.queue_api import FINAL, Outcome
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import decode, read_messages
from fluffle.broker.queues.quorum.state import QueueState
from fluffle.protocol.properties import priority_of

TAKEN = (f.RequeueReason.SUSPECTED, f.RequeueReason.TIMED_OUT)
"""How messages come back that nobody gives back."""


class Listener(Protocol):
    """Clients of one edge."""

    consumers: list[int]
    """Numbers of the attached consumers, kept by the model."""

    @property
    def session(self) -> SessionClient: ...

    def room_of(self, consumer: int) -> int | None:
        """How many messages it has room for; None if it wants none any more."""


@dataclass
class ReferenceModel:
    """Model that sees all clients and the log."""

    stored: dict[bytes, int] = field(default_factory=dict)
    """Contents in the log, with their sequence numbers."""
    handed: set[tuple[int, int]] = field(default_factory=set)
    """Sequence numbers and ordinals in committed hand-outs."""
    back: dict[tuple[int, int], f.RequeueReason] = field(default_factory=dict)
    """The same of what came back, and how."""
    gone: set[int] = field(default_factory=set)
    """Sequence numbers of what is settled, in the log."""
    pending: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """Publishes without an outcome, by node and number."""
    confirmed: set[bytes] = field(default_factory=set)
    refused: set[bytes] = field(default_factory=set)
    """Publishes of which a leader said that they were not taken."""
    undecided: set[bytes] = field(default_factory=set)
    """Publishes that had no outcome when the queue was deleted."""
    asked: dict[tuple[str, int], str] = field(default_factory=dict)
    """Attachments and gets without an outcome."""
    channels: dict[tuple[str, int], int] = field(default_factory=dict)
    acknowledges: dict[tuple[str, int], bool] = field(default_factory=dict)
    """Acknowledgement mode by consumer or get."""
    seen: set[int] = field(default_factory=set)
    """Sequence numbers that some client has seen."""
    tokens: set[tuple[int, int]] = field(default_factory=set)
    """Sequence numbers and ordinals that some client has seen."""
    acked: dict[tuple[int, int], str] = field(default_factory=dict)
    """Acknowledged messages, with the node."""
    unacked: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Node and ordinal of held messages, by sequence number."""
    last: dict[tuple[str, int], dict[int | None, int]] = field(default_factory=dict)
    """Last message delivered for the first time, by consumer and priority."""
    publishers: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    """Node and overall number of each publish, by content."""
    latest: dict[tuple[str, int | None], int] = field(default_factory=dict)
    """Last publish in the log, by node and priority."""
    copies: dict[bytes, set[int]] = field(default_factory=dict)
    """Contents that may be in the log more than once, with all their sequence numbers."""
    stands_for: Callable[[bytes], bool] = lambda _content: False
    """Function that says if another message with the same key is in the log, so that this one need
    not be."""
    vouched: set[bytes] = field(default_factory=set)
    """Contents that are confirmed for that."""
    unknown_below: int = 0
    """Messages below may have been seen before there was anything on record."""

    # The log

    def applied(self, payload: bytes) -> None:
        batch = decode(payload)
        if batch.enqueued is not None:
            first = batch.enqueued.first
            for place, content in enumerate(read_messages(payload).contents):
                if content in self.copies:
                    self.stored[content] = first + place
                    self.copies[content].add(first + place)
                    continue
                assert content not in self.stored, f"{content!r} is enqueued twice"
                assert content not in self.refused, f"{content!r} was refused"
                self.stored[content] = first + place
                node, count = self.publishers[content]
                source = node, priority_of(content)
                assert self.latest.get(source, 0) < count, "what one publishes stays in order"
                self.latest[source] = count
        for fact in batch.facts:
            if isinstance(fact, f.Delivered | f.DeliveredWithoutAck):
                self.handed.update((n, fact.ordinal) for run in fact.runs for n in run)
            elif isinstance(fact, f.Requeued):
                self.back.update({(n, fact.ordinal): fact.how for run in fact.runs for n in run})
            elif isinstance(fact, f.Settled | f.Dropped | f.DeadLettering):
                self.gone.update(n for run in fact.runs for n in run)

    # What clients do

    def published(
        self, node: str, first: int, contents: list[bytes], *, may_repeat: bool = False
    ) -> None:
        """`may_repeat`: nobody knows whether the same was published before."""
        if may_repeat:
            for content in contents:
                self.copies.setdefault(content, set())
        self.pending |= {(node, first + at): content for at, content in enumerate(contents)}
        for content in contents:
            self.publishers[content] = node, len(self.publishers) + 1

    def asks(self, node: str, number: int, what: str, channel: int, *, no_ack: bool) -> None:
        self.asked[node, number] = what
        self.channels[node, number] = channel
        self.acknowledges[node, number] = not no_ack

    def settled(self, node: str, tokens: list[m.Token], outcome: Outcome) -> None:
        for sequence, ordinal in numbers(tokens):
            if outcome in FINAL:
                self.acked[sequence, ordinal] = node
            self.let_go(node, sequence, ordinal)

    def ended(self, node: str, channel: int, tokens: Sequence[m.Token]) -> None:
        """A channel: nothing comes any more of what it asked for, and its hands are empty."""
        for sequence, ordinal in numbers(tokens):
            self.let_go(node, sequence, ordinal)
        for asked in [key for key in self.asked if key[0] == node]:
            if self.channels[asked] == channel:
                del self.asked[asked]

    def died(self, node: str) -> None:
        """With all that was promised to it alone."""
        self.unacked = {sequence: who for sequence, who in self.unacked.items() if who[0] != node}
        self.acked = {token: who for token, who in self.acked.items() if who != node}
        for table in (self.pending, self.asked, self.last):
            for key in [key for key in table if key[0] == node]:
                del table[key]

    def let_go(self, node: str, sequence: int, ordinal: int) -> None:
        if self.unacked.get(sequence) == (node, ordinal):
            del self.unacked[sequence]
        else:
            self.was_taken_away(sequence, ordinal)

    def was_taken_away(self, sequence: int, ordinal: int) -> None:
        """From an edge that could not be reached, and has not heard of it yet."""
        assert self.back.get((sequence, ordinal)) in TAKEN, "G2: two have it in hands"

    # What clients see

    def reported(
        self, node: str, client: Listener, events: list[Event], *, is_sure: bool = False
    ) -> None:
        """`is_sure`: what is refused is so on record."""
        for event in events:
            match event:
                case (
                    happened.PublishConfirmed()
                    | happened.PublishRejected()
                    | happened.PublishUndecided()
                ):
                    for number in range(event.first, event.first + event.count):
                        content = self.pending.pop((node, number))
                        self.has_outcome(content, event, is_sure=is_sure)
                case happened.Attached(number, _holder):
                    assert self.asked.pop((node, number)) == "attach"
                    client.consumers.append(number)
                case happened.MessagesDelivered(number, deliver):
                    assert number in client.consumers, "a consumer that is not there gets messages"
                    self.delivered(node, number, deliver)
                    self.has_room(client, number, deliver.holder)
                case m.GetAnswer(number, _holder, _ready, delivers):
                    assert self.asked.pop((node, number)) == "get"
                    for deliver in delivers:
                        self.delivered(node, number, deliver)
                case happened.AnswerLost(number):  # it may have been a purge
                    self.asked.pop((node, number), None)
                case happened.AttachRejected(number):
                    assert self.asked.pop((node, number)) == "attach"
                case happened.ConsumerCancelled(number) | happened.DeliveryTimedOut(number) if (
                    number
                ):
                    self.last.pop((node, number), None)
                    if self.asked.pop((node, number), None) is None:
                        client.consumers.remove(number)
                case m.RevokeNotice(tokens):
                    for sequence, ordinal in numbers(tokens):
                        self.let_go(node, sequence, ordinal)

    def has_outcome(self, content: bytes, event: happened.Event, *, is_sure: bool) -> None:
        """Publish one message."""
        match event:
            case happened.PublishConfirmed():
                if content not in self.stored:
                    assert self.stands_for(content), f"{content!r} is confirmed, and not stored"
                    self.vouched.add(content)
                self.confirmed.add(content)
            case happened.PublishRejected():
                is_stored = content in self.stored and content not in self.copies
                assert not (is_sure and is_stored), f"{content!r} is stored"
                self.refused.add(content)
            case _:
                self.undecided.add(content)

    def delivered(self, node: str, consumer: int, deliver: m.Deliver) -> None:
        tokens = [m.Token(deliver.holder, deliver.ordinal, run) for run in deliver.runs]
        for (sequence, ordinal), content in zip(numbers(tokens), deliver.contents, strict=True):
            token = sequence, ordinal
            assert token in self.handed, "G6: it left before its hand-out was committed"
            assert sequence in self.copies.get(content, {self.stored[content]})
            assert token not in self.tokens, f"{token} is delivered twice"
            self.tokens.add(token)
            is_back = ordinal > 0 or sequence < self.unknown_below
            assert deliver.redelivered == is_back, "G3: it came back as often as it is said"
            if self.back.get(token) in TAKEN:
                self.seen.add(sequence)
                continue  # it was on its way for too long, and others may have had it since
            assert deliver.redelivered or sequence not in self.seen, "G1: it was seen before"
            if sequence in self.unacked:
                self.was_taken_away(sequence, self.unacked[sequence][1])
            self.check_acked(sequence)
            if not deliver.redelivered:
                last, priority = self.last.setdefault((node, consumer), {}), priority_of(content)
                assert last.get(priority, 0) < sequence, "G9: first deliveries in order"
                last[priority] = sequence
            self.seen.add(sequence)
            if self.acknowledges[node, consumer]:
                self.unacked[sequence] = node, ordinal

    def has_room(self, client: Listener, consumer: int, key: int) -> None:
        """Check that a consumer holds no more than it has room for."""
        count = sum(len(run) for holder, _ordinal, run in client.session.unacked if holder == key)
        most = client.room_of(consumer)
        assert most is None or count <= most, "it gets more than it has room for"

    def check_acked(self, sequence: int) -> None:
        """G4: what was acknowledged comes never again, unless it had been taken away before."""
        for acked, ordinal in self.acked:
            if acked == sequence:
                how = self.back.get((acked, ordinal))
                assert how in TAKEN, f"G4: {sequence} was acknowledged, and is {how!r}"

    # At rest

    def all_known(self) -> None:
        """Nothing that was asked for waits any more."""
        assert not self.pending, "G5: every publish has an outcome"
        assert not self.asked, "every attachment and get has an answer"

    def at_rest(self) -> None:
        self.all_known()
        assert self.confirmed <= self.stored.keys() | self.vouched
        for sequence, ordinal in self.acked:
            is_back = (sequence, ordinal) in self.back
            assert is_back or sequence in self.gone, f"G4: {sequence} was acknowledged, and lives"


def check_rest(
    state: QueueState, edges: Sequence[SessionClient], lives: set[tuple[str, int, int]]
) -> None:
    """G13: nothing is pending, and hands are as the log says.

    Of a queue whose leader and edges have sent each other everything; `lives` are node and boot of
    all processes.
    """
    assert {session.id[:3] for session in state.sessions.values()} <= lives
    served = [key for edge in edges for key in edge.consumers]
    assert sorted(served) == [
        key
        for key, holder in state.holders.items()
        if type(holder.attached) is f.ConsumerAttached and not holder.is_detached
    ]
    held: dict[int, tuple[int, int]] = {}
    for edge in edges:
        assert list(edge.pending) == []
        for holder, ordinal, run in edge.unacked:
            held |= dict.fromkeys(run, (holder, ordinal))
    on_record = {
        sequence: (key, hold.counts.acquired)
        for key, holder in state.holders.items()
        for run, hold in holder.held
        for sequence in run
    }
    assert held == on_record


def numbers(tokens: Iterable[m.Token]) -> list[tuple[int, int]]:
    return [(sequence, token.ordinal) for token in tokens for sequence in token.run]
