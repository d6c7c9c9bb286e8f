"""Delayed queues: how their leader differs from that of other quorum queues."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.base.delayed_queues import is_delayed_queue
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delayed_ready_list import DelayedReadyList
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.journal import Stored
from fluffle.broker.queues.publish_target import Enqueue, EnqueueResult, PartialResult
from fluffle.broker.queues.quorum.dead_letter_outbox import UNDER_WAY_MAX
from fluffle.broker.queues.quorum.entries import Entries
from fluffle.broker.queues.quorum.message_reader import LogJournal
from fluffle.broker.queues.quorum.ready_ranges import earliest_ms, stored, undated
from fluffle.protocol.delays import delay_in
from fluffle.protocol.properties import raw_properties

DUE_MAX = 2 * UNDER_WAY_MAX
"""So many that are due may wait for being handed on, and some more; the others stay where they
are, which costs less."""


class ImageDueTimes:
    """A `DueTimes`: of messages that were there when a leader began."""

    __slots__ = ("_contents", "expiries_of", "ready_within")

    def __init__(self, contents: LogJournal) -> None:
        self._contents = contents
        self.ready_within = contents.ready_within
        self.expiries_of = contents.expiries_of

    def earliest_ms(self, first: int, stop: int) -> int:
        return earliest_ms(self._contents.state.entries, first, stop)


def delayed_list_of(
    spec: QueueSpec, contents: LogJournal, due_count: Callable[[], int]
) -> DelayedReadyList | None:
    """Where messages of a delayed queue wait; `due_count`: how many have died and not arrived."""
    if not is_delayed_queue(spec.name):
        return None
    return DelayedReadyList(contents, ImageDueTimes(contents), due_count, DUE_MAX)


def stored_of(spec: QueueSpec) -> Callable[[Entries], list[Stored]]:
    """How whoever begins with what is in the image gets to know it."""
    return undated if is_delayed_queue(spec.name) else stored


def intake_of(queue: Queue) -> Enqueue:
    """What takes messages into a queue: a delayed one reads how long each has to wait."""
    if not is_delayed_queue(queue.name):
        return queue.enqueue

    def enqueue(
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool = False,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult | PartialResult:
        del expiration_ms  # that counts from when it is routed
        delays_ms = [delay_in(raw_properties(content)) for content in contents]
        return queue.enqueue(
            origins, contents, content_bytes, persistent=persistent, expiration_ms=delays_ms
        )

    return enqueue
