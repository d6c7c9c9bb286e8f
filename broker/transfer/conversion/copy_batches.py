"""The ready messages of a queue that stands still, a portion at a time; none is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.expiry_times import INSTANT_MS
from fluffle.broker.queues.queue_view import ReadyMessages, StoredMessage, messages_from
from fluffle.broker.queues.timer_port import NEVER_MS
from fluffle.protocol.properties import is_persistent, priority_of, raw_properties

PORTION_MESSAGES = 500
PORTION_BYTES = 1 << 20
"""So much is read in one turn, or one message."""


class CopyBatch(NamedTuple):
    """Messages that a queue takes together."""

    origins: list[Origin]
    contents: list[bytes]
    persistent: bool
    expiration_ms: int | None
    """For how long they may wait from now on."""


def portion(stocks: Sequence[ReadyMessages], offset: int) -> list[StoredMessage]:
    """Those behind the first `offset`.  Raises `Unreadable`."""
    messages: list[StoredMessage] = []
    size_bytes = 0
    for message in messages_from(stocks, offset):
        messages.append(message)
        size_bytes += len(message.content)
        if len(messages) == PORTION_MESSAGES or size_bytes >= PORTION_BYTES:
            break
    return messages


def first_of(stocks: Sequence[ReadyMessages]) -> int | None:
    """The number of the message that is next; None if there is none."""
    for stock in stocks:
        for run in stock.returns.runs:
            return run.sequences[run.head]
        for segment in stock.segments:
            return segment.next_sequence
    return None


def runs_of(messages: Sequence[StoredMessage], now_ms: int) -> Iterator[CopyBatch]:
    """The same in order; what has expired may wait no more.  `now_ms`: in the time of the queue."""
    for (_priority, persistent, expires_at_ms), alike in groupby(messages, likeness):
        together = list(alike)
        expiration_ms = None if expires_at_ms == NEVER_MS else max(0, expires_at_ms - now_ms)
        if expires_at_ms == INSTANT_MS:
            expiration_ms = 0
        yield CopyBatch(
            [each.origin for each in together],
            [each.content for each in together],
            persistent,
            expiration_ms,
        )


def likeness(message: StoredMessage) -> tuple[int | None, bool, int]:
    content = message.content
    return (
        priority_of(content),
        is_persistent(raw_properties(content)),
        message.expires_at_ms,
    )
