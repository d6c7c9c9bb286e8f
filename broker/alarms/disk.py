"""The disk alarm: raised while less is free where the data are than must be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from fluffle.broker.alarms.alarms import Alarms
from fluffle.broker.base.clock import Timer
from fluffle.broker.base.logs import event
from fluffle.storage import reserve

PERIOD_S = 1.0
"""A disk that takes 2 GB/s, and is written to by others too, loses that much in between."""

ROOM_FOR_RESERVE_BYTES = 2 * reserve.RESERVED_BYTES
"""Above the limit: a reserve must not raise the alarm by itself."""

logger = logging.getLogger(__name__)


class DiskWatch:
    """Compares the space that is free with a limit, once a second, and keeps a reserve of it.

    Quorum queues may need more than that, for what their members elsewhere have under way.
    """

    __slots__ = ("_alarms", "_call_later", "_folder", "_timer", "has_room")

    def __init__(
        self,
        alarms: Alarms,
        call_later: Callable[[float, Callable[[], None]], Timer],
        folder: Path,
    ) -> None:
        """The limit is that of the alarms."""
        self._alarms = alarms
        self._call_later = call_later
        self._folder = folder
        self.has_room: Callable[[], bool] = _always
        """Whether there is room for quorum queues to grow."""
        self._timer: Timer | None = None

    def start(self) -> None:
        """Look now and from now on."""
        available = self.look()
        if (
            available is not None
            and self._timer is not None  # not at once: a start has other things to do
            and available >= self._alarms.watermarks.disk_free_bytes_min + ROOM_FOR_RESERVE_BYTES
        ):
            reserve.keep(self._folder)
        self._timer = self._call_later(PERIOD_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> int | None:
        """Measure how much is free; what cannot be seen changes nothing."""
        available = free_bytes(self._folder)
        if available is not None:
            has_room = self.has_room()
            is_low = available < self._alarms.watermarks.disk_free_bytes_min or not has_room
            if self._alarms.is_raised("disk") != is_low:
                self._notify(available, is_low=is_low, has_room=has_room)
        return available

    def _notify(self, available: int, *, is_low: bool, has_room: bool) -> None:
        event(
            logger,
            logging.WARNING if is_low else logging.INFO,
            "alarm_raised" if is_low else "alarm_cleared",
            resource="disk",
            free_bytes=available,
            limit_bytes=self._alarms.watermarks.disk_free_bytes_min,
            quorum_queues_have_room=has_room,
        )
        self._alarms.set("disk", low=is_low)


def _always() -> bool:
    return True


def free_bytes(folder: Path) -> int | None:
    """Return what this process may still write there; None when the folder cannot be read."""
    try:
        return reserve.free_bytes(folder)
    except OSError:
        return None
