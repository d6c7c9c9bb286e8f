"""Which priorities a queue tells apart."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.protocol.columns import PriorityColumn, priorities_of

LEVEL_BITS = 54
"""Of the sequence numbers of a classic queue: those above say in which lane a message is.  With 256
lanes all are less than 2 ** 62."""


class PriorityLevels(NamedTuple):
    """From 0 up to the highest."""

    highest: int
    """What is beyond counts as this."""
    missing: int
    """Of messages that name none."""

    def of(self, contents: list[bytes]) -> int | PriorityColumn:
        """Where each of some messages waits, or where all of them do."""
        named = priorities_of(contents)  # mutant: P1
        if named is None:
            return self.missing
        octets = named.octets
        if octets.count(octets[0]) == len(octets):
            return min(octets[0], self.highest)
        return PriorityColumn(octets.translate(_capped(self.highest)), named.content_bytes)


@cache
def _capped(highest: int) -> bytes:
    """For `bytes.translate`: what is beyond counts as this."""
    return bytes(min(priority, highest) for priority in range(256))


QUORUM_LEVELS = PriorityLevels(highest=31, missing=4)
"""RabbitMQ 4.3: rabbit_fifo.  4.0 has two, of which the higher begins at 5."""


CLASSIC_HIGHEST_MIN = 1
"""RabbitMQ 4.0.5 tells two apart where x-max-priority is 0."""


def levels_of(spec: QueueSpec) -> PriorityLevels | None:
    """None if all messages of such a queue are alike."""
    if spec.queue_type is QueueType.QUORUM:
        return QUORUM_LEVELS
    if spec.max_priority is None:
        return None
    return PriorityLevels(max(spec.max_priority, CLASSIC_HIGHEST_MIN), missing=0)


def first_of(level: int) -> int:
    """The lowest sequence number of a lane of a classic queue."""
    return (level << LEVEL_BITS) + 1


def level_of(sequence: int) -> int:
    """In which lane of a classic queue the message with this number is."""
    return sequence >> LEVEL_BITS


class SequenceNumbers:
    """Gives out sequence numbers, to one lane or to several."""

    __slots__ = ("next",)

    def __init__(self, first: int = 1) -> None:
        self.next = first
