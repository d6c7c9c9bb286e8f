"""Messages and counts of a queue, as a test sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fluffle.broker.admin.context import Row
from fluffle.broker.queues.queue_api import Outcome


@dataclass(frozen=True, slots=True)
class Message:
    """Message that is ready in a queue, or was."""

    body: bytes
    """Body; of a message that is only shown, up to 256 KiB of it."""
    exchange: str
    routing_key: str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    """The others, by their AMQP names."""
    redelivered: bool

    def text(self) -> str:
        """Decode the body as text.  UnicodeDecodeError."""
        return self.body.decode()

    def json(self) -> Any:
        """Decode the body as JSON.  ValueError."""
        from json import loads  # noqa: PLC0415  only if it is used

        return loads(self.body)


class SettleOnce:
    """Settlement of one message, at most once, from any thread; as in AMQP, there is no answer."""

    def __init__(self, settle: Callable[[Outcome], object]) -> None:
        """`settle` is called in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._settle = settle
        self._is_empty = False

    def empty(self, outcome: Outcome) -> None:
        """RuntimeError if it is empty."""
        if self._is_empty:
            raise RuntimeError("the message has been settled already")
        self._is_empty = True
        self._loop.call_soon_threadsafe(self._settle, outcome)


@dataclass(frozen=True, slots=True)
class HeldMessage(Message):
    """Message that the test holds until it settles it; settling is not awaited."""

    hand: SettleOnce

    def ack(self) -> None:
        """Acknowledge the message.  RuntimeError if it is settled already."""
        self.hand.empty(Outcome.ACKED)

    def reject(self, *, requeue: bool = False) -> None:
        """Reject the message: it is dropped, dead-lettered or requeued.  RuntimeError if it is
        settled already."""
        self.hand.empty(Outcome.NACK_REQUEUED if requeue else Outcome.REJECTED)


def message_of(row: Row) -> Message:
    """Build a message from a row of `queues.peek`."""
    if row["payload_encoding"] == "base64":
        from base64 import b64decode  # noqa: PLC0415  only if it is used

        body = b64decode(row["payload"])
    else:
        body = row["payload"].encode()
    properties = {**row["properties"]}
    if row["priority"] is not None:
        properties["priority"] = row["priority"]
    return Message(
        body, row["exchange"], row["routing_key"], row["headers"], properties, row["redelivered"]
    )


class MessageCounts(NamedTuple):
    """Counts of a queue, found or expected; an expected None matches anything."""

    messages: int | None = None
    """In all."""
    ready: int | None = None
    unacked: int | None = None
    consumers: int | None = None


NO_COUNTS = MessageCounts()


def wanted_counts(
    count: int | None, ready: int | None, unacked: int | None, consumers: int | None
) -> MessageCounts:
    """Return what is expected.  TypeError if nothing is."""
    wanted = MessageCounts(count, ready, unacked, consumers)
    if wanted == NO_COUNTS:
        raise TypeError("expect needs at least one of count, ready, unacked, consumers")
    return wanted


def is_met(wanted: MessageCounts, found: MessageCounts) -> bool:
    return all(want in (None, there) for want, there in zip(wanted, found, strict=True))


def shown(counts: MessageCounts) -> str:
    """Show the counts that are known."""
    names = ("messages", "ready", "unacknowledged", "consumers")
    pairs = zip(names, counts, strict=True)
    return ", ".join(f"{number} {name}" for name, number in pairs if number is not None)
