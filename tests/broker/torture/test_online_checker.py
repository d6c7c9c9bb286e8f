"""Any history that clients can write: the checker finds what its rules find, said naively."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from fluffle.broker.torture.history import (
    Acked,
    Asked,
    Closing,
    Confirmed,
    Connected,
    Ended,
    Event,
    Joined,
    Joining,
    MessageId,
    Published,
    PutBack,
    Received,
    Requeued,
    RunEnded,
    TurnedAway,
    Vouched,
)
from fluffle.broker.torture.online_checker import OnlineChecker
from tests.broker.torture.reference_checker import breaches

ACTS = ("publish", "confirm", "receive", "receive", "receive", "ack", "requeue", "ask", "vouch",
        "ask", "vouch", "close", "end", "run ends", "put back", "turn away", "connect",
        "join", "be joined")  # fmt: skip
OF_NODES: dict[str, Callable[[str], Event]] = {
    "connect": partial(Connected, "p"),
    "join": Joining,
    "be joined": Joined,
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(ACTS), st.sampled_from("ab"), st.integers(0, 2), st.booleans()
    ),
    max_size=60,
)  # fmt: skip


@dataclass
class Clients:
    """Two consumers and a publisher that do what can be done, whatever they hear."""

    history: list[Event] = field(default_factory=list)
    lives: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 1})
    unacked: dict[str, set[MessageId]] = field(default_factory=lambda: {"a": set(), "b": set()})
    asking: set[str] = field(default_factory=set)
    closing: set[str] = field(default_factory=set)
    unconfirmed: list[MessageId] = field(default_factory=list)
    count: int = 0
    old: set[str] = field(default_factory=set)
    """Nodes whose disks were put back."""

    def act(self, what: str, who: str, which: int, flag: bool) -> None:
        channel, unacked = f"{who}{self.lives[who]}", sorted(self.unacked[who])
        is_free = who not in self.asking and who not in self.closing
        match what:
            case "publish":
                self.count += 1
                message = MessageId("p", self.count)
                self.history.append(Published(message, ("q",)))
                self.unconfirmed.append(message)
            case "confirm" if self.unconfirmed:
                self.history.append(Confirmed(self.unconfirmed.pop(0)))
            case "receive" if who not in self.closing:
                number = self.count - which
                message = MessageId("p" if number > 0 else "nobody", number)
                self.history.append(Received(channel, "q", message, flag))
                if number > 0:
                    self.unacked[who].add(message)
            case "ack" | "requeue" if unacked and is_free:
                message = unacked[which % len(unacked)]
                self.unacked[who].remove(message)
                cls = Acked if what == "ack" else Requeued
                self.history.append(cls(channel, "q", message))
            case "ask" if who not in self.asking and who not in self.closing:
                self.asking.add(who)
                self.history.append(Asked(channel))
            case "vouch" if who in self.asking:
                self.asking.remove(who)
                self.history.append(Vouched(channel))
                if who in self.closing:
                    self.end(who)
            case "put back" if who not in self.old:
                self.old.add(who)
                self.history.append(PutBack(who))
            case "turn away" if who in self.old:
                self.old.remove(who)
                self.history.append(TurnedAway(who))
            case "connect" | "join" | "be joined":
                self.history.append(OF_NODES[what](who))
            case "close" if is_free:
                self.closing.add(who)
                self.asking.add(who)
                self.history += [Closing(channel), Asked(channel)]
            case "end":
                self.end(who)
            case "run ends":
                self.history.append(RunEnded())
                for each in "ab":
                    self.end(each)

    def end(self, who: str) -> None:
        self.history.append(Ended(f"{who}{self.lives[who]}", ""))
        self.lives[who] += 1
        self.unacked[who].clear()
        self.asking.discard(who)
        self.closing.discard(who)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_the_checker_finds_what_a_naive_one_finds(steps: list[tuple[str, str, int, bool]]) -> None:
    clients = Clients()
    for step in steps:
        clients.act(*step)
    checker = OnlineChecker()
    checker.read(clients.history)
    assert checker.finish().breaches == breaches(clients.history), clients.history
