"""`PendingConfirms`: confirms that a client is yet to get, in any form that says the same."""

from __future__ import annotations

from random import Random

from fluffle.broker.testing.faults.frames import ACK, NACK, Frame
from fluffle.protocol.methods import ack_frame, nack_frame


class PendingConfirms:
    """Publishes are numbered from 1."""

    __slots__ = ("_channel", "_due", "_low", "_told")

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._low = 0
        """All up to this one have been told."""
        self._told: set[int] = set()
        """And these."""
        self._due: dict[int, bool] = {}
        """Whether what is to be told is an ack, by number."""

    def add(self, tag: int, *, multiple: bool, is_ack: bool) -> None:
        """The broker has answered for a publish, or for all up to it that it has not yet."""
        for number in range(self._low + 1 if multiple else tag, tag + 1):
            if number not in self._told:
                self._due.setdefault(number, is_ack)

    def told(self, chance: Random) -> list[Frame]:
        """All that is due: some as one, where that is possible, the others in any order."""
        frames: list[Frame] = []
        last = self._low
        while last + 1 in self._told or self._due.get(last + 1, False):
            last += 1
        if last in self._due and chance.random() < 0.5:
            frames.append(self._frame(last, multiple=True, is_ack=True))
            self._note([number for number in self._due if number <= last])
        singles = list(self._due.items())
        chance.shuffle(singles)
        for number, is_ack in singles:
            frames.append(self._frame(number, multiple=False, is_ack=is_ack))
        self._note([number for number, _is_ack in singles])
        return frames

    def _note(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._due[number]
            self._told.add(number)
        while self._low + 1 in self._told:
            self._low += 1
            self._told.remove(self._low)

    def _frame(self, tag: int, *, multiple: bool, is_ack: bool) -> Frame:
        make = ack_frame if is_ack else nack_frame
        data = make(self._channel, tag, multiple=multiple)
        return Frame(self._channel, ACK if is_ack else NACK, data)
