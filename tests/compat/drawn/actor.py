"""A channel that acts in a run: what it holds, consumes and waits for, by what it has heard."""

from __future__ import annotations

from typing import Any

from tests.compat.verbs import Speaker
from tests.support.client import Heard

CONFIRM, TX = "confirm", "tx"


class Actor:
    """`held` are the delivery tags that it has not settled."""

    __slots__ = ("_confirms", "_mode", "_published", "consumers", "held", "speaker", "unconfirmed")

    def __init__(self, speaker: Speaker) -> None:
        self._mode = ""
        self.begin(speaker)

    def begin(self, speaker: Speaker) -> None:
        """Act on this channel, which is new."""
        self.speaker = speaker
        self.held: list[int] = []
        self.consumers: dict[str, bool] = {}
        """Acknowledgement mode by tag: True for no acknowledgements."""
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
        return self.held[which % len(self.held)] if self.held else None

    def settled(self, tag: int, *, multiple: bool) -> None:
        self.held = [other for other in self.held if other > tag or (other < tag and not multiple)]

    def hear(self, heard: Heard) -> None:
        """Remember what a message or a confirm says."""
        method: Any = heard.method
        if heard.name == "Basic.Deliver":
            if not self.consumers.get(method.consumer_tag, False):
                self.held.append(method.delivery_tag)
        elif heard.name in self._confirms:
            upto = {number for number in self.unconfirmed if number <= method.delivery_tag}
            numbers = upto if method.multiple else {method.delivery_tag}
            self._confirms[heard.name] += sorted(numbers)
            self.unconfirmed -= numbers
        elif heard.name == "Basic.Cancel":
            self.consumers.pop(method.consumer_tag, None)

    def confirms(self) -> list[str]:
        """Texts of the publishes that were acked or nacked."""
        return [f"{name} {sorted(numbers)}" for name, numbers in self._confirms.items() if numbers]

    def forget_confirms(self) -> None:
        self._confirms = {name: [] for name in self._confirms}
