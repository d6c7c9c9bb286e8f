"""The ledger of publish sequence numbers of one channel in confirm mode.

Every publish gets exactly one ack or nack.  Answers are collected in a turn and coalesced as
RabbitMQ does: one with `multiple` for everything below the oldest number that is still open or
refused, single ones for the rest; a lone ack goes out with multiple=false.
"""

from fluffle.protocol.methods import ack_frame, nack_frame


class Confirms:
    """Sequence numbers from 1, and what is known of them."""

    __slots__ = ("_accepted", "_next_sequence", "_open", "_refused")

    def __init__(self) -> None:
        self._next_sequence = 1
        self._open: dict[int, int] = {}
        """First and last of each run that was assigned and waits for its queues."""
        self._accepted: list[tuple[int, int]] = []
        self._refused: list[int] = []

    def assign(self, count: int) -> int:
        """Number `count` publishes; the first number."""
        first = self._next_sequence
        self._next_sequence = first + count
        self._open[first] = first + count - 1
        return first

    def accept(self, first: int) -> None:
        """Every queue has taken the run that was assigned from `first` on."""
        self._accepted.append((first, self._open.pop(first)))

    def refuse(self, first: int) -> None:
        """A queue has refused the run that was assigned from `first` on."""
        self._refused += range(first, self._open.pop(first) + 1)

    @property
    def open_count(self) -> int:
        """Publishes that are neither accepted nor refused."""
        return sum(last - first + 1 for first, last in self._open.items())

    def frames(self, channel: int) -> list[bytes]:
        """What to tell the publisher since the last call."""
        frames = self._ack_frames(channel) if self._accepted else []
        frames += [nack_frame(channel, tag, multiple=False) for tag in self._refused]
        self._refused.clear()
        return frames

    def _ack_frames(self, channel: int) -> list[bytes]:
        accepted, self._accepted = self._accepted, []
        if not self._open and not self._refused:
            lone = len(accepted) == 1 and accepted[0][0] == accepted[0][1]
            return [ack_frame(channel, self._next_sequence - 1, multiple=not lone)]
        bound = min([*self._open, *self._refused])
        frames = []
        below = [last for _first, last in accepted if last < bound]
        if below:
            frames.append(ack_frame(channel, max(below), multiple=True))
        for first, last in accepted:
            if last > bound:
                frames += [
                    ack_frame(channel, tag, multiple=False) for tag in range(first, last + 1)
                ]
        return frames
