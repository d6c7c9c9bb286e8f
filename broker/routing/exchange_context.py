"""Context of exchanges: the queues of their virtual host, and a source of chance."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fluffle.broker.metadata.change import Fact
from fluffle.broker.routing.recent_history import HistoryMessage


def first(_count: int) -> int:
    """Where chance does not matter."""
    return 0


def nobody_hears(_exchange: str, _message: HistoryMessage) -> None:
    """Where there are no other nodes."""


def at_once(pieces: Iterator[None]) -> None:
    """Do work that may take long where nobody waits for his turn."""
    deque(pieces, maxlen=0)


class ExchangeContext(NamedTuple):
    """Ports of one virtual host; each takes the name of a queue, but for the last three."""

    is_durable_queue: Callable[[str], bool] = lambda _name: False
    queue_type: Callable[[str], str | None] = lambda _name: None
    """By RabbitMQ's name (`rabbit_classic_queue`); None if there is no such queue."""
    queue_fact: Callable[[str], Fact | None] = lambda _name: None
    """What is so of the queue, if it is there."""
    is_here: Callable[[str], bool] = lambda _name: True
    """Whether the queue is there, and its messages are in this process."""
    kept: Callable[[str, HistoryMessage], None] = nobody_hears
    """Told that an exchange of this name has kept a message that was published here."""
    pick: Callable[[int], int] = first
    """One of the numbers from 0 up to, but not including, the one that is given, by chance."""
    alternate_of: Callable[[str], str | None] = lambda _name: None
    """What policies say of where messages go that an exchange with that name does not match."""
    later: Callable[[Iterator[None]], None] = at_once
    """Has work done piece by piece, while others have their turns."""
