"""Forced closes of connections after a change of users, rights or virtual hosts: a few a turn.

That rights have to be asked for again, each connection knows at once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.runtime.background import BackgroundTasks, Task

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientConnection

PIECE = 25
"""Connections that are closed, or whose consumers are looked at, in a turn: each takes 0.1 ms, more
where there are many channels and messages."""

logger = logging.getLogger(__name__)


class ForcedCloses:
    """Those that are yet to come, in order."""

    __slots__ = ("_chores", "_due")

    def __init__(self, background_tasks: BackgroundTasks) -> None:
        self._chores = background_tasks
        self._due: deque[Callable[[], None]] = deque()

    def add(self, act: Callable[[], None]) -> None:
        """Call `act`, which raises nothing but bugs, in one of the next turns."""
        self._due.append(act)
        if len(self._due) == 1:
            self._chores.add(self._work(), self._failed)

    def _work(self) -> Task:
        while self._due:
            for _ in range(min(PIECE, len(self._due))):
                self._due[0]()
                self._due.popleft()
            yield None

    def _failed(self, _error: Exception) -> None:
        """A bug in one of them keeps the others from nothing."""
        self._due.popleft()
        self._chores.add(self._work(), self._failed)


def close_connection(connection: ClientConnection, why: BrokerError) -> None:
    """Close a connection, or cut it off if that cannot be done in order.

    AssertionError if what it believes is wrong.
    """
    try:
        connection.fail(why)
    except AssertionError:
        raise
    except Exception:
        logger.exception("%s could not be closed in order", connection.name)
        connection.drop()
