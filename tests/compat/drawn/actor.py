"""A channel that acts in a run: what it holds, consumes and waits for, by what it has heard."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.compat.drawn.given_back import UNKNOWN, GivenBack, Held
from tests.compat.verbs import Speaker
from tests.support.client import Heard

CONFIRM, TX = "confirm", "tx"


class Settlement(NamedTuple):
    """Settlement that a transaction is to make."""

    messages: dict[int, Held]
    gives_back: bool


class Actor:
    """`held` are the messages that it has not settled, by delivery tag."""

    __slots__ = (
        "_confirms", "_mode", "_published", "_settlements", "_unnamed", "consumers", "given_back",
        "held", "no_acks", "speaker", "unconfirmed",
    )  # fmt: skip

    def __init__(self, speaker: Speaker) -> None:
        self._mode = ""
        self.held: dict[int, Held] = {}
        self._settlements: list[Settlement] = []
        self._unnamed: dict[int, Held] = {}
        """Messages that its channel holds, though it settles them no more."""
        self.given_back: list[GivenBack] = []
        """Messages that came back since the player last looked at them."""
        self.begin(speaker)

    def begin(self, speaker: Speaker) -> None:
        """Act on this channel, which is new; what the last one held has come back."""
        messages = self.held | self._unnamed
        for settlement in self._settlements:
            messages |= settlement.messages
        self.given_back.append(GivenBack(messages, is_end=True))
        self.held, self._unnamed, self._settlements = {}, {}, []
        self.speaker = speaker
        self.consumers: dict[str, str] = {}
        """Queue by consumer tag."""
        self.no_acks: set[str] = set()
        """Tags of consumers that do not acknowledge."""
        self._published = 0
        self.unconfirmed: set[int] = set()
        self._confirms: dict[str, list[int]] = {"Basic.Ack": [], "Basic.Nack": []}
        self.select(self._mode)

    def select(self, mode: str) -> None:
        """So it is from then on, also when it has to begin again."""
        self._mode = mode
        if mode == CONFIRM:
            self.speaker.confirms()
        elif mode == TX:
            self.speaker.transact()

    def publish(self, **said: Any) -> None:
        self.speaker.publish(**said)
        if self._mode == CONFIRM:
            self._published += 1
            self.unconfirmed.add(self._published)

    def tag(self, which: int) -> int | None:
        """Delivery tag of one of the held messages."""
        return [*self.held][which % len(self.held)] if self.held else None

    def settled(self, tag: int, *, multiple: bool, gives_back: bool) -> None:
        tags = [other for other in self.held if other == tag or (other < tag and multiple)]
        messages = {other: self.held.pop(other) for other in tags}
        if self._mode == TX:
            self._settlements.append(Settlement(messages, gives_back))
        elif gives_back:
            self.given_back.append(GivenBack(messages, is_end=False))

    def commit(self) -> None:
        self.speaker.commit()
        for messages, gives_back in self._settlements:
            if gives_back:
                self.given_back.append(GivenBack(messages, is_end=False))
        self._settlements = []

    def roll_back(self) -> None:
        self.speaker.roll_back()
        for settlement in self._settlements:
            self._unnamed |= settlement.messages
        self._settlements = []

    def recover(self) -> None:
        """Give all back, though later settlements still name what it was given before."""
        self.given_back.append(GivenBack(self.held | self._unnamed, is_end=False))
        self.held, self._unnamed = dict.fromkeys(self.held, UNKNOWN), {}
        self.speaker.recover()

    def hear(self, heard: Heard) -> None:
        """Remember what a message or a confirm says."""
        method: Any = heard.method
        if heard.name == "Basic.Deliver":
            tag = method.consumer_tag
            if tag not in self.no_acks:
                self.held[method.delivery_tag] = Held(self.consumers.get(tag, ""), tag)
        elif heard.name in self._confirms:
            upto = {number for number in self.unconfirmed if number <= method.delivery_tag}
            numbers = upto if method.multiple else {method.delivery_tag}
            self._confirms[heard.name] += sorted(numbers)
            self.unconfirmed -= numbers
        elif heard.name == "Basic.Cancel":
            self.consumers.pop(method.consumer_tag, None)
            self.no_acks.discard(method.consumer_tag)

    def confirms(self) -> list[str]:
        """Texts of the publishes that were acked or nacked."""
        return [f"{name} {sorted(numbers)}" for name, numbers in self._confirms.items() if numbers]

    def forget_confirms(self) -> None:
        self._confirms = {name: [] for name in self._confirms}
