"""`VhostAssertions`: what has happened in a virtual host, for who asks afterwards.

A timeline knows what was seen; queues know what is there.  What is asked of it is said by both.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from fluffle.broker.base.errors import NotFound
from fluffle.broker.queues.queue_api import (
    Deferred,
    PeekedMessage,
    PeekRequest,
    PeekResult,
    QueueCounts,
    QueueHandle,
)
from fluffle.broker.testing.message_traces import Passage, StepKind, TraceStep
from fluffle.broker.testing.tapped import short
from fluffle.broker.testing.timeline import Timeline
from fluffle.broker.testing.timeline_events import origin_of
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import build_content

PEEKED_MAX = 10_000
LINES_SHOWN_MAX = 60
LEFT_SHOWN_MAX = 20
"""So much stands in a text: the latest lines, and of what is left so many of a kind."""

UNSEEN = "nobody saw it leave: refused by its queue, rolled back or purged by a command"


class AssertedVhost(Protocol):
    """A virtual host for one test, as assertions look at it."""

    def look(self) -> VirtualHost:
        """The virtual host itself.  NotFound."""

    def queue_counts(self, queue: QueueHandle) -> QueueCounts | None:
        """What is in a queue that is led here."""

    async def settle(self) -> None:
        """Return when there is nothing to do for its nodes."""


class VhostAssertions:
    """Assertions about the past and present of one virtual host."""

    __slots__ = ("_timeline", "_vhost")

    def __init__(self, timeline: Timeline, vhost: AssertedVhost) -> None:
        self._timeline = timeline
        self._vhost = vhost

    async def history(self, queue: str) -> list[Passage]:
        """What became of each message of a queue, in the order in which they came; also of one that
        has been deleted.  The last 10,000 of the virtual host.  NotFound."""
        await self._vhost.settle()
        timeline, vhost = self._timeline, self._vhost.look()
        known = timeline.of_queue(queue)
        if queue not in vhost.queues:
            if not known:
                there = ", ".join(map(repr, vhost.queues)) or "none"
                raise NotFound(f"no queue '{queue}' in vhost '{vhost.name}', but: {there}")
            return [each.view() for each in known]
        served = vhost.queues[queue]
        seen = await lying_in(served)
        gone = self._compare(queue, seen)
        queue_counts = self._vhost.queue_counts(served)
        if queue_counts is None or queue_counts.apart or len(seen) >= PEEKED_MAX:
            gone = set()  # they may be where no timeline looked
        step = TraceStep(StepKind.GONE, timeline.at_ms, detail=UNSEEN)
        found = timeline.of_queue(queue)
        return [each.view(step) if each.number in gone else each.view() for each in found]

    def _compare(self, queue: str, seen: Sequence[PeekedMessage]) -> set[int]:
        """Put into the timeline what is in a queue by its own account; the numbers of those that
        are not, though they should be."""
        timeline, course = self._timeline, self._timeline.course(queue)
        contents = [build_content(each.properties, each.body) for each in seen]
        there = Counter(map(hash, contents))
        missing: set[int] = set()
        for passage in course.ready:
            there[passage.key] -= 1
            if there[passage.key] < 0:
                missing.add(passage.number)
        held = [each for each in timeline.of_queue(queue) if each.last.what is StepKind.DELIVERED]
        for passage in held:
            if there[passage.key] > 0:
                there[passage.key] -= 1
                back = TraceStep(
                    StepKind.REQUEUED, timeline.at_ms, detail="taken from its consumer"
                )
                passage.add(back)
                course.wait([passage], in_front=True)
        for each, content in zip(seen, contents, strict=True):
            if there[hash(content)] > 0 and timeline.has_room:
                there[hash(content)] -= 1
                message = each.exchange, each.routing_key, content
                timeline.found(queue, message, origin_of(content))
        return missing

    async def timeline(self) -> str:
        """All of it as text, the latest at the end: what happened, and what is left."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        timeline = self._timeline
        left_out = max(len(timeline.lines) - LINES_SHOWN_MAX, 0)
        if hidden := left_out + timeline.forgotten["lines"]:
            yield f"({hidden} earlier lines are left out)"
        yield from map(str, islice(timeline.lines, left_out, None))
        if not timeline.lines:
            yield "nothing has happened"
        for queue in self._vhost.look().queues.values():
            queue_counts = self._vhost.queue_counts(queue)
            if queue_counts is not None and any(
                (queue_counts.ready, queue_counts.unacked, queue_counts.apart)
            ):
                apart = f", {queue_counts.apart} apart" if queue_counts.apart else ""
                text = f"{queue_counts.ready} ready, {queue_counts.unacked} unacknowledged{apart}"
                yield f"left in queue {queue.name!r}: {text}"
        yield from some("left unacknowledged", list(map(repr, self._unacked())))
        yield from some("unroutable", list(map(str, timeline.unroutable)))
        yield from some("open", self._open())
        for what in ("messages", "unroutable messages"):
            if forgotten := timeline.forgotten[what]:
                yield f"({forgotten} {what} are forgotten)"

    def _unacked(self) -> list[Passage]:
        """Return what is unacknowledged by the queue's account, too: it may have taken messages
        from consumers that held them for long, and have dropped what came back."""
        queues = self._vhost.look().queues
        return [
            each
            for each in self._timeline.unacked
            if each.queue in queues and self._may_have(queues[each.queue], each)
        ]

    def _may_have(self, queue: QueueHandle, passage: Passage) -> bool:
        """Whether the queue has messages that stand as this one does."""
        queue_counts = self._vhost.queue_counts(queue)
        if queue_counts is None:
            return True
        is_held = passage.last.what is StepKind.DELIVERED
        return queue_counts.unacked > 0 or (
            not is_held and queue_counts.ready + queue_counts.apart > 0
        )

    def _open(self) -> list[str]:
        return [
            f"connection {short(session.name)}"
            + (f" with channels {', '.join(map(str, sorted(numbers)))}" if numbers else "")
            for session, numbers in self._timeline.channels.items()
        ]

    # What is expected of a test that cleans up

    async def assert_no_unacked(self, *, within: float = 2.0) -> None:
        """Return once every message that was delivered has been acknowledged or given back.

        What its client still had when its channel ended counts as unacknowledged, until it is
        delivered again.  AssertionError after `within` seconds.
        """
        __tracebackhide__ = True
        await self._nothing_left(
            lambda: list(map(repr, self._unacked())), "not acknowledged", within
        )

    async def assert_no_unroutable(self) -> None:
        """AssertionError if a client has published what no queue got, returned or not."""
        __tracebackhide__ = True
        await self._vhost.settle()
        await self._nothing_left(
            lambda: list(map(str, self._timeline.unroutable)), "unroutable", 0.0
        )

    async def assert_no_leaked_channels(self, *, within: float = 2.0) -> None:
        """Return once no connection is open, and so no channel.

        AssertionError after `within` seconds.
        """
        __tracebackhide__ = True
        await self._nothing_left(self._open, "not closed", within)

    async def _nothing_left(self, left: Callable[[], list[str]], what: str, within: float) -> None:
        __tracebackhide__ = True
        changed, watchers = asyncio.Event(), self._timeline.watchers
        watchers.add(changed.set)
        try:
            async with asyncio.timeout(within):
                while left():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            found = left()
            lines = "\n".join(some(f"{len(found)} {what}", found))
            raise AssertionError(lines) from None
        finally:
            watchers.discard(changed.set)


def some(what: str, items: Sequence[str]) -> Iterator[str]:
    """The first of several, one a line, and how many more there are."""
    if not items:
        return
    yield f"{what}:"
    yield from (f"  {each}" for each in items[:LEFT_SHOWN_MAX])
    if len(items) > LEFT_SHOWN_MAX:
        yield f"  and {len(items) - LEFT_SHOWN_MAX} more"


async def lying_in(queue: QueueHandle) -> list[PeekedMessage]:
    """The messages of a queue that are ready, whole; up to `PEEKED_MAX`, or to what is damaged."""
    found: list[PeekedMessage] = []
    while len(found) < PEEKED_MAX:
        peeked = queue.peek(PeekRequest(len(found), PEEKED_MAX - len(found), body_bytes=1 << 40))
        if isinstance(peeked, Deferred):
            peeked = await answered(peeked)
        found += peeked.seen
        if not peeked.seen or peeked.damage:
            break
    return found


async def answered(later: Deferred[PeekResult]) -> PeekResult:
    come: asyncio.Future[PeekResult] = asyncio.get_running_loop().create_future()
    later.then(come.set_result, come.set_exception)
    return await come
