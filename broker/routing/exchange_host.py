"""Host of exchanges: what they ask of their virtual host, its queues and chance."""

from collections import deque
from collections.abc import Iterator

from fluffle.broker.metadata.change import Fact
from fluffle.broker.routing.recent_history import HistoryMessage


def first(_count: int) -> int:
    """Where chance does not matter."""
    return 0


def at_once(pieces: Iterator[None]) -> None:
    """Do work that may take long where no other work waits."""
    deque(pieces, maxlen=0)


class ExchangeHost:
    """Virtual host of exchanges, as they see it: by itself one without queues, policies or chance,
    on a node that is alone."""

    __slots__ = ()

    def is_durable_queue(self, _queue: str) -> bool:
        """True if a queue that is there outlives the process."""
        return False

    def queue_type(self, _queue: str) -> str | None:
        """Type of a queue by RabbitMQ's name (`rabbit_classic_queue`); None if there is no such
        queue."""
        return None

    def queue_fact(self, _queue: str) -> Fact | None:
        """Fact stored with the queue, or None if there is no such queue."""
        return None

    def is_here(self, _queue: str) -> bool:
        """True if the queue is there, and its messages are in this process."""
        return True

    def kept(self, _exchange: str, _message: HistoryMessage) -> None:
        """An exchange has kept a message that was published here."""

    def pick(self, count: int) -> int:
        """Random number from 0 up to, not including, `count`."""
        return first(count)

    def alternate_of(self, _exchange: str) -> str | None:
        """Alternate exchange that policies set, or None."""
        return None

    def later(self, pieces: Iterator[None]) -> None:
        """Have work done piece by piece, while others have their turns."""
        at_once(pieces)
