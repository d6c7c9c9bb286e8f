"""`x-recent-history`: a fanout exchange that gives the last messages to each queue that is bound to
it.

They are in memory, and end with the exchange or with the process.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.protocol.properties import decode_properties, raw_properties
from fluffle.protocol.terms import term
from fluffle.protocol.wire import TYPE_NAMES, FieldTable

HISTORY_LENGTH = "x-recent-history-length"
NO_STORE = "x-recent-history-no-store"
DEFAULT_LENGTH = 20
INTEGERS = frozenset(("byte", "short", "signedint", "long"))
"""Types that RabbitMQ accepts as an integer, by its names."""

_NO_STORE = NO_STORE.encode()


class HistoryMessage(NamedTuple):
    """A message as it was published."""

    origin: Origin
    content: bytes
    more_routing_keys: tuple[str, ...]
    """Routing keys of the CC and BCC headers."""
    persistent: bool


def ignore_message(_message: HistoryMessage) -> None:
    """Ignore the message: there are no other nodes."""


class MessageHistory:
    """The last messages of one exchange."""

    __slots__ = ("_kept", "_on_kept")

    def __init__(
        self, arguments: FieldTable, on_kept: Callable[[HistoryMessage], None] = ignore_message
    ) -> None:
        """Make the history; `arguments` of the exchange have passed `check_length`; `on_kept` gets
        each kept message."""
        self._on_kept = on_kept
        _tag, length = arguments.get(HISTORY_LENGTH, ("l", DEFAULT_LENGTH))
        assert isinstance(length, int)
        self._kept: deque[HistoryMessage] = deque(maxlen=length)

    def keep(self, message: HistoryMessage) -> None:
        """Unless the message asks not to be."""
        if wants_to_be_kept(message.content):
            self._kept.append(message)
            self._on_kept(message)

    def hear(self, message: HistoryMessage) -> None:
        """Keep a message that another node published."""
        self._kept.append(message)

    def forget(self) -> None:
        """Drop all kept messages: another node has a newer history."""
        self._kept.clear()

    def __iter__(self) -> Iterator[HistoryMessage]:
        """The oldest first; those that are there now."""
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)


def check_length(arguments: FieldTable) -> None:
    """Refuses to make an exchange whose history would have no length.  RabbitMQ's text."""
    tag, length = arguments.get(HISTORY_LENGTH, ("l", DEFAULT_LENGTH))
    if TYPE_NAMES[tag] not in INTEGERS or not isinstance(length, int) or length < 1:
        raise PreconditionFailed(
            f"Invalid argument {term(length)}, '{HISTORY_LENGTH}' must be a positive integer"
        )


def wants_to_be_kept(content: bytes) -> bool:
    """True if a message has not the header that says no."""
    raw = raw_properties(content)
    if _NO_STORE not in raw:
        return True
    headers = decode_properties(raw).headers or {}
    return headers.get(NO_STORE) != ("t", True)
