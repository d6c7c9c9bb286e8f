"""Verbs node.*: maintenance of a node, and settings that change while it runs.

Others lead what it has led, its clients go elsewhere and new ones find nobody; it remains a member
of its groups.  That is over with `node.revive`, or with the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from fluffle.broker.admin.context import DeferredRow, NodeContext, Row
from fluffle.broker.base.errors import (
    BrokerError,
    BrokerFailed,
    ConnectionForced,
    PreconditionFailed,
)
from fluffle.broker.base.logs import event, set_level
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.config.config import memory_bytes
from fluffle.broker.core.connections import Connections
from fluffle.broker.core.forced_closes import PIECE, close_connection
from fluffle.broker.runtime.background import in_pieces

REASON = "Node was put into maintenance mode"

logger = logging.getLogger(__name__)


class ClientListener(Protocol):
    """Listening sockets of a node for clients."""

    def suspend(self) -> None:
        """Close them, and those that are to listen from now on."""

    async def resume(self) -> None:
        """Listen again.  OSError where another process does by now."""


class Maintenance:
    """Maintenance mode of one node: whether it is drained, and the steps of draining and
    reviving."""

    __slots__ = ("_alone", "_company", "_connections", "_listener", "_tasks", "is_draining")

    def __init__(
        self, listener: ClientListener, connections: Connections, company: ClusterView
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._company = company
        self._tasks: set[asyncio.Task[Row]] = set()
        self._alone = asyncio.Lock()
        """Held by whoever drains or revives: what is asked for meanwhile comes after it, or those
        would be sent away who were let in again."""
        self.is_draining = False
        """From the moment that it was asked for until it is taken back."""

    async def drain(self) -> Row:
        """Let nobody in, have others lead, and close what is open; how many connections."""
        async with self._alone:
            self.is_draining = True
            self._listener.suspend()
            cluster = self._company.cluster
            if cluster is not None:
                cluster.room.set_aside()
                await cluster.hand_over()
            closed = await self._close_all()
        event(logger, logging.INFO, "drained", connections=closed)
        return {"closed": closed}

    async def _close_all(self) -> int:
        closed = 0
        for piece in in_pieces(self._connections, PIECE):
            for connection in piece:
                close_connection(connection, ConnectionForced(REASON))
                closed += 1
            await asyncio.sleep(0)
        return closed

    async def revive(self) -> Row:
        """Take part again; PreconditionFailed where it cannot listen."""
        async with self._alone:
            try:
                await self._listener.resume()
            except OSError as error:
                why = error.strerror or str(error)
                raise PreconditionFailed(f"cannot listen again ({why})") from error
            cluster = self._company.cluster
            if cluster is not None:
                cluster.room.take_back()
            self.is_draining = False
        event(logger, logging.INFO, "revived")
        return {}

    def do(
        self, work: Coroutine[Any, Any, Row], answer: Callable[[Row | BrokerError], None]
    ) -> None:
        """One of these, from now on."""

        def done(task: asyncio.Task[Row]) -> None:
            self._tasks.discard(task)
            answer(outcome_of(task))

        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(done)


def outcome_of(task: asyncio.Task[Row]) -> Row | BrokerError:
    """Of one that is done."""
    if task.cancelled():
        return BrokerFailed()
    error = task.exception()
    if isinstance(error, BrokerError):
        return error
    if error is not None:
        logger.error("maintenance has failed", exc_info=error)
        return BrokerFailed()
    return task.result()


def maintenance_of(context: NodeContext) -> Maintenance:
    """PreconditionFailed where nobody listens."""
    if context.maintenance is None:
        raise PreconditionFailed("this node has no clients to be kept from")
    return context.maintenance


def drain(context: NodeContext) -> DeferredRow:
    """Serve nobody any more; the node stays a member of what it is a member of."""
    maintenance = maintenance_of(context)
    return DeferredRow(lambda answer: maintenance.do(maintenance.drain(), answer))


def revive(context: NodeContext) -> DeferredRow:
    """Take that back."""
    maintenance = maintenance_of(context)
    return DeferredRow(lambda answer: maintenance.do(maintenance.revive(), answer))


LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": logging.CRITICAL + 10,
}
"""RabbitMQ's words, as far as there is a difference here."""


def set_memory_watermark(
    context: NodeContext, *, share: float | None = None, size_bytes: int | None = None
) -> Row:
    """A share of the memory that there is for this process, or so many bytes."""
    context.alarms.watermarks.memory_bytes_max = limit = limit_bytes(share, size_bytes)
    return {"memory_bytes_max": limit}


def set_disk_free_limit(
    context: NodeContext, *, share: float | None = None, size_bytes: int | None = None
) -> Row:
    """So many bytes, or as many as a share of the memory."""
    context.alarms.watermarks.disk_free_bytes_min = limit = limit_bytes(share, size_bytes)
    return {"disk_free_bytes_min": limit}


def limit_bytes(share: float | None, size_bytes: int | None) -> int:
    """PreconditionFailed for both, for neither, and for what is below zero."""
    if (share is None) == (size_bytes is None):
        raise PreconditionFailed("give a number of bytes, or a share of the memory")
    limit = size_bytes if size_bytes is not None else int((share or 0) * memory_bytes())
    if limit < 0:
        raise PreconditionFailed("a limit is not below zero")
    return limit


def set_log_level(_parts: NodeContext, *, level: str) -> Row:
    """Set the level of all that this process logs."""
    if level not in LEVELS:
        raise PreconditionFailed(f"there is no level '{level}'; there are {', '.join(LEVELS)}")
    set_level(LEVELS[level])
    return {}


CHANGES: Mapping[str, Callable[..., Any]] = {
    "node.drain": drain,
    "node.revive": revive,
    "node.memory_watermark": set_memory_watermark,
    "node.disk_free_limit": set_disk_free_limit,
    "node.log_level": set_log_level,
}
