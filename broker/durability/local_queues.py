"""Queues that live in this process, with journals on its disk if it has one."""

from __future__ import annotations

import logging
from functools import partial

from fluffle.broker.base.logs import event
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.dead_letters import DeadLetterFrom
from fluffle.broker.queues.deduplication import (
    DuplicateFilter,
)
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.engine import Queue, QueueStores, QueueTurn
from fluffle.broker.queues.journal import Journal, JournalFactory, Owner, QueueDefinition
from fluffle.broker.queues.publish_target import Enqueue
from fluffle.broker.queues.queue_api import (
    STOPPED_CLOCK,
    OnQueueExpired,
    QueueClock,
    QueueHandle,
    deliver_all,
)
from fluffle.broker.queues.settings import DeduplicationCache, SettingsFrom, by_arguments
from fluffle.broker.runtime.timers import LocalQueueClock

logger = logging.getLogger(__name__)


class LocalQueues:
    """The `QueueFactory` of the classic queues of a lone node."""

    def __init__(
        self,
        turn: QueueTurn,
        journals: JournalFactory | None = None,
        dead_letter: DeadLetterFrom | None = None,
        *,
        time: LocalQueueClock | None = None,
        queue_expired: OnQueueExpired | None = None,
        settings: SettingsFrom = by_arguments,
        traffic: Traffic | None = None,
    ) -> None:
        """Make the host; `journals` is None where nothing outlives the process, `dead_letter` where
        nothing republishes dead messages, `time` where none passes, `queue_expired` where unused
        queues stay, and `traffic` where nothing is counted."""
        self.turn = turn
        self.time = time
        self.queue_expired = queue_expired
        self.settings = settings
        self.dead_letter = dead_letter
        self.traffic = traffic or Traffic()
        self.journals = journals

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        del vhost
        groups = self.journals.new_groups() if self.journals and spec.durable else ()
        return QueueDefinition(spec, groups, owner)

    def make(self, definition: QueueDefinition, vhost: str) -> Queue:
        journals, groups = self.journals, definition.groups
        journal = journals.create(groups) if journals and groups else None
        return self.make_with(journal, definition, vhost)

    def reopen(self, definition: QueueDefinition, vhost: str) -> Queue:
        journals = self.journals
        journal = journals.reopen(definition.groups) if journals else None
        queue = self.make_with(journal, definition, vhost)
        if journal is not None:
            queue.recover()
        return queue

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        """Give a queue, which is here and nowhere else, other arguments or another successor."""
        assert isinstance(queue, Queue), "it was made here"
        queue.redefine(definition)

    def renew_settings(self, queue: QueueHandle, vhost: str) -> None:
        assert isinstance(queue, Queue), "it was made here"
        settings = self.settings(vhost, queue.spec)
        if settings != queue.settings:
            queue.settings = settings

    def end(self, queue: QueueHandle) -> None:
        assert isinstance(queue, Queue), "it was made here"
        for consumer in queue.consumers:
            queue.detach(consumer)
        queue.end()
        if self.time is not None:
            self.time.forget(queue)
        if queue.journal is not None:
            queue.journal.drop()

    def create_successor(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        raise AssertionError(f"no queue becomes a classic one, and no '{definition.spec.name}'")

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        raise AssertionError(f"queue '{successor.name}' was not born here")

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        del successor  # what is held back here is held by what fills it
        self.end(queue)

    def make_with(self, journal: Journal | None, definition: QueueDefinition, vhost: str) -> Queue:
        """Make a queue with a journal that was made or found before."""
        host = LocalQueueHost(self, vhost, journal)
        stores = QueueStores(journal, self.journals.spill if self.journals else None)
        settings = self.settings(vhost, definition.spec)
        return Queue(definition.spec, host, stores, settings=settings, definition=definition)


class LocalQueueHost:
    """The `QueueHost` of one classic queue."""

    __slots__ = ("_journal", "_queues", "_vhost", "dead_letter", "time", "turn")

    bury = None
    """The queue does it."""
    consumer_timeout_ms = None
    deliver_early = staticmethod(deliver_all)

    def __init__(self, queues: LocalQueues, vhost: str, journal: Journal | None) -> None:
        self._queues = queues
        self._vhost = vhost
        self._journal = journal
        self.turn = queues.turn
        self.time: QueueClock = queues.time or STOPPED_CLOCK
        dead_letter = queues.dead_letter
        self.dead_letter = partial(dead_letter, vhost) if dead_letter is not None else None

    def other_counted_messages(self) -> int:
        return 0

    def duplicate_filter(self, cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
        journals = self._queues.journals
        keys = journals.keys(self._journal.groups) if journals and self._journal else None
        window = keys.recover() if keys is not None else DeduplicationWindow()
        window.keep(cache.size)
        on_duplicate = partial(self._queues.traffic.dropped_duplicates, QueueType.CLASSIC)
        return DuplicateFilter(
            cache, window, enqueue, time=self.time, on_duplicates=on_duplicate, record=keys
        )

    def on_crash(self, queue: Queue) -> None:
        """Log that a queue has crashed and cancel its consumers: it delivers nothing any more."""
        assert queue.damage is not None
        event(
            logger,
            logging.ERROR,
            "queue_crashed",
            vhost=self._vhost,
            queue=queue.name,
            place=queue.damage.place,
            reason=queue.damage.what,
        )
        for consumer in queue.consumers:
            queue.detach(consumer)
            consumer.sink.cancelled(consumer)

    def on_queue_expired(self, queue: Queue) -> None:
        if self._queues.queue_expired is not None:
            self._queues.queue_expired(
                self._vhost, queue.definition, lambda: queue.is_queue_expired
            )
