"""Queues that live in this process, with journals on its disk if it has one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from fluffle.broker.logs import event
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead import DeadLetterFrom
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Journal, Journals, Owner, QueueDefinition
from fluffle.broker.queues.served import ServedQueue

logger = logging.getLogger(__name__)


class LocalQueues:
    """The `QueueMaker` of the classic queues of a lone node."""

    __slots__ = ("_dead_letter", "_journals", "_touch")

    def __init__(
        self,
        touch: Callable[[Queue], None],
        journals: Journals | None = None,
        dead_letter: DeadLetterFrom | None = None,
    ) -> None:
        """`journals` is None where nothing outlives the process, `dead_letter` where nobody
        republishes what has died."""
        self._touch = touch
        self._dead_letter = dead_letter
        self._journals = journals

    def define(self, spec: QueueSpec, owner: Owner | None) -> QueueDefinition:
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

    def redefine(self, queue: ServedQueue, definition: QueueDefinition) -> None:
        raise AssertionError(f"queue '{queue.name}' is here, and nowhere else")

    def end(self, queue: ServedQueue) -> None:
        assert isinstance(queue, Queue), "it was made here"
        for consumer in queue.consumers:
            queue.detach(consumer)
        queue.purge()
        if queue.journal is not None:
            queue.journal.drop()

    def make_with(self, journal: Journal | None, definition: QueueDefinition, vhost: str) -> Queue:
        """With a journal that somebody else has made or found."""
        dead_letter = self._dead_letter
        return Queue(
            definition.spec,
            touch=self._touch,
            definition=definition,
            journal=journal,
            spill=self._journals.spill if self._journals else None,
            on_crash=partial(crashed, vhost),
            dead_letter=partial(dead_letter, vhost) if dead_letter is not None else None,
        )


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
