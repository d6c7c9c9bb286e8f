"""Short ways to write facts, changes and proposals."""

from __future__ import annotations

from itertools import count

from fluffle.broker.metadata.change import Change, CountLimit, Fact, Key, Kind, Name
from fluffle.broker.metadata.state import MetadataState, Proposal

VHOST = Fact(Kind.VHOST, ("v",), "vhost")


def exchange(name: str = "x", value: object = "exchange") -> Fact:
    return Fact(Kind.EXCHANGE, ("v", name), value)


def queue(name: str = "q", value: object = "queue") -> Fact:
    return Fact(Kind.QUEUE, ("v", name), value)


def binding(source: str = "x", queue: str = "q", key: str = "k") -> Fact:
    return Fact(Kind.BINDING, ("v", source, "queue", queue, key, b""), "binding")


class Node:
    """Decides on a state, and proposes."""

    def __init__(self, state: MetadataState, name: str = "a", boot: int = 1) -> None:
        self.state = state
        self.name = name
        self.boot = boot
        self.known_below = 1
        self._numbers = count(1)

    def propose(
        self,
        *puts: Fact,
        removes: tuple[Fact, ...] = (),
        rests_on: tuple[Name, ...] = (),
        room: tuple[CountLimit, ...] = (),
    ) -> Proposal:
        change = Change(removes, puts, rests_on, room)
        return Proposal(
            self.name,
            self.boot,
            next(self._numbers),
            self.known_below,
            change,
            self.state.revisions(rests_on),
        )


def names(*facts: Fact) -> tuple[Name, ...]:
    return tuple(fact.name for fact in facts)


def name(kind: Kind, *key: str) -> Name:
    parts: Key = key
    return kind, parts
