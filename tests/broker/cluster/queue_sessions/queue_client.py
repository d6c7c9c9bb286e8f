"""All clients of one queue at one edge: what they ask for, have in hands and hear.

The model hears of everything that they do and see.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.replies import apply_frame
from fluffle.broker.cluster.queue_sessions.session_client import (
    AttachTerms,
    SessionClient,
    SessionRequests,
)
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from tests.broker.cluster.queue_sessions.reference_model import ReferenceModel, numbers
from tests.broker.queues.quorum.sample_facts import ORIGIN


@dataclass
class UniqueNames:
    """Counters from which all clients of a queue draw names and contents."""

    published: int = 0
    channels: int = 0

    def contents(self, count: int, size: int = 0) -> list[bytes]:
        """Messages as no others are, of so many bytes at least."""
        first, self.published = self.published, self.published + count
        return [(b"body %d" % number).ljust(size) for number in range(first, self.published)]

    def channel(self) -> int:
        self.channels += 1
        return self.channels


@dataclass
class QueueClient:
    """Clients of one boot of a client node."""

    node: str
    session: SessionClient
    model: ReferenceModel
    names: UniqueNames
    consumers: list[int] = field(default_factory=list)
    getting: dict[int, int] = field(default_factory=dict)
    """Channels by their places: those of a place are named anew when they end."""
    heard: list[Event] = field(default_factory=list)
    """Events received."""

    @property
    def asking(self) -> SessionRequests:
        return SessionRequests(self.session)

    def room_of(self, consumer: int) -> int | None:
        return self.session.credits.get(consumer)

    def hear(self, frame: m.LeaderFrame) -> list[Event]:
        events = apply_frame(self.session, frame)
        is_lost = any(isinstance(message, m.SessionLost) for message in frame.messages)
        self.reported(events, is_sure=not is_lost)
        return events

    def reported(self, events: list[Event], *, is_sure: bool = False) -> None:
        self.heard += events
        self.model.reported(self.node, self, events, is_sure=is_sure)

    def publish(self, count: int, size: int = 0, counts: Counts = NEW) -> int:
        contents = self.names.contents(count, size)
        first = self.asking.publish([ORIGIN] * count, contents, counts=counts)
        self.model.published(self.node, first, contents)
        return first

    def attach(self, *, credit: int, no_ack: bool, prefetch: int, priority: int = 0) -> int:
        channel = self.names.channel()
        terms = AttachTerms("tag", prefetch, priority, no_ack=no_ack)
        number = self.asking.attach(channel, terms, credit)
        self.model.asks(self.node, number, "attach", channel, no_ack=no_ack)
        return number

    def get(self, channel: int, *, no_ack: bool) -> int:
        number = self.asking.get(channel, no_ack=no_ack)
        self.model.asks(self.node, number, "get", channel, no_ack=no_ack)
        return number

    def get_once(self, place: int, *, no_ack: bool) -> int | None:
        """Unless the channel at this place waits for one."""
        name = self.getting.get(place)
        if name is None:
            name = self.getting[place] = self.names.channel()
        waits = (asked for asked in self.model.asked if asked[0] == self.node)
        if any(self.model.channels[asked] == name for asked in waits):
            return None
        return self.get(name, no_ack=no_ack)

    def give_up(self) -> None:
        """Give up all waiting gets."""
        waits = [asked for asked, what in self.model.asked.items() if what == "get"]
        for node, number in waits:
            if node == self.node:
                del self.model.asked[node, number]
                self.asking.give_up(number)

    def unanswered(self) -> list[int]:
        """Publishes, attachments and gets."""
        waiting = (*self.model.pending, *self.model.asked)
        return [number for node, number in waiting if node == self.node]

    def channels(self) -> list[int]:
        """Open channels."""
        model, node = self.model, self.node
        asked = {model.channels[key] for key in model.asked if key[0] == node}
        attached = {model.channels[node, number] for number in self.consumers}
        return sorted(asked | attached | {*self.getting.values()})

    def end_channel(self, channel: int) -> None:
        before = set(numbers(self.session.unacked))
        end_channel(self.session, channel)
        left = before - set(numbers(self.session.unacked))
        channels = self.model.channels
        self.consumers = [n for n in self.consumers if channels[self.node, n] != channel]
        self.getting = {at: name for at, name in self.getting.items() if name != channel}
        self.model.ended(self.node, channel, [m.Token(0, o, range(n, n + 1)) for n, o in left])

    def detach(self, consumer: int) -> None:
        self.asking.detach(consumer)

    def purge(self) -> None:
        self.asking.purge()

    def settle(self, tokens: list[m.Token], outcome: Outcome) -> None:
        held = [token for token in tokens if self.session.unacked.found(token)]
        self.model.settled(self.node, held, outcome)
        self.asking.settle(tokens, outcome)

    def in_hands(self) -> list[m.Token]:
        return list(self.session.unacked)


def end_channel(edge: SessionClient, channel: int) -> None:
    """End a channel: all that it holds is requeued, and its pending requests are given up.

    No channel of this node has its number again.
    """
    for key, attach in list(edge.consumers.items()):
        if attach.channel == channel:
            edge.leave(key, Outcome.LOST)
    for operation in list(edge.pending):
        if isinstance(operation, m.Attach) and operation.channel == channel:
            edge.unwanted = {**edge.unwanted, operation.number: None}
        elif isinstance(operation, m.Get) and operation.channel == channel:
            SessionRequests(edge).give_up(operation.number)
    if channel in edge.getters:
        edge.leave(edge.getters.pop(channel), Outcome.LOST)
