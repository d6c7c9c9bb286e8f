"""`python -m benchmarks.links`: what links between nodes cost; pings behind bulk; a node's death.

Processor time is that of both ends, which share one process and loop for that; it holds what the
kernel does for them.  For delays the other end is a process of its own.  All is in the clear.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from statistics import median
from time import perf_counter_ns, process_time_ns

import uvloop

from benchmarks.report import markdown_table
from fluffle.broker.alarms import keep_buffers
from fluffle.broker.cluster.links.identity import Boot, Identity
from fluffle.broker.cluster.links.keepalive import LinkLimits
from fluffle.broker.cluster.links.links import ClusterLinks
from fluffle.broker.cluster.ports import FrameKind, TrafficClass

SECRET = b"measured in the open"
ROUNDS = 5
FRAMES_BYTES = 32 << 20
"""Sent for a figure, or as many frames as below, if that is less."""
FRAMES_MAX = 20_000
WAITING_BYTES = 4 << 20
"""Kept in the lane, so that the network never lacks something to do."""
PINGS = 2_000
PAUSE_S = 0.0005
"""Between two."""
DEATHS = 9
SETTLED_S = LinkLimits().settled_ms / 1_000 + 0.1
"""After so long a link that is lost is dialled again at once."""
BULK_BYTES = 256 << 10
PING, PONG = b"ping", b"pong"
SIZES = {"100 B": 100, "1 KiB": 1 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
TURN_FRAMES = (1, 10)


class End:
    """A node that counts what comes, and answers pings."""

    def __init__(self, name: str) -> None:
        self.links = ClusterLinks(Identity("bench", name, Boot(1, name.encode() * 16)), SECRET)
        self.links.on_frame = self._on_frame
        self.links.on_link = self._on_link
        self.address = self.links.listen("127.0.0.1", 0)
        self.received = 0
        self.pongs: asyncio.Queue[int] = asyncio.Queue()
        """When each came, in ns."""
        self._wanted = 0
        self._changed = asyncio.Event()

    def send(self, payload: bytes, traffic: TrafficClass) -> None:
        self.links.send("b", FrameKind.SESSION, payload, traffic=traffic)

    async def linked(self, node: str) -> None:
        while not self.links.is_up(node):
            self._changed.clear()
            await self._changed.wait()

    async def receives(self, count: int) -> None:
        self._wanted = count
        while self.received < count:
            self._changed.clear()
            await self._changed.wait()

    def _on_link(self, _node: str, _is_up: bool) -> None:
        self._changed.set()

    def _on_frame(self, node: str, kind: FrameKind, payload: bytes) -> None:
        if payload == PING:
            self.links.send(node, kind, PONG, traffic=TrafficClass.URGENT)
        elif payload == PONG:
            self.pongs.put_nowait(perf_counter_ns())
        else:
            self.received += 1
        if self.received >= self._wanted:
            self._changed.set()


async def us_a_frame(size_bytes: int, turn_frames: int) -> float:
    """µs of processor time, when so many are sent in a turn of the loop."""
    one, other = End("a"), End("b")
    one.links.set_peer("b", other.address.host, other.address.port)
    other.links.set_peer("a", one.address.host, one.address.port)
    await one.linked("b")
    count = min(FRAMES_MAX, FRAMES_BYTES // size_bytes)
    payload, spent, sent = bytes(size_bytes), [], 0
    for number in range(1, ROUNDS + 1):
        start = process_time_ns()
        while sent < number * count:
            if one.links.waiting_bytes("b", TrafficClass.NORMAL) < WAITING_BYTES:
                for _ in range(turn_frames):
                    one.send(payload, TrafficClass.NORMAL)
                sent += turn_frames
            await asyncio.sleep(0)
        await other.receives(sent)
        spent.append((process_time_ns() - start) / count / 1_000)
    await one.links.stop()
    await other.links.stop()
    return median(spent)


@asynccontextmanager
async def echoed() -> AsyncIterator[tuple[End, Process]]:
    """An end that is linked with one in another process."""
    one = End("a")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.links", "--echo", str(one.address.port),
        stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    one.links.set_peer("b", "127.0.0.1", int(await process.stdout.readline()))
    await one.linked("b")
    await one.receives(1)
    try:
        yield one, process
    finally:
        await one.links.stop()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def echo(port: int) -> None:
    """The other end: says that it is there, answers pings, and forgets the rest."""
    other = End("b")
    other.links.set_peer("a", "127.0.0.1", port)
    print(other.address.port, flush=True)
    await other.linked("a")
    other.links.send("a", FrameKind.SESSION, b"there", traffic=TrafficClass.NORMAL)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def delays_us(one: End) -> list[float]:
    """From a ping to its answer, one ping after the other; in order."""
    delays = []
    for _ in range(PINGS):
        start = perf_counter_ns()
        one.send(PING, TrafficClass.URGENT)
        delays.append((await one.pongs.get() - start) / 1_000)
        await asyncio.sleep(PAUSE_S)
    return sorted(delays)


async def keep_full(one: End) -> None:
    payload = bytes(BULK_BYTES)
    while True:
        while one.links.waiting_bytes("b", TrafficClass.BULK) < WAITING_BYTES:
            one.send(payload, TrafficClass.BULK)
        await asyncio.sleep(PAUSE_S)


async def delays() -> list[tuple[str, list[float]]]:
    """Delays of pings alone, and behind as much bulk traffic as possible."""
    async with echoed() as (one, _):
        await delays_us(one)
        alone = await delays_us(one)
        filling = asyncio.create_task(keep_full(one))
        start, had = perf_counter_ns(), one.links.counters.bytes_out
        behind = await delays_us(one)
        rate = (one.links.counters.bytes_out - had) / (perf_counter_ns() - start) * 1_000
        filling.cancel()
    return [("alone", alone), (f"behind bulk of {rate:.0f} MB/s", behind)]


async def until_down_ms() -> float:
    """From SIGKILL until it is said that the link is down, after it was dialled again in vain."""
    down: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with echoed() as (one, process):
        await asyncio.sleep(SETTLED_S)
        one.links.on_link = lambda _node, _is_up: down.set_result(perf_counter_ns())
        start = perf_counter_ns()
        process.kill()
        return (await down - start) / 1e6


async def measure() -> None:
    rows = [
        [f"{turn} a turn", *[f"{await us_a_frame(size, turn):.1f}" for size in SIZES.values()]]
        for turn in TURN_FRAMES
    ]
    print(markdown_table(["CPU µs a frame, both ends", *SIZES], rows))
    rows = [
        [name, *(f"{value:.0f}" for value in (median(d), d[len(d) * 99 // 100], d[-1]))]
        for name, d in await delays()
    ]
    print()
    print(markdown_table(["µs from a ping to its answer", "median", "p99", "worst"], rows))
    downs = [await until_down_ms() for _ in range(DEATHS)]
    row = ["SIGKILL to link down", f"{median(downs):.1f}", f"{max(downs):.1f}"]
    print()
    print(markdown_table([f"ms, of {DEATHS}", "median", "worst"], [row]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links", description=__doc__)
    parser.add_argument("--echo", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    keep_buffers()
    uvloop.run(measure() if asked.echo is None else echo(asked.echo))


if __name__ == "__main__":
    main()
