"""fluffle in the process of the tests: for what is compared with what RabbitMQ has answered."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Protocol
from urllib.parse import urlsplit

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.config.options import resolve
from fluffle.broker.statistics.counters import TICK_MS
from fluffle.broker.testing.cluster.cluster import ThreadedCluster
from fluffle.broker.testing.threaded import ThreadedBroker
from tests.compat.clusters import NODES
from tests.compat.replay import Answers
from tests.support.daemon import Daemon


class Serving(Protocol):
    """A broker that takes clients, wherever it is."""

    @property
    def port(self) -> int:
        """Where it takes them."""

    @property
    def data_dir(self) -> Path:
        """Where commands find it."""

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Where it listens, by protocol."""


class Embedded:
    """A broker in a thread of its own."""

    def __init__(self, broker: ThreadedBroker, data_dir: Path | None) -> None:
        self.broker = broker
        self.port = port_of(broker.url)
        self._data_dir = data_dir

    @property
    def data_dir(self) -> Path:
        assert self._data_dir is not None, "it is in memory"
        return self._data_dir

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        return self.broker.broker.node.addresses

    def pass_idle_time(self) -> None:
        """So much that everything is measured twice, and idle in between."""
        self.broker.clock.advance(seconds=2 * TICK_MS / 1000 + 1)

    def switch(self, resource: str, *, low: bool) -> None:
        """Raise or clear a resource alarm, as `scenario.Switch`."""
        self.broker.call(lambda: switch(self.broker.broker.node.parts, resource, low=low))


class EmbeddedCluster:
    """A `clusters.Cluster` in a thread of its own."""

    def __init__(self, cluster: ThreadedCluster) -> None:
        self._cluster = cluster

    def port(self, node: str) -> int:
        return port_of(self._cluster.urls[NODES.index(node)])

    def kill(self, node: str) -> None:
        self._cluster.kill(NODES.index(node))

    def stop(self, node: str) -> None:
        self._cluster.stop(NODES.index(node))

    def start(self, node: str) -> None:
        self._cluster.start(NODES.index(node))

    def switch(self, node: str, resource: str, *, low: bool) -> None:
        parts = self._cluster.cluster[NODES.index(node)].parts
        self._cluster.call(lambda: switch(parts, resource, low=low))

    def shown(self, line: str) -> str:
        for number, node in enumerate(NODES):
            line = line.replace(f"'node{number}'", f"'{node}'")
        return line


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None, url
    return port


async def switch(parts: NodeContext, resource: str, *, low: bool) -> None:
    """Move the watermark, as an operator does; the node sees at once what follows."""
    if resource == "disk":
        parts.alarms.move_disk_watermark(sys.maxsize if low else 0)
    else:
        parts.alarms.move_memory_watermark(0 if low else sys.maxsize)
    assert parts.alarms.is_raised(resource) is low


@contextmanager
def embedded(*options: str, data_dir: Path | None = None) -> Iterator[Embedded]:
    """In memory, if no directory is named; `options` as those of `fluffle serve`."""
    flags: dict[str, list[str]] = {"listen": ["127.0.0.1:0"]}
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        flags.setdefault(name, []).append(value or "yes")
    config = resolve(flags, {}).config
    with no_error_logged() as errors, ThreadedBroker(config, data_dir=data_dir) as broker:
        errors.thread = broker.call(thread_here)
        yield Embedded(broker, data_dir)


@contextmanager
def serving(data_dir: Path, answers: Answers, *options: str) -> Iterator[Serving]:
    """fluffle in this process, or in one of its own if RabbitMQ is asked in any case."""
    if not answers.is_live:
        with embedded(*options, data_dir=data_dir) as broker:
            yield broker
        return
    with Daemon(data_dir, *options) as daemon:
        yield daemon
    assert "Traceback" not in daemon.log


@contextmanager
def embedded_cluster() -> Iterator[EmbeddedCluster]:
    with no_error_logged() as errors, ThreadedCluster(nodes=len(NODES)) as cluster:
        errors.thread = cluster.call(thread_here)
        yield EmbeddedCluster(cluster)


async def thread_here() -> int:
    return get_ident()


class Errors(logging.Handler):
    """Records with a traceback, by the thread that logged them: other tests log some on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.thread: int | None = None
        """The thread of the broker, once it runs."""
        self._texts: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._texts.append((get_ident(), self.format(record)))

    @property
    def texts(self) -> list[str]:
        return [text for thread, text in self._texts if thread == self.thread]


@contextmanager
def no_error_logged() -> Iterator[Errors]:
    """Fail at the end if the broker of the thread that is named has logged a traceback."""
    errors = Errors()
    loggers = [*map(logging.getLogger, ("fluffle", "asyncio"))]
    for logger in loggers:
        logger.addHandler(errors)
    try:
        yield errors
    finally:
        for logger in loggers:
            logger.removeHandler(errors)
    assert not errors.texts, "\n".join(errors.texts)
