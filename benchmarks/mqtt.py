"""Measures MQTT: mosquitto, RabbitMQ and fluffle in turn, CPU of the broker a message.

`python -m benchmarks.mqtt [--quick] [--rows NAME,…] [--only NAME,…] [--reps N]`

Every run has a freshly started broker.  Both ratios of fluffle stand beside what is aimed at.

What is said to be safe differs in the rows of lasting sessions: fluffle has synced each message
before its PUBACK, RabbitMQ only where its queues are quorum queues, and mosquitto none of them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from benchmarks.brokers import (
    START_TIMEOUT_S,
    Broker,
    Launcher,
    NotAvailable,
    NotStarted,
    ending,
    fluffle,
    free_ports,
    rabbitmq,
)
from benchmarks.client import Address
from benchmarks.clusters import as_one, three_fluffles
from benchmarks.load import LoadFailed, compiled
from benchmarks.machine import Cores, pinned, placements

FOLDER = Path(__file__).with_name("mqttload")
TIMEOUT_S = 180
QUICK_PART = 10
"""Divisor of the number of messages of a whole run."""

MOSQUITTO_CONF = """
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
max_inflight_messages 1000
max_queued_messages 0
"""
"""Configuration of mosquitto by default, except that as much may be in flight as with the others.
So it writes a line of its log for each client that comes or goes, as they do."""


@dataclass(frozen=True, slots=True)
class Row:
    """Load: the options of mqttload, and the limits of its CPU compared with other brokers."""

    title: str
    options: str
    messages: int
    mosquitto_ratio_max: float | None = None
    rabbitmq_ratio_max: float | None = 0.15
    figure: str = "cpu_us"
    of_rabbitmq: bool = True
    """True if RabbitMQ can do it at all."""
    in_cluster: bool = False
    """True if it runs on three nodes of fluffle, publishers at one and subscribers at another; the
    CPU is that of all three."""
    rabbitmq_config: str = ""
    """Lines of its rabbitmq.conf."""

    def is_of(self, broker: str) -> bool:
        """True if a broker runs this load."""
        if self.in_cluster:
            return broker == "fluffle"
        return broker != "rabbitmq" or self.of_rabbitmq


ROWS: Mapping[str, Row] = {
    "publish0": Row("publish QoS 0 to nobody", "publish -c 4 -q 0", 1_000_000, 1.0, 0.4),
    "publish1": Row("publish QoS 1 to nobody", "publish -c 4 -q 1", 300_000, 0.6),
    "retain1": Row("retained, QoS 1", "publish -c 4 -q 1 -r", 100_000, 2.0, None),
    "pairs0": Row("pairs QoS 0", "pairs -c 4 -q 0", 400_000, 0.7),
    "pairs1": Row("pairs QoS 1", "pairs -c 4 -q 1", 200_000, 0.8),
    "mqtt311": Row("pairs QoS 1, MQTT 3.1.1", "pairs -c 4 -q 1 -v 4", 100_000, 0.8),
    "properties1": Row("pairs QoS 1, with properties of 5.0", "pairs -c 4 -q 1 -x", 100_000, 0.8),
    "pairs2": Row("pairs QoS 2", "pairs -c 4 -q 2", 100_000, 1.0, of_rabbitmq=False),
    "lasting1": Row("pairs QoS 1, lasting sessions", "pairs -c 4 -q 1 -l", 100_000),
    "quorum1": Row(
        "the same, quorum queues of RabbitMQ",
        "pairs -c 4 -q 1 -l",
        50_000,
        rabbitmq_config="mqtt.durable_queue_type = quorum\n",
    ),
    "lasting2": Row(
        "pairs QoS 2, lasting sessions", "pairs -c 4 -q 2 -l", 50_000, of_rabbitmq=False
    ),
    "cluster1": Row("lasting1, 3 nodes", "pairs -c 4 -q 1 -l", 50_000, in_cluster=True),
    "cluster2": Row("lasting2, 3 nodes", "pairs -c 4 -q 2 -l", 20_000, in_cluster=True),
    "fanout": Row("1 to 100, 10 under way, a delivery", "fanout -c 100 -w 10", 10_000, 0.5),
    "lone": Row("1 to 100, lone, a delivery", "fanout -c 100 -w 1", 3_000, 1.0, 0.4),
    "single": Row("one QoS 1 at a time", "pairs -c 1 -q 1 -w 1", 20_000, 5.0),
    "connect": Row("connect and disconnect", "connect -c 4", 10_000, 6.0),
    "idle": Row("idle connection, KiB (aim: 10)", "idle -c 2000", 0, None, None, "kib_each"),
}


@contextmanager
def mosquitto(folder: Path, cores: Cores) -> Iterator[Broker]:
    """mosquitto, with what it keeps in `folder`."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        raise NotAvailable("mosquitto is not installed")
    said = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"mosquitto version (\S+)", said)
    (port,) = free_ports(1)
    config = folder / "mosquitto.conf"
    config.write_text(MOSQUITTO_CONF.format(port=port, folder=folder))
    folder.chmod(0o777)  # started by root, it becomes another user
    began = monotonic()
    with (folder / "log").open("wb") as output, pinned(cores):
        command = [program, "-c", str(config)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    with ending(process):
        while not listens(port):
            if process.poll() is not None or monotonic() > began + START_TIMEOUT_S:
                raise NotStarted("mosquitto does not listen")
            sleep(0.005)
        ready_ms = (monotonic() - began) * 1000
        found = version[1] if version else "unknown"
        address = Address("127.0.0.1", port)
        yield Broker("mosquitto", found, address, process.pid, ready_ms, ready_ms, mqtt_port=port)


def listens(port: int) -> bool:
    """True if somebody does, at a port of loopback."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == "0A" and int(local.rpartition(":")[2], 16) == port:
            return True
    return False


LAUNCHERS: Mapping[str, Launcher] = {
    "mosquitto": mosquitto,
    "rabbitmq": partial(rabbitmq, mqtt=True),
    "fluffle": partial(fluffle, options=("--mqtt=127.0.0.1:0",)),
}


def measure(row: Row, name: str, messages: int) -> float:
    """The figure of one run."""
    places = placements(pin_rabbitmq=False)
    place = places["rabbitmq" if name == "rabbitmq" else "fluffle"]
    launch = LAUNCHERS[name]
    if row.in_cluster:
        place, launch = places["three-fluffles"], as_one(partial(three_fluffles, mqtt=True))
    elif name == "rabbitmq":
        launch = partial(rabbitmq, mqtt=True, config=row.rabbitmq_config)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        launch(Path(folder), place.broker) as broker,
    ):
        if not broker.mqtt_port:
            raise NotAvailable(f"{name} does not take MQTT clients")
        command = [str(FOLDER / "mqttload"), *row.options.split(), "-p", str(broker.mqtt_port)]
        command += ["-I", ",".join(map(str, broker.pids())), "-T", str(TIMEOUT_S)]
        if broker.mqtt_subscriber_port:
            command += ["-S", str(broker.mqtt_subscriber_port)]
        if messages:
            command += ["-n", str(messages), "-W", str(messages // 10)]
        with pinned(place.load):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=False
            )
    if done.returncode:
        raise LoadFailed(f"{name}, {row.title}: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    if row.in_cluster:
        print(f"{row.title}: {found['rate']} messages/s", file=sys.stderr, flush=True)
    return float(found[row.figure])


def table(figures: Mapping[str, Mapping[str, list[float]]]) -> str:
    """A line a row: medians of all, fluffle's ratios, and what they are to be."""
    lines = [
        "| CPU of the broker, µs | mosquitto | RabbitMQ | fluffle | ÷ mosquitto | aim | ÷ RabbitMQ"
        " | aim |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in figures.items():
        row = ROWS[name]
        medians = {broker: median(values) for broker, values in found.items() if values}
        cells = [shown(medians.get(broker)) for broker in LAUNCHERS]
        for other, aim in (
            ("mosquitto", row.mosquitto_ratio_max),
            ("rabbitmq", row.rabbitmq_ratio_max if row.is_of("rabbitmq") else None),
        ):
            ours, theirs = medians.get("fluffle"), medians.get(other)
            cells += [shown(ours / theirs if ours is not None and theirs else None)]
            cells += ["" if aim is None else f"≤ {aim:g}"]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mqtt", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--rows", help=f"of {', '.join(ROWS)}, separated by commas")
    parser.add_argument("--only", help=f"of {', '.join(LAUNCHERS)}, separated by commas")
    parser.add_argument("--reps", type=int, help="repetitions of every run; otherwise 3")
    chosen = parser.parse_args()
    chosen.rows = chosen.rows.split(",") if chosen.rows else list(ROWS)
    chosen.only = chosen.only.split(",") if chosen.only else list(LAUNCHERS)
    chosen.reps = chosen.reps or (1 if chosen.quick else 3)
    for what, names, known in (("row", chosen.rows, ROWS), ("broker", chosen.only, LAUNCHERS)):
        if unknown := set(names) - set(known):
            parser.error(f"no {what} {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return chosen


def turns(chosen: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Row and broker of every run; who goes first changes with each repetition."""
    for repetition in range(chosen.reps):
        for name in chosen.rows:
            for broker in chosen.only[:: -1 if repetition % 2 else 1]:
                if ROWS[name].is_of(broker):
                    yield name, broker


def main() -> int:
    chosen = arguments()
    figures: dict[str, dict[str, list[float]]] = {
        name: {broker: [] for broker in LAUNCHERS} for name in chosen.rows
    }
    failures = 0
    try:
        compiled(FOLDER)
        for name, broker in turns(chosen):
            messages = ROWS[name].messages // (QUICK_PART if chosen.quick else 1)
            began_s = monotonic()
            try:
                value = measure(ROWS[name], broker, messages)
            except LoadFailed as error:
                print(error, file=sys.stderr, flush=True)
                failures += 1
                continue
            figures[name][broker].append(value)
            took_s = monotonic() - began_s
            print(
                f"{name:12} {broker:10} {value:10.3f} {took_s:6.1f} s", file=sys.stderr, flush=True
            )
    except NotAvailable as missing:
        print(missing, file=sys.stderr)
        return 2
    print(table(figures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
