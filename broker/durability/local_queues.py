"""Queues that live in this process, with journals on its disk if it has one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from fluffle.broker.base.logs import event
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.dead_letter_port import DeadLetterFrom
from fluffle.broker.queues.deduplication import (
    DeduplicationContext,
    DuplicateFilter,
    OnDuplicates,
    ignore_duplicates,
)
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Journal, JournalFactory, Owner, QueueDefinition
from fluffle.broker.queues.length_limit import Enqueue
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.queues.queue_context import QueueContext, QueueStores
from fluffle.broker.queues.queue_factory import OnQueueExpired
from fluffle.broker.queues.settings import DeduplicationCache, SettingsFrom, by_arguments
from fluffle.broker.queues.timer_port import STOPPED_CLOCK
from fluffle.broker.runtime.timers import LocalQueueClock

logger = logging.getLogger(__name__)


class LocalQueues:
    """The `QueueFactory` of the classic queues of a lone node."""

    __slots__ = (
        "_dead_letter", "_disused", "_journals", "_on_duplicates", "_settings", "_time", "_touch",
        "_touch_last",
    )  # fmt: skip

    def __init__(
        self,
        touch: Callable[[Queue], None],
        journals: JournalFactory | None = None,
        dead_letter: DeadLetterFrom | None = None,
        *,
        touch_last: Callable[[Queue], None] | None = None,
        time: LocalQueueClock | None = None,
        disused: OnQueueExpired | None = None,
        settings: SettingsFrom = by_arguments,
        on_duplicates: OnDuplicates = ignore_duplicates,
    ) -> None:
        """`journals` is None where nothing outlives the process, `dead_letter` where nobody
        republishes what has died, `time` where none passes, and `disused` where nobody deletes what
        is not used."""
        self._touch, self._touch_last = touch, touch_last
        self._time = time
        self._disused = disused
        self._settings = settings
        self._dead_letter = dead_letter
        self._on_duplicates = on_duplicates
        self._journals = journals

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        del vhost
        groups = self._journals.new_groups() if self._journals and spec.durable else ()
        return QueueDefinition(spec, groups, owner)

    def make(self, definition: QueueDefinition, vhost: str) -> Queue:
        journals, groups = self._journals, definition.groups
        journal = journals.create(groups) if journals and groups else None
        return self.make_with(journal, definition, vhost)

    def reopen(self, definition: QueueDefinition, vhost: str) -> Queue:
        journals = self._journals
        journal = journals.reopen(definition.groups) if journals else None
        queue = self.make_with(journal, definition, vhost)
        if journal is not None:
            queue.recover()
        return queue

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        """It is here, and nowhere else: it has another successor, or none any more."""
        assert isinstance(queue, Queue), "it was made here"
        queue.definition = definition

    def renew(self, queue: QueueHandle, vhost: str) -> None:
        assert isinstance(queue, Queue), "it was made here"
        settings = self._settings(vhost, queue.spec)
        if settings != queue.settings:
            queue.settings = settings

    def end(self, queue: QueueHandle) -> None:
        assert isinstance(queue, Queue), "it was made here"
        for consumer in queue.consumers:
            queue.detach(consumer)
        queue.clear()
        if self._time is not None:
            self._time.forget(queue)
        if queue.journal is not None:
            queue.journal.drop()

    def create_successor(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        raise AssertionError(f"no queue becomes a classic one, and no '{definition.spec.name}'")

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        raise AssertionError(f"queue '{successor.name}' was not born here")

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        del successor  # what is held back here is held by whoever fills it
        self.end(queue)

    def make_with(self, journal: Journal | None, definition: QueueDefinition, vhost: str) -> Queue:
        """With a journal that somebody else has made or found."""
        dead_letter = self._dead_letter
        ports = QueueContext(
            self._touch,
            self._time or STOPPED_CLOCK,
            dead_letter=partial(dead_letter, vhost) if dead_letter is not None else None,
            on_crash=partial(crashed, vhost),
            on_disused=partial(self._on_disused, vhost),
            sieve=partial(self._sieve, journal),
            touch_last=self._touch_last,
        )
        stores = QueueStores(journal, self._journals.spill if self._journals else None)
        settings = self._settings(vhost, definition.spec)
        return Queue(definition.spec, ports, stores, settings=settings, definition=definition)

    def _sieve(
        self, journal: Journal | None, cache: DeduplicationCache, enqueue: Enqueue
    ) -> DuplicateFilter:
        journals = self._journals
        keys = journals.keys(journal.groups) if journals and journal else None
        window = keys.recover() if keys is not None else DeduplicationWindow()
        window.keep(cache.size)
        now_ms = (self._time or STOPPED_CLOCK).now_ms
        told = partial(self._on_duplicates, QueueType.CLASSIC)
        return DuplicateFilter(cache, window, DeduplicationContext(enqueue, now_ms, told, keys))

    def _on_disused(self, vhost: str, queue: Queue) -> None:
        if self._disused is not None:
            self._disused(vhost, queue.definition, lambda: queue.is_disused)


def crashed(vhost: str, queue: Queue) -> None:
    """A queue hands out nothing any more: its consumers must know, and so must operators."""
    assert queue.damage is not None
    event(
        logger,
        logging.ERROR,
        "queue_crashed",
        vhost=vhost,
        queue=queue.name,
        place=queue.damage.place,
        reason=queue.damage.what,
    )
    for consumer in queue.consumers:
        queue.detach(consumer)
        consumer.sink.cancelled(consumer)
