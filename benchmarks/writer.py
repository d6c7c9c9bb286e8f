"""`python -m benchmarks.writer`: a thread that commits against a process that does.

One batch is under way at a time, as with one publisher that waits for its confirm; batches of one
message, a hundred and a thousand stand for windows.  The loop beside it is idle or runs callbacks
of a millisecond one after the other, as a node does that is at its limit.  In the last scenario
nothing is consumed and the hot window is small, so that each commit moves as much as it brings.
"""

import asyncio
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from struct import Struct

import uvloop

from benchmarks.machine import anonymous_bytes, cpu_s
from benchmarks.report import markdown_table
from fluffle.storage.disk import Disk, WriteTransaction
from fluffle.storage.environment import open_environment, read_environment
from fluffle.storage.errors import StorageError
from fluffle.storage.log import UpkeepTuning
from fluffle.storage.store import Batch, Result, Store, Writer, WriterThread, commit

MESSAGE_BYTES = 100
CALLBACK_S = 0.001
LENGTH = Struct(">I")
SOCKET_BYTES = 1 << 23
"""More than any batch here, so that the loop never waits while it sends one."""


class WriterProcess:
    """Commits in a process of its own, which ends with this one."""

    def __init__(
        self, directory: Path, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]
    ) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        command = [sys.executable, "-m", "benchmarks.writer", str(directory), str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._socket = ours
        self._loop = loop
        self._wake = wake
        self._result: Result | None = None
        loop.add_reader(ours, self._read)

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, work: WriteTransaction) -> None:
        body = pickle.dumps(work, protocol=5)
        self._socket.sendall(LENGTH.pack(len(body)) + body)

    def take(self) -> Result | None:
        result, self._result = self._result, None
        return result

    def stop(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._process.wait()

    def _read(self) -> None:
        self._result = pickle.loads(self._socket.recv(65_536))
        self._wake()


def serve(directory: Path, descriptor: int) -> None:
    """The writer process: commit what comes, until nothing can come any more."""
    environment = open_environment(directory)
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as stream:
        while head := stream.read(LENGTH.size):
            work = pickle.loads(stream.read(*LENGTH.unpack(head)))
            connection.sendall(pickle.dumps(commit(environment, work)))


PROCESS = "process"
KINDS = {"thread, 5 ms": 0.005, "thread, 0.5 ms": 0.0005, PROCESS: 0.005}
"""Kinds of committing thread or process, with the interpreter's switch interval in seconds."""


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    messages: int
    """A batch."""
    entries: int
    """Into which a batch is cut."""
    is_consumed: bool


SCENARIOS = (
    Scenario("1 message", 1, 1, True),
    Scenario("100 messages", 100, 1, True),
    Scenario("1,000 messages", 1000, 1, True),
    Scenario("1,000 messages in 50 queues", 1000, 50, True),
    Scenario("1,000 messages in 50 queues, all moved", 1000, 50, False),
)
MOVING = UpkeepTuning(window_bytes=1 << 19)


@dataclass(slots=True)
class Run:
    commits_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """A commit, of all processes, without what the busy loop burns."""
    loop_share: float
    """How many of the callbacks that fit into the time were run."""
    memory_mb: float
    """Memory of all processes, without mapped files."""


class Driver:
    """Submits a batch, waits until it is durable, submits the next."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store, scenario: Scenario) -> None:
        self._loop = loop
        self._store = store
        self._scenario = scenario
        self._payload = bytes(MESSAGE_BYTES * scenario.messages // scenario.entries)
        self._index = 0
        self._began = 0.0
        self.latencies: list[float] = []
        self.is_running = asyncio.Event()
        """Set once the committing side has begun: a process takes a while to start."""
        self.done: asyncio.Future[None] | None = None

    def submit(self) -> None:
        batch = Batch()
        self._index += 1
        for group in range(1, self._scenario.entries + 1):
            batch.append(group, self._index, self._payload, tag=self._scenario.messages)
            if self._scenario.is_consumed and self._index > 2:
                batch.delete(group, self._index - 2, self._index - 1)
        self._began = time.perf_counter()
        self._store.submit(batch, self._on_durable)
        self._store.flush()

    def _on_durable(self) -> None:
        self.latencies.append(time.perf_counter() - self._began)
        self.is_running.set()
        if self.done is None:
            self._loop.call_soon(self.submit)
        elif not self.done.done():
            self.done.set_result(None)


class Busy:
    """Callbacks that keep the loop, one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.runs = 0
        self.is_running = True

    def run(self) -> None:
        if self.is_running:
            until = time.thread_time() + CALLBACK_S
            while time.thread_time() < until:
                sum(range(100))
            self.runs += 1
            self._loop.call_soon(self.run)


async def drive(
    store: Store, scenario: Scenario, seconds: float, pids: list[int], *, busy: bool
) -> Run:
    loop = asyncio.get_running_loop()
    driver, load = Driver(loop, store, scenario), Busy(loop)
    driver.submit()
    await driver.is_running.wait()
    if busy:
        load.run()
    await asyncio.sleep(seconds / 4)
    driver.latencies.clear()
    runs, cpu, began = load.runs, cpu_s(pids), time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed, cpu, runs = time.perf_counter() - began, cpu_s(pids) - cpu, load.runs - runs
    latencies = sorted(driver.latencies)
    driver.done = loop.create_future()
    await driver.done
    load.is_running = False
    return Run(
        len(latencies) / elapsed,
        median(latencies) * 1e3,
        latencies[int(len(latencies) * 0.99)] * 1e3,
        (cpu - runs * CALLBACK_S) / len(latencies) * 1e6,
        runs * CALLBACK_S / elapsed,
        anonymous_bytes(pids) / 1e6,
    )


def measure(kind: str, scenario: Scenario, seconds: float, *, busy: bool) -> Run:
    """Measure one run in a fresh directory."""
    sys.setswitchinterval(KINDS[kind])
    tuning = UpkeepTuning() if scenario.is_consumed else MOVING
    loop = uvloop.new_event_loop()
    pids = [os.getpid()]
    with tempfile.TemporaryDirectory() as name:
        open_environment(Path(name)).close()

        def make_writer(disk: Disk, wake: Callable[[], None]) -> Writer:
            if kind != PROCESS:
                return WriterThread(disk, lambda: loop.call_soon_threadsafe(wake))
            writer = WriterProcess(Path(name), loop, wake)
            pids.append(writer.pid)
            return writer

        open_it = read_environment if kind == PROCESS else open_environment
        disk = open_it(Path(name))
        store = Store(disk, make_writer, on_fatal=_raise, tuning=tuning)
        run = loop.run_until_complete(drive(store, scenario, seconds, pids, busy=busy))
        store.close()
    loop.close()
    return run


def _raise(error: StorageError) -> None:
    raise error


def middle(runs: list[Run]) -> list[str]:
    """The median of each figure, as cells of the table."""
    rates, p50s, p99s, cpus, shares, sizes = zip(*map(astuple, runs), strict=True)
    return [
        f"{median(rates):,.0f}",
        f"{median(p50s):.2f}",
        f"{median(p99s):.2f}",
        f"{median(cpus):.0f}",
        f"{median(shares):.0%}",
        f"{median(sizes):.0f}",
    ]


def main() -> None:
    seconds, repetitions = 2.0, int(sys.argv[1]) if len(sys.argv) > 1 else 3
    head = ["batch", "loop", "writer", "commits/s", "p50 ms", "p99 ms", "CPU µs", "loop ran", "MB"]
    rows = []
    for scenario in SCENARIOS:
        for busy in (False, True):
            runs: dict[str, list[Run]] = {kind: [] for kind in KINDS}
            for _ in range(repetitions):
                for kind in KINDS:  # they take turns, so that whatever happens meets all
                    runs[kind].append(measure(kind, scenario, seconds, busy=busy))
            loop = "busy" if busy else "idle"
            rows += [[scenario.name, loop, kind, *middle(runs[kind])] for kind in KINDS]
    print(markdown_table(head, rows))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        serve(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
