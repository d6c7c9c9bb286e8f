"""A node as a process: signals, readiness, the file that says where it listens, its exit code.

Everything that concerns the whole process (the collector, the switch interval, signal handlers) is
here, because a node can also live inside another process.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from fluffle.broker.alarms import keep_buffers
from fluffle.broker.base.errors import NodeMustStop, StartFailed
from fluffle.broker.base.logs import event
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.config.listeners import listeners_of
from fluffle.broker.definitions.file_format import DefinitionsError
from fluffle.broker.process.data_directory import (
    LOCK_FILE,
    NODE_FILE,
    lock,
    node_pid,
    write_node_file,
)
from fluffle.broker.process.sockets import cannot_listen
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.errors import StorageError

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(state: str, environment: Mapping[str, str]) -> bool:
    """Send `state` to the manager that started us; whether there is one.

    The socket is named by NOTIFY_SOCKET; `@` at its start stands for the zero byte of an abstract
    name.  OSError when it cannot be reached.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)
    return True


GC_THRESHOLDS = (10_000, 1, 25_000)
"""Full collections become rare: one looks at all objects in one turn, and what piles up in a broker
are bytes, which the collector skips.  They must come, for members and leaderships of quorum queues
that have ended are cycles.  The third number counts the other collections, `YoungCollector`'s too:
that is some 40 minutes of work (Python 3.14.0 to 3.14.4 ignore it: there each collection looks at a
part of the old objects).  Other collections look at 30,000 objects that have come, for some
milliseconds of one turn, and at those that have taken the places of others (`YoungCollector`)."""

YOUNG_INTERVAL_S, YOUNG_CPU_S = 0.1, 0.02
"""How long after a turn it is asked whether the loop has worked for so long since young objects
were collected: some thousand have come in that time."""

SWITCH_INTERVAL_S = 0.0005
"""A storage thread that wants the interpreter back waits for so long, not for the default 5 ms."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SIGNAL_BASE = 128

logger = logging.getLogger(__name__)


class YoungCollector:
    """Timer that has young objects collected while they are few.

    The interpreter collects once so many more were made than freed.  Where each new object takes
    the place of an old one, as with messages that are retained again and again, that is never, and
    then a few more have it look at hundreds of thousands in one turn of the loop.

    A turn starts the timer: a node without work has none.
    """

    def __init__(
        self, turn: Turn, call_later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._watchers = turn.watchers
        self._call_later = call_later
        self._collected_at_s = time.thread_time()

    def start(self) -> None:
        self._watchers.add(self._on_turn)

    def _on_turn(self) -> None:
        self._watchers.discard(self._on_turn)
        self._call_later(YOUNG_INTERVAL_S, self._look)

    def _look(self) -> None:
        self.collect_after(time.thread_time())
        self.start()

    def collect_after(self, cpu_s: float) -> bool:
        """Collect if the thread has worked long enough by that time of its processor."""
        is_due = cpu_s - self._collected_at_s >= YOUNG_CPU_S
        if is_due:
            self._collected_at_s = cpu_s
            gc.collect(1)
        return is_due


class ManagedNode(Protocol):
    """The methods of a node that its process calls."""

    addresses: dict[str, tuple[str, int]]
    """Bound addresses by protocol; complete once `start` returns."""

    @property
    def turn(self) -> Turn:
        """Turns of the node, once it has been started."""

    async def start(self) -> None:
        """Accept connections.  OSError when an address cannot be bound."""

    def reload(self) -> None:
        """Read the certificates again."""

    async def stop(self, reason: str) -> None:
        """Close every connection, saying why, and let go of everything."""


def run(config: Config, make_node: Callable[[Config], ManagedNode]) -> int:
    """Run a node until SIGTERM, SIGINT or SIGHUP; the exit code of the process.

    The first signal stops the node in order, the second ends the process where it stands.  To a
    node with certificates and without a terminal that could close, SIGHUP says: read them again.
    """
    tune_interpreter()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(config, make_node(config)))
    except StartFailed as error:
        event(logger, logging.ERROR, "start_failed", reason=error)
        return EXIT_FAILED
    return EXIT_OK


def end_process(error: Exception) -> None:
    """End a process whose node cannot be relied on any more, where it stands, so that it confirms
    nothing false.

    What was confirmed is on disk, and the next start finds it.
    """
    if isinstance(
        error, StorageError | NodeMustStop
    ):  # nothing of ours is wrong, and it says what is
        event(logger, logging.CRITICAL, "fatal", reason=error)
    else:
        where = "".join(traceback.format_exception(error))
        event(logger, logging.CRITICAL, "fatal", reason=error, traceback=where)
    logging.shutdown()
    os._exit(EXIT_FAILED)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is installed."""
    try:
        import uvloop  # noqa: PLC0415  optional
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _serve(config: Config, node: ManagedNode) -> None:
    stop_signal = _await_signals(asyncio.get_running_loop())
    with _take_data_dir(config.data_dir):
        await _serve_until(stop_signal, config, node)


