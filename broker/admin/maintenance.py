"""Maintenance mode of a node: drained, and revived.

Others lead what it has led, its clients go elsewhere and new ones are not let in; it remains a
member of its groups.  That is over with `node.revive`, or with the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from fluffle.broker.base.errors import (
    BrokerError,
    BrokerFailed,
    NodeStops,
    PreconditionFailed,
)
from fluffle.broker.base.logs import event
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.core.connections import FORCED_CLOSES_AT_ONCE, Connections, close_connection
from fluffle.broker.core.listener import Listener
from fluffle.broker.runtime.background import in_pieces

REASON = "Node was put into maintenance mode"

Outcome: TypeAlias = dict[str, Any]
"""A row of what was done, as verbs answer."""

logger = logging.getLogger(__name__)


class Maintenance:
    """Maintenance mode of one node: whether it is drained, and the steps of draining and
    reviving."""

    def __init__(
        self, listener: Listener, connections: Connections, cluster_view: ClusterView
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._cluster_view = cluster_view
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._alone = asyncio.Lock()
        """Lock of the steps of draining and reviving: later requests wait, or clients let in again
        would be closed."""
        self.is_draining = False
        """From the moment that it was asked for until it is taken back."""

    async def drain(self) -> Outcome:
        """Refuse new clients, have others lead, and close open connections; returns how many were
        closed."""
        async with self._alone:
            self.is_draining = True
            self._listener.suspend()
            cluster = self._cluster_view.cluster
            if cluster is not None:
                cluster.room.set_aside()
                await cluster.hand_over()
            closed = await self._close_all()
        event(logger, logging.INFO, "drained", connections=closed)
        return {"closed": closed}

    async def _close_all(self) -> int:
        closed = 0
        for piece in in_pieces(self._connections, FORCED_CLOSES_AT_ONCE):
            for connection in piece:
                close_connection(connection, NodeStops(REASON))
                closed += 1
            await asyncio.sleep(0)
        return closed

    async def revive(self) -> Outcome:
        """Take part again; PreconditionFailed where it cannot listen."""
        async with self._alone:
            try:
                await self._listener.resume()
            except OSError as error:
                why = error.strerror or str(error)
                raise PreconditionFailed(f"cannot listen again ({why})") from error
            cluster = self._cluster_view.cluster
            if cluster is not None:
                cluster.room.take_back()
            self.is_draining = False
        event(logger, logging.INFO, "revived")
        return {}

    def do(
        self, work: Coroutine[Any, Any, Outcome], answer: Callable[[Outcome | BrokerError], None]
    ) -> None:
        """Start a step in the background; `answer` gets its outcome."""

        def done(task: asyncio.Task[Outcome]) -> None:
            self._tasks.discard(task)
            answer(outcome_of(task))

        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(done)


def outcome_of(task: asyncio.Task[Outcome]) -> Outcome | BrokerError:
    """Outcome of a finished task, or the error for the client."""
    if task.cancelled():
        return BrokerFailed()
    error = task.exception()
    if isinstance(error, BrokerError):
        return error
    if error is not None:
        logger.error("maintenance has failed", exc_info=error)
        return BrokerFailed()
    return task.result()
