"""`python -m benchmarks.floods [--secs S] [--flooder NAME] [--without-rabbitmq] [--cluster]`: how
long one client that floods a broker lets the others wait, fluffle beside RabbitMQ.

A polite client publishes a message every fifty milliseconds and waits for its confirm; the flooder
sends, from a process of its own, as fast as it is read.  Of fluffle the longest turn of its loop is
shown, too: by the clock, and by the processor time of the loop's thread, which hardly depends on
what else the machine does.  With `--cluster` the broker is the first of three nodes of fluffle, and
it is counted how often a node of them suspected another.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from benchmarks.brokers import Broker, NotAvailable, fluffle, rabbitmq
from benchmarks.client import Address
from benchmarks.clusters import three_fluffles
from benchmarks.machine import placements
from benchmarks.report import markdown_table
from fluffle.protocol.methods import Confirm, Queue, make
from tests.abuse.flooders import FLOODERS
from tests.abuse.kinds.mqtt import FLOODS as MQTT_FLOODS
from tests.support.client import Client
from tests.support.mqtt_socket import MqttSocket

PERIOD_S = 0.05
PREPARED_WITHIN_S = 120
ENDS_WITHIN_S = 30
QUIET = "nobody"
MQTT = "mqtt "
"""How the names of flooders begin that speak MQTT."""
WITH_MQTT = ("--mqtt", "127.0.0.1:0")
"""Messages are retained by a node that listens for MQTT."""


class NotPrepared(Exception):
    """A flooder that was still making what it needs: in a cluster thousands of bindings take long
    where many processes queue."""


class Waited(NamedTuple):
    """The times that a polite client saw beside one flooder, and those of the node itself."""

    confirm_ms: list[float]
    sent_bytes: int = 0
    turn_ms: float = 0.0
    turn_cpu_ms: float = 0.0
    suspicions: int = 0
    """How often a node suspected another."""

    def percentile(self, percent: int) -> float:
        if len(self.confirm_ms) < 2:
            return self.confirm_ms[0]
        return quantiles(self.confirm_ms, n=100, method="inclusive")[percent - 1]


def flooder_of_amqp(port: int, name: str) -> tuple[socket.socket, Iterator[bytes]]:
    """Log in and prepare; the socket, and what to send on it."""
    client = Client("127.0.0.1", port).open()
    client.channel(1)
    return client.socket, FLOODERS[name](client)


def flooder_of_mqtt(port: int, name: str) -> tuple[socket.socket, Iterator[bytes]]:
    """The same for a flooder that speaks MQTT."""
    version, blocks_of = MQTT_FLOODS[name.removeprefix(MQTT)]
    client = MqttSocket(socket.create_connection(("127.0.0.1", port)), version)
    client.connect()
    return client.socket, blocks_of()


def flood(pipe: Pipe, port: int, name: str) -> None:
    """Prepare, say so, and flood until the pipe says that it is enough."""
    prepare = flooder_of_mqtt if name.startswith(MQTT) else flooder_of_amqp
    connected, blocks = prepare(port, name)
    block = next(blocks)
    pipe.send(None)
    threading.Thread(target=read_all, args=(connected,), daemon=True).start()
    sent_bytes = 0
    connected.settimeout(0.1)
    with suppress(BrokenPipeError, ConnectionResetError):
        while not pipe.poll():
            view = memoryview(block)
            while view and not pipe.poll():
                with suppress(TimeoutError):
                    sent = connected.send(view[: 1 << 18])
                    view, sent_bytes = view[sent:], sent_bytes + sent
            block = next(blocks)
    pipe.send(sent_bytes)
    os._exit(0)


def read_all(connected: socket.socket) -> None:
    """Whatever is answered."""
    with suppress(OSError):
        while True:
            with suppress(TimeoutError):
                if not connected.recv(1 << 20):
                    return


def polite(address: Address, seconds: float) -> list[float]:
    """Milliseconds until the confirm of each message, from when it was due."""
    took_ms: list[float] = []
    with Client(*address) as client:
        client.open().channel(1)
        declared = client.call(1, make(Queue.Declare, queue="", exclusive=True)).method
        assert isinstance(declared, Queue.DeclareOk)
        client.call(1, make(Confirm.Select))
        due_s = time.monotonic()
        until_s = due_s + seconds
        while due_s < until_s or not took_ms:
            client.publish(1, "", declared.queue or "", bytes(200))
            client.expect("Basic.Ack")
            client.heard.clear()
            client.transcript.clear()
            took_ms.append((time.monotonic() - due_s) * 1000)
            due_s = max(due_s + PERIOD_S, time.monotonic() - 1)
            time.sleep(max(0.0, due_s - time.monotonic()))
    return took_ms


@contextmanager
def flooded(broker: Broker, name: str) -> Iterator[list[int]]:
    """A flooder at work; afterwards how much it sent."""
    if name == QUIET:
        yield [0]
        return
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    port = broker.mqtt_port if name.startswith(MQTT) else broker.address.port
    process = spawn.Process(target=flood, args=(there, port, name), daemon=True)
    process.start()
    sent: list[int] = []
    try:
        if not here.poll(PREPARED_WITHIN_S):
            raise NotPrepared(name)
        here.recv()
        yield sent
        here.send(None)
        sent.append(here.recv() if here.poll(ENDS_WITHIN_S) else 0)
    finally:
        process.kill()
        process.join()


def measure(broker: Broker, name: str, secs: float, turns: Path | None) -> Waited:
    """Beside one flooder."""
    with flooded(broker, name) as sent:
        if turns is not None:
            longest_turn(broker, turns)
        confirm_ms = polite(broker.address, secs)
        turn = longest_turn(broker, turns) if turns is not None else (0.0, 0.0)
    return Waited(confirm_ms, sum(sent), *turn)


def longest_turn(broker: Broker, file: Path) -> tuple[float, float]:
    """Milliseconds of the longest turn since this was asked last, by the clock and of CPU."""
    file.unlink(missing_ok=True)
    os.kill(broker.pid, signal.SIGUSR1)
    until_s = time.monotonic() + ENDS_WITHIN_S
    while not file.exists() and time.monotonic() < until_s:
        time.sleep(0.01)
    wall, cpu = file.read_text().split()
    return float(wall), float(cpu)


def watched_command(folder: Path, turns: Path) -> Path:
    """A `fluffle` that writes down its longest turn when it is asked to."""
    command = folder / "fluffle"
    root = Path(__file__).parents[1]
    command.write_text(
        f'#!/bin/sh\ncd {root}\nexec {sys.executable} -m benchmarks.turns {turns} "$@"\n'
    )
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return command


def run_fluffle(name: str, secs: float) -> Waited:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder, turns = Path(place), Path(place) / "turns"
        command = watched_command(folder, turns)
        with fluffle(
            folder,
            placements(pin_rabbitmq=False)["fluffle"].broker,
            command=command,
            options=WITH_MQTT,
        ) as broker:
            return measure(broker, name, secs, turns)


def run_cluster(name: str, secs: float) -> Waited:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder, turns = Path(place), Path(place) / "turns"
        cores = placements(pin_rabbitmq=False)["fluffle"].broker
        command = watched_command(folder, turns)
        with three_fluffles(folder, cores, command=command, mqtt=True) as cluster:
            logs = [member.log for member in cluster.members]
            before = sum(map(suspicions, logs))
            waited = measure(cluster.broker(), name, secs, turns)
            return waited._replace(suspicions=sum(map(suspicions, logs)) - before)


def suspicions(log: Path) -> int:
    """How often a node has said that it suspects another."""
    return log.read_text(encoding="utf-8").count(" node_suspected ")


def run_rabbitmq(name: str, secs: float) -> Waited:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        cores = placements(pin_rabbitmq=False)["rabbitmq"].broker
        with rabbitmq(Path(place), cores, mqtt=name.startswith(MQTT)) as broker:
            return measure(broker, name, secs, None)


def cells(waited: Waited | None) -> list[str]:
    if waited is None:
        return ["–", "–", "–"]
    shown = (waited.percentile(50), waited.percentile(99), max(waited.confirm_ms))
    return [f"{value:.1f}" for value in shown]


def row(name: str, ours: Waited | None, theirs: Waited | None) -> list[str]:
    if ours is None:
        return [name, *cells(None), "–", "–", "–", *cells(theirs)]
    turn = [f"{ours.turn_ms:.1f}", f"{ours.turn_cpu_ms:.1f}", str(ours.suspicions)]
    return [name, *cells(ours), *turn, *cells(theirs)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floods", description=__doc__)
    names = (QUIET, *FLOODERS, *(MQTT + each for each in MQTT_FLOODS))
    parser.add_argument("--secs", type=float, default=5.0, help="for how long each floods")
    parser.add_argument("--flooder", choices=names, action="append", help="these alone")
    parser.add_argument("--without-rabbitmq", action="store_true", help="fluffle alone")
    parser.add_argument("--cluster", action="store_true", help="three nodes of fluffle, alone")
    chosen = parser.parse_args()
    run = run_cluster if chosen.cluster else run_fluffle
    head = ["flooder", "p50 ms", "p99", "longest", "turn ms", "turn CPU", "suspicions"]
    head += ["RabbitMQ p50", "p99", "longest"]
    rows = []
    for name in chosen.flooder or names:
        ours = theirs = None
        with suppress(NotPrepared):
            ours = run(name, chosen.secs)
        with suppress(NotAvailable, NotPrepared):
            is_alone = chosen.without_rabbitmq or chosen.cluster
            theirs = None if is_alone else run_rabbitmq(name, chosen.secs)
        rows.append(row(name, ours, theirs))
        print("  ".join(f"{cell:>9}" for cell in rows[-1]), file=sys.stderr, flush=True)
    print(markdown_table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
