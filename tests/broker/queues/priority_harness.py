"""A queue whose messages have priorities."""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.journal import PageStore
from fluffle.broker.queues.requeue import RequeueFifo
from fluffle.protocol.properties import Properties, body_of, build_content, encode_properties
from tests.broker.queues.queue_harness import ORIGIN, ExpiryHarness
from tests.support.queue_arguments import queue_arguments

QUORUM = QueueSpec("q", queue_type=QueueType.QUORUM)


def up_to(highest: int, **said: int | str) -> QueueSpec:
    """A classic queue."""
    arguments = queue_arguments(max_priority=highest, **said)
    return QueueSpec("q", arguments=arguments, max_priority=highest)


def with_priority(text: str, priority: int | None) -> bytes:
    """Canonical content with a priority, or with none."""
    return build_content(encode_properties(Properties(priority=priority)), text.encode())


class PriorityHarness(ExpiryHarness):
    """A queue, its consumers and its time.  What comes back to a quorum queue is next."""

    def __init__(self, spec: QueueSpec, spill: PageStore | None = None) -> None:
        is_quorum = spec.queue_type is QueueType.QUORUM
        super().__init__(spec, spill, RequeueFifo(self._fetch) if is_quorum else None)

    def _fetch(
        self, sequences: Sequence[int], bytes_max: int = 0
    ) -> tuple[list[Origin], list[bytes]]:
        raise AssertionError(f"{sequences} came back with contents")

    def enqueue(
        self,
        *texts: str,
        origin: Origin = ORIGIN,
        expiration_ms: Lifetimes = None,
        priority: int | None = None,
        priorities: Sequence[int | None] = (),
    ) -> None:
        """`priorities`: one a text; all have the same if there are none."""
        of_each = priorities or [priority] * len(texts)
        contents = [with_priority(*each) for each in zip(texts, of_each, strict=True)]
        size_bytes = sum(map(len, contents))
        origins = [origin] * len(contents)
        self.queue.enqueue(origins, contents, size_bytes, expiration_ms=expiration_ms)

    def got(self, tag: str) -> str:
        return b"".join(map(body_of, self.sinks[tag].contents)).decode()

    @property
    def expired(self) -> list[str]:
        return [body_of(content).decode() for content in self.dead]
