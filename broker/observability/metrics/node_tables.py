"""Tables about the node as a whole, by RabbitMQ's families of one row each."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path

from fluffle.broker.alarms.disk import free_bytes
from fluffle.broker.alarms.memory import resident_bytes
from fluffle.broker.base.clock import Clock
from fluffle.broker.config.config import Config
from fluffle.broker.core.services import Services
from fluffle.broker.observability.metrics.tables import COUNTER, Column, Kind, Reading, Table

PROTOCOL = "amqp091"
OPEN_FILES = Path("/proc/self/fd")


def columns_of(
    family: str, *columns: tuple[str, str] | tuple[str, str, Kind]
) -> tuple[Column, ...]:
    """Name, help, and the kind if it is no gauge."""
    return tuple(Column(name, text, family, *kind) for name, text, *kind in columns)


CHURN = columns_of(
    "connection_churn_metrics",
    ("connections_opened", "Total number of connections opened", COUNTER),
    ("connections_closed", "Total number of connections closed", COUNTER),
    ("channels_opened", "Total number of channels opened", COUNTER),
    ("channels_closed", "Total number of channels closed", COUNTER),
    ("queues_declared", "Total number of queues declared", COUNTER),
    ("queues_created", "Total number of queues created", COUNTER),
    ("queues_deleted", "Total number of queues deleted", COUNTER),
)
LOGINS = columns_of(
    "auth_attempt_metrics",
    ("auth_attempts", "Total number of authentication attempts", COUNTER),
    ("auth_attempts_succeeded", "Total number of successful authentication attempts", COUNTER),
    ("auth_attempts_failed", "Total number of failed authentication attempts", COUNTER),
)
USE = columns_of(
    "node_coarse_metrics",
    ("process_open_fds", "Open file descriptors"),
    ("process_resident_memory_bytes", "Memory used in bytes"),
    ("disk_space_available_bytes", "Disk space available in bytes"),
)
LIMITS = columns_of(
    "node_metrics",
    ("process_max_fds", "Open file descriptors limit"),
    ("resident_memory_limit_bytes", "Memory high watermark in bytes"),
    ("disk_space_available_limit_bytes", "Free disk space low watermark in bytes"),
    ("erlang_uptime_seconds", "Node uptime"),
)
DISK = columns_of(
    "node_persister_metrics",
    ("io_sync_ops", "Total number of I/O sync operations", COUNTER),
    ("io_sync_time_seconds", "Total I/O sync time", COUNTER),
    ("io_write_bytes", "Total number of I/O bytes written", COUNTER),
)
"""Each commit is one wait for the disk, so RabbitMQ's names for those tell of them."""


class NodeTables:
    """Tables about one node as a whole."""

    __slots__ = ("_clock", "_config", "_services", "_started_ms")

    def __init__(self, services: Services, config: Config, clock: Clock) -> None:
        self._services = services
        self._config = config
        self._clock = clock
        self._started_ms = clock.now_ms()

    @property
    def all(self) -> tuple[Table, ...]:
        return (
            one_row(CHURN, self._churn),
            one_row(LOGINS, self._logins, protocol=PROTOCOL),
            one_row(USE, self._use),
            one_row(LIMITS, self._limits),
            one_row(DISK, self._disk),
        )

    def _churn(self) -> tuple[int, ...]:
        traffic = self._services.runtime.traffic
        declared = [vhost.counts for vhost in self._services.vhosts.values()]
        return (
            traffic.connections_opened,
            traffic.connections_closed,
            traffic.channels_opened,
            traffic.channels_closed,
            *(sum(map(attrgetter(what), declared)) for what in ("declared", "created", "deleted")),
        )

    def _logins(self) -> tuple[int, ...]:
        succeeded, failed = (
            self._services.runtime.traffic.logins_succeeded,
            self._services.runtime.traffic.logins_failed,
        )
        return succeeded + failed, succeeded, failed

    def _use(self) -> tuple[float | None, ...]:
        return open_files(), resident_bytes(), free_bytes(self._config.data_dir)

    def _limits(self) -> tuple[float | None, ...]:
        files_max, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        marks, uptime_ms = self._services.alarms.watermarks, self._clock.now_ms() - self._started_ms
        return files_max, marks.memory_bytes_max, marks.disk_free_bytes_min, uptime_ms / 1_000

    def _disk(self) -> tuple[float, ...]:
        done = self._services.runtime.commits.done
        return done.commits, done.seconds, done.written_bytes


def one_row(
    columns: tuple[Column, ...], read: Callable[[], tuple[float | None, ...]], **labels: str
) -> Table:
    return Table(columns, partial(row_of, read, labels))


def row_of(
    read: Callable[[], tuple[float | None, ...]], labels: dict[str, str]
) -> Iterator[Reading]:
    yield Reading(labels, read())


def open_files() -> int | None:
    """None where the system does not tell.  Linux does from 6.2 on without listing them."""
    if not OPEN_FILES.exists():
        return None
    return OPEN_FILES.stat().st_size or sum(1 for _ in OPEN_FILES.iterdir())
