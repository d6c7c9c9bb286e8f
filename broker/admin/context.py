"""The parts of a node that verbs work on, and the results that they return.

What would hold up the event loop is found out in a thread beside it: `in_thread`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from fluffle.broker.access.access import Access
from fluffle.broker.admin.maintenance import Maintenance
from fluffle.broker.alarms import Alarms
from fluffle.broker.base.errors import BrokerError, BrokerFailed, NotFound
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.config.config import Config
from fluffle.broker.core.connections import Connections
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.metadata.metadata import Decide, Metadata
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.runtime.background import Task
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.transfer.converter import Converter
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import ClusterService
    from fluffle.broker.statistics.statistics import Statistics


T = TypeVar("T")

logger = logging.getLogger(__name__)

Row: TypeAlias = dict[str, Any]
"""Answer in JSON's values; the names are RabbitMQ's."""

Rows: TypeAlias = Iterator[Row | Deferred[None]]
"""Many of them, made when they are taken: others change the node in between.  What has to be waited
for before there are more stands among them."""

RowWait: TypeAlias = Generator[Deferred[None], None, T]
"""Yields what has to be waited for, and returns what comes of it."""

Work: TypeAlias = Generator[int | None, None, Row]
"""Long work as a background task, which returns its result or raises `BrokerError`."""


class DeferredRow(NamedTuple):
    """A result that is not there yet: `begin` calls its argument with it, now or later."""

    begin: Callable[[Callable[[Row | BrokerError], None]], None]


Result: TypeAlias = Row | Rows | DeferredRow


class PendingRow:
    """A result that may take its time, and the callback that waits for it."""

    def __init__(self) -> None:
        self._outcome: Row | BrokerError | None = None
        self._answer: Callable[[Row | BrokerError], None] | None = None

    def answer(self, outcome: Row | BrokerError) -> None:
        """Give the outcome to the waiting caller."""
        self._outcome = outcome
        if self._answer is not None:
            self._answer(outcome)

    def _begin(self, answer: Callable[[Row | BrokerError], None]) -> None:
        self._answer = answer
        if self._outcome is not None:
            answer(self._outcome)

    @property
    def result(self) -> Row | DeferredRow:
        """The row that has come of it, or will."""
        return self._outcome if isinstance(self._outcome, dict) else DeferredRow(self._begin)


class NodeContext(NamedTuple):
    """The parts of one node that can be administered."""

    runtime: Runtime
    config: Config
    catalogue: Catalogue
    metadata: Metadata
    connections: Connections
    alarms: Alarms
    addresses: Mapping[str, tuple[str, int]]
    started_ms: int
    cluster_view: ClusterView
    converter: Converter | None = None
    """None where no queue can be changed into another type."""
    statistics: Statistics | None = None
    """Statistics, or None where they are switched off."""
    maintenance: Maintenance | None = None
    """None where there are no clients to be kept from."""

    def later(self, work: Work) -> DeferredRow:
        """Have it done in pieces, from the next turn on."""

        def begin(answer: Callable[[Row | BrokerError], None]) -> None:
            def task() -> Task:
                try:
                    row = yield from work
                except BrokerError as error:
                    answer(error)
                else:
                    answer(row)

            self.runtime.background_tasks.add(task(), lambda _error: answer(BrokerFailed()))

        return DeferredRow(begin)

    def change(self, decide: Decide, row: Callable[[], Row] = dict) -> Row | DeferredRow:
        """Have definitions changed; the `row` that is there once they are."""
        changing = PendingRow()
        self.metadata.change(decide, lambda: changing.answer(row()), changing.answer)
        return changing.result

    @property
    def cluster(self) -> ClusterService | None:
        """None for a node that is alone."""
        return self.cluster_view.cluster

    @property
    def access(self) -> Access:
        return self.catalogue.access

    def vhost(self, name: str) -> VirtualHost:
        """The virtual host of that name.  NotFound."""
        vhost = self.catalogue.vhosts.get(name)
        if vhost is None:
            raise NotFound(f"vhost '{name}' does not exist")
        return vhost

    def vhosts(self, name: str | None) -> tuple[VirtualHost, ...]:
        """The one of that name, or all.  NotFound."""
        return tuple(self.catalogue.vhosts.values()) if name is None else (self.vhost(name),)


def in_own_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run `work` in a thread that ends with it; the future has its result."""
    thread = ThreadPoolExecutor(1)  # not the loop's: nodes in a test share one loop
    working = asyncio.get_running_loop().run_in_executor(thread, work)
    thread.shutdown(wait=False)
    return working


def in_thread(look: Callable[[], T], row: Callable[[T], Row]) -> DeferredRow:
    """Run `look` in a thread; `row` makes the answer of its result, in the loop."""

    def begin(answer: Callable[[Row | BrokerError], None]) -> None:
        def done(looking: asyncio.Future[T]) -> None:
            try:
                found: Row | BrokerError = row(looking.result())
            except (Exception, asyncio.CancelledError):
                logger.exception("what was asked for in a thread has failed")
                found = BrokerFailed()
            answer(found)

        in_own_thread(look).add_done_callback(done)

    return DeferredRow(begin)