async def _serve_until(stop_signal: asyncio.Future[str], config: Config, node: ManagedNode) -> None:
    """Run a node while its data directory is locked."""
    node_file = config.data_dir / NODE_FILE
    try:
        is_started = await _start(node, stop_signal)
    except OSError as error:
        wanted = listeners_of(config)
        failed = next(each for each in wanted if each.name not in node.addresses)
        raise cannot_listen(f"--{failed.kind.option}", failed.address, error) from error
    except (DefinitionsError, StorageError) as error:
        raise StartFailed(str(error)) from error
    if not is_started:
        event(logger, logging.INFO, "stopped", node=config.node_name, signal=stop_signal.result())
        return
    if has_certificates(config) and not has_terminal():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, node.reload)
    gc.freeze()  # what lives now will stay; to look at all of it would hold clients up
    YoungCollector(node.turn, asyncio.get_running_loop().call_later).start()
    try:
        write_node_file(node_file, config.node_name, config.version, node.addresses)
    except OSError as error:
        await node.stop("start failed")
        raise _cannot_keep(config.data_dir, error) from error
    _notify_manager(READY)
    bound = {name: ListenAddress(*address) for name, address in node.addresses.items()}
    event(logger, logging.INFO, "ready", node=config.node_name, **bound)
    name = await stop_signal
    event(logger, logging.INFO, "stopping", signal=name)
    _notify_manager(STOPPING)
    await node.stop("shutdown")
    if node_pid(node_file) == os.getpid():
        node_file.unlink()
    event(logger, logging.INFO, "stopped", node=config.node_name)


async def _start(node: ManagedNode, stop_signal: asyncio.Future[str]) -> bool:
    """Start a node; False if a signal came first: one of a cluster may wait for the others long.

    Raises as `ManagedNode.start`.
    """
    running = asyncio.current_task()
    assert running is not None
    is_starting = True

    def give_up(_signal: object) -> None:
        if is_starting:
            running.cancel()

    stop_signal.add_done_callback(give_up)
    try:
        await node.start()
    except asyncio.CancelledError:
        if not stop_signal.done():
            raise
        running.uncancel()
        await node.stop("shutdown")
        return False
    finally:
        is_starting = False
        stop_signal.remove_done_callback(give_up)
    return True


def tune_interpreter() -> None:
    """Settings for a process that is a broker, before there is much in it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_buffers()


def _await_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Future[str]:
    """Resolves to the name of the first signal to stop; the second one ends the process.

    A terminal that closes may send several SIGHUP, which ask for the same thing.  Under nohup it is
    ignored, and stays so.
    """
    first: asyncio.Future[str] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if not first.done():
            first.set_result(number.name)
        elif number != signal.SIGHUP:
            os._exit(EXIT_SIGNAL_BASE + number)

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    return first


def has_certificates(config: Config) -> bool:
    """True if the node has certificates, for clients or for other nodes."""
    links = config.cluster is not None and config.cluster.tls_cert is not None
    clients = config.tls_listen is not None or config.mqtt.has_certificates()
    return links or clients or config.management_tls


def has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _take_data_dir(data_dir: Path) -> BinaryIO:
    """Make a directory and lock it for this node, until what is returned is closed.

    It is made for its owner alone: messages and password hashes are in it.
    """
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        data_dir.mkdir(mode=0o700, exist_ok=True)
        if os.statvfs(data_dir).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if not os.access(data_dir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return lock(data_dir / LOCK_FILE)
    except BlockingIOError as error:
        pid = node_pid(data_dir / NODE_FILE)
        holder = f" (process {pid})" if pid else ""
        raise StartFailed(
            f"another node{holder} keeps its data in {data_dir.resolve()}; stop it, or name "
            "another place with --data-dir"
        ) from error
    except OSError as error:
        raise _cannot_keep(data_dir, error) from error


def _cannot_keep(data_dir: Path, error: OSError) -> StartFailed:
    remedy = "name another place with --data-dir"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        remedy = f"free some space where it is, or {remedy}"
    return StartFailed(f"cannot keep data in {data_dir} ({error.strerror}); {remedy}")


def _notify_manager(state: str) -> None:
    """A service manager that does not listen is worth a line, not the end of the broker."""
    try:
        notify(state, os.environ)
    except OSError as error:
        event(logger, logging.WARNING, "notify_failed", state=state, reason=error)
