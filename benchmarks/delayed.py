"""`python -m benchmarks.delayed [live] [COUNT]`: millions of messages that are to be routed later.

In the leader of one delayed queue whose entries lie in a file, each due at another moment, a
hundred in an entry, with 100 bytes. Memory is that of the process, before and after. A turn is what
the node does for the queue between two others: the longest is how long anybody else may have to
wait.

With `live`, a million through a client to a whole node, in transactions of a thousand; and some of
them are due together, with all others still waiting.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import BinaryIO

import pika
from pika.adapters.blocking_connection import BlockingChannel

from benchmarks.brokers import BROKERS, Broker
from benchmarks.machine import anonymous_bytes, cpu_s, pinned, placements
from benchmarks.report import markdown_table
from fluffle.broker.base.message import Origin
from fluffle.broker.daemon.daemon import GC_THRESHOLDS
from fluffle.broker.queues.arguments import delayed_queue_spec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.support.leader_services import FakeLeaderServices
from tests.support.manual_clock import ManualClock

COUNT = 5_000_000
AT_ONCE = 100
SPREAD_MS = 3_600_000
"""Period in which all messages become due."""
STEP_MS, STEPS = 10, 1_000
MANY = 50_000
"""About as many become due at once."""
LIVE_COUNT, LIVE_AT_ONCE = 1_000_000, 1_000
LIVE_DUE, DUE_IN_S = 20_000, 60
BODY = b"x" * 100
ORIGIN = Origin("x", "key")


class Log:
    """Takes every entry at once."""

    def __init__(self, file: BinaryIO, image: QueueImage) -> None:
        self._file = file
        self._starts = array("Q", [0])
        self._image = image

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        self._file.seek(self._starts[-1])
        self._file.write(payload)
        self._starts.append(self._starts[-1] + len(payload))
        self._image.apply(len(self._starts) - 1, payload)
        on_outcome(True)

    def read(self, index: int) -> bytes:
        start, stop = self._starts[index - 1 : index + 1]
        self._file.seek(start)
        return self._file.read(stop - start)


class Lead(FakeLeaderServices):
    """A delayed queue that is led, and what is due arrives at once."""

    def __init__(self, log: Log, image: QueueImage) -> None:
        self._time = ManualClock(now_ms=1_000, wall_ms=1_000)
        super().__init__(delayed_queue_spec("x", "/", durable=True), [], self._time)
        self.arrived = 0
        self._log, self._image = log, image
        self.turns_s: list[float] = []
        self.begin()

    @property
    def now_ms(self) -> int:
        return self._time.now_ms()

    def begin(self) -> None:
        """A next leader."""
        self.led = Leadership(self._image, self, self, term=1)

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        self._log.propose(payload, on_outcome)

    def read_entry(self, index: int) -> bytes:
        return self._log.read(index)

    def room(self, _holder: int) -> int:
        return 0

    def dead_letter(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        del queue, settings
        for parcel in dead.parcels or ():
            parcel.lead(("target",))
            parcel.known("target", is_accepted=True)
            self.arrived += 1

    def at(self, now_ms: int) -> None:
        """Advance the time to `now_ms` and run turns until nothing is left to do then."""
        self._time.advance(now_ms - self.now_ms)
        self.is_touched = True
        while self.is_touched:
            self.is_touched = False
            began_s = time.process_time()
            self.led.pump()
            self.turns_s.append(time.process_time() - began_s)

    def purge(self) -> None:
        """Purge all waiting messages."""
        began_s = time.process_time()
        self.led.purge(self.led.sessions.open(SessionId("edge", 1, 1, 2)), 1)
        self.turns_s.append(time.process_time() - began_s)
        self.at(self.now_ms)

    def turns(self) -> tuple[float, float]:
        """Sum and maximum of the seconds of the turns since the last call."""
        turns_s, self.turns_s = self.turns_s, []
        return sum(turns_s), max(turns_s)


def memory_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - no file on a disk
        return int(statm.read().split()[1]) * 4096


def fill(lead: Lead, count: int) -> None:
    """So many messages come, at one moment."""
    session, chance = lead.led.sessions.open(SessionId("edge", 1, 1, 1)), Random(1)
    for first in range(1, count + 1, AT_ONCE):
        contents = []
        for _ in range(AT_ONCE):
            delay_ms = chance.randrange(1_000, SPREAD_MS)
            raw = encode_properties(Properties(headers={"x-delay": ("I", delay_ms)}))
            contents.append(build_content(raw, BODY))
        lead.led.publish(session, first, [ORIGIN] * AT_ONCE, contents)
        lead.led.pump()


def measured(count: int, file: BinaryIO) -> list[list[str]]:
    gc.set_threshold(*GC_THRESHOLDS)
    image = QueueImage()
    lead = Lead(Log(file, image), image)
    before_bytes, began_s = memory_bytes(), time.process_time()
    fill(lead, count)
    fill_s, size_bytes = time.process_time() - began_s, memory_bytes() - before_bytes
    lead.turns_s.clear()
    due_from_ms = lead.now_ms + 1_000
    for step in range(STEPS):
        lead.at(due_from_ms + step * STEP_MS)
    (live_s, live_max_s), live = lead.turns(), lead.arrived
    began_s = time.process_time()
    lead.begin()
    took_s = time.process_time() - began_s
    due_from_ms = lead.now_ms
    for step in range(STEPS):
        lead.at(due_from_ms + step * STEP_MS)
    (next_s, next_max_s), found = lead.turns(), lead.arrived - live
    lead.at(lead.now_ms + MANY * SPREAD_MS // count)
    (all_s, all_max_s), rest = lead.turns(), lead.arrived - live - found
    left = image.state.live_count
    lead.purge()
    purge_s, purge_max_s = lead.turns()
    return [
        ["bytes of memory a message, all told", f"{size_bytes / count:.0f}"],
        ["microseconds of processor time to take one", f"{1e6 * fill_s / count:.1f}"],
        [f"{live:,} due in {STEPS * STEP_MS // 1000} s: μs each", f"{1e6 * live_s / live:.0f}"],
        ["the longest turn of that, ms", f"{1e3 * live_max_s:.1f}"],
        ["a next leader begins, ms", f"{1e3 * took_s:.0f}"],
        [f"{found:,} due in its first 10 s: μs each", f"{1e6 * next_s / found:.0f}"],
        ["the longest turn of that, ms", f"{1e3 * next_max_s:.1f}"],
        [f"{rest:,} due at once: μs each", f"{1e6 * all_s / max(rest, 1):.0f}"],
        ["the longest turn of that, ms", f"{1e3 * all_max_s:.1f}"],
        [f"a purge of {left:,}: ms", f"{1e3 * purge_s:.0f}"],
        ["the longest turn of that, ms", f"{1e3 * purge_max_s:.1f}"],
    ]


def live(count: int, broker: Broker) -> list[list[str]]:
    port = pika.ConnectionParameters(broker.address.host, broker.address.port)
    with pika.BlockingConnection(port) as connection:
        channel = connection.channel()
        arguments = {"x-delayed-type": "fanout"}
        channel.exchange_declare("x", "x-delayed-message", durable=True, arguments=arguments)
        channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind("q", "x")
        channel.tx_select()
        before_bytes, cpu = anonymous_bytes(broker.pids()), cpu_s(broker.pids())
        chance, began_s = Random(1), time.perf_counter()
        publish(channel, count, lambda: SPREAD_MS + chance.randrange(SPREAD_MS))
        took_s, cpu = time.perf_counter() - began_s, cpu_s(broker.pids()) - cpu
        size_bytes = anonymous_bytes(broker.pids()) - before_bytes
        due_s = time.perf_counter() + DUE_IN_S
        publish(channel, LIVE_DUE, lambda: max(1, int(1000 * (due_s - time.perf_counter()))))
        connection.sleep(max(0.0, due_s - time.perf_counter()))
        due_cpu = cpu_s(broker.pids())
        while channel.queue_declare("q", passive=True).method.message_count < LIVE_DUE:
            connection.sleep(0.05)
        due_took_s = time.perf_counter() - due_s
        due_cpu = cpu_s(broker.pids()) - due_cpu
    return [
        ["bytes of memory a message, of the whole node", f"{size_bytes / count:.0f}"],
        ["messages taken a second", f"{count / took_s:,.0f}"],
        ["the node's processor time for each, μs", f"{1e6 * cpu / count:.0f}"],
        [f"{LIVE_DUE:,} due together are in a quorum queue after, s", f"{due_took_s:.1f}"],
        ["the node's processor time for each, μs", f"{1e6 * due_cpu / LIVE_DUE:.0f}"],
    ]


def publish(channel: BlockingChannel, count: int, delay_ms: Callable[[], int]) -> None:
    """So many messages, each with a delay of its own."""
    for number in range(1, count + 1):
        properties = pika.BasicProperties(delivery_mode=2, headers={"x-delay": delay_ms()})
        channel.basic_publish("x", "k", BODY, properties)
        if number % LIVE_AT_ONCE == 0:
            channel.tx_commit()
    channel.tx_commit()


def main() -> None:
    numbers = [int(each) for each in sys.argv[1:] if each.isdecimal()]
    if "live" in sys.argv:
        count = numbers[0] if numbers else LIVE_COUNT
        place = placements(pin_rabbitmq=False)["fluffle"]
        with (
            tempfile.TemporaryDirectory() as folder,
            BROKERS["fluffle"](Path(folder), place.broker) as broker,
            pinned(place.load),
        ):
            rows = live(count, broker)
    else:
        count = numbers[0] if numbers else COUNT
        with tempfile.TemporaryFile() as file:
            rows = measured(count, file)
    print(markdown_table([f"{count:,} messages", ""], rows))


if __name__ == "__main__":
    main()
