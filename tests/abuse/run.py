"""A run: nodes, the good client, storms and calms, and what was seen."""

from __future__ import annotations

import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import NamedTuple

from fluffle.broker.access.passwords import ARGON2, UnusableHash, hashed
from tests.abuse import verdict
from tests.abuse.good_client import GoodClient
from tests.abuse.kinds import KINDS
from tests.abuse.process_samples import LogCount, Sample, look
from tests.abuse.storm import Order, Report, serve
from tests.abuse.target import AttackCounts, Target
from tests.abuse.verdict import Patience, Round, Seen
from tests.support.certificates import Authority
from tests.support.daemon import Daemon

CALM_S = 2.0
LOOK_PERIOD_S = 0.1
HEARD_WITHIN_S = 60
SLOW_USER = "slow"
REPORTED_MAX = 50
"""Violations that are printed."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a node is to be abused."""

    seconds: float
    seed: str
    threads: int
    storm_s: float
    each: bool = False
    """Each kind alone, for its cost, instead of all together."""
    kinds: Sequence[str] = tuple(KINDS)
    patience: Patience = field(default_factory=Patience)


class RunningSystem:
    """Two nodes under watch, the process that abuses them, and a node that nobody abuses."""

    def __init__(self, node: Daemon, control: Daemon, log: LogCount, pipe: Pipe) -> None:
        self.log = log
        self.node = node
        self.control = control
        self._pipe = pipe

    def look(self) -> Sample:
        return look(self.node.pid)

    def hear_all(self) -> None:
        """Return once every line is counted that was logged before: lines come through a pipe."""
        with socket.create_connection(("127.0.0.1", self.node.port)) as sock:
            _, port = sock.getsockname()
            heard = self.log.listen_for(f":{port} ->")
        assert heard.wait(HEARD_WITHIN_S), "a connection was not logged"

    def storm(self, order: Order) -> tuple[Report, Sample]:
        """Run one storm; returns the largest values seen in it."""
        self._pipe.send(order)
        samples = [self.look()]
        while not self._pipe.poll(LOOK_PERIOD_S):
            samples.append(self.look())
        report: Report = self._pipe.recv()
        return report, Sample(
            resident_mib=max(sample.resident_mib for sample in samples),
            files=max(sample.files for sample in samples),
            threads=max(sample.threads for sample in samples),
            cpu_s=samples[-1].cpu_s,
            run_s=samples[-1].run_s,
            queued_s=samples[-1].queued_s,
        )


@contextmanager
def scene(folder: Path) -> Iterator[RunningSystem]:
    """Start everything; the good client is not part of it."""
    authority = Authority(folder)
    log = LogCount()
    options = {
        "--mqtt": "127.0.0.1:0",
        "--mqtt-ws": "127.0.0.1:0",
        "--tls-listen": "127.0.0.1:0",
        "--tls-cert": authority.cert_file,
        "--tls-key": authority.key_file,
        "--definitions": write_definitions(folder / "users.json"),
    }
    with ExitStack() as stack:
        given = [str(part) for option in options.items() for part in option]
        node = Daemon(folder / "node", *given, on_line=log.hear)
        proxied = Daemon(folder / "proxied", "--proxy-protocol", "yes", on_line=log.hear)
        control = Daemon(folder / "control", "--mqtt", "127.0.0.1:0")
        for daemon in (node, proxied, control):
            stack.enter_context(daemon)
        target = Target(
            amqp=node.addresses["amqp"],
            amqps=node.addresses["amqps"],
            mqtt=node.addresses["mqtt"],
            mqtt_ws=node.addresses["mqtt-ws"],
            proxied=proxied.addresses["amqp"],
            ca_file=authority.ca_file,
            slow_user=SLOW_USER if can_be_slow() else "",
        )
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        abuser = spawn.Process(target=serve, args=(there, target), daemon=True)
        abuser.start()
        try:
            yield RunningSystem(node, control, log, here)
            here.send(None)
            abuser.join()
        finally:
            abuser.kill()


def can_be_slow() -> bool:
    """True if argon2 is installed."""
    try:
        hashed(b"", ARGON2)
    except UnusableHash:
        return False
    return True


def write_definitions(file: Path) -> Path:
    """guest with every right, and where argon2 is installed a user who is slow to log in."""
    users = {"guest": hashed(b"guest")}
    if can_be_slow():
        users[SLOW_USER] = hashed(b"nobody knows", ARGON2)
    every = {"configure": ".*", "write": ".*", "read": ".*"}
    definitions = {
        "users": [
            {
                "name": name,
                "password_hash": stored.hash,
                "hashing_algorithm": stored.algorithm,
                "tags": [],
            }
            for name, stored in users.items()
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": name, "vhost": "/", **every} for name in users],
    }
    file.write_text(json.dumps(definitions), encoding="utf-8")
    return file


def run(folder: Path, plan: Plan, tell: Tell) -> int:
    """The whole of it; the exit code."""
    with scene(folder) as stage:
        crew = RunClients(
            *(
                GoodClient(node.addresses["amqp"], node.addresses["mqtt"])
                for node in (stage.node, stage.control)
            )
        )
        for client in crew:
            client.start()
        try:
            calm(stage)
            rounds, before, report = (each if plan.each else mixed)(stage, crew, plan, tell)
        finally:
            for client in crew:
                client.stop()
    seen = Seen(rounds, before, crew.good.lanes, stage.log, report)
    found = list(verdict.violations(seen, plan.patience))
    for line in verdict.table(seen):
        tell(line)
    for line in found[:REPORTED_MAX]:
        tell(f"VIOLATION {line}")
    tell(f"{'FAILED: ' + str(len(found)) + ' violations' if found else 'passed'}, seed {plan.seed}")
    return int(bool(found))


class RunClients(NamedTuple):
    """Two clients that behave well, one with the node that is abused."""

    good: GoodClient
    control: GoodClient


def calm(stage: RunningSystem) -> Sample:
    """Wait until the node has let go of everything, then look."""
    threading.Event().wait(CALM_S)
    return stage.look()


Outcome = tuple[list[Round], Sample, Report]


def mixed(stage: RunningSystem, crew: RunClients, plan: Plan, tell: Tell) -> Outcome:
    """Storms of everything."""
    total: Report = {name: AttackCounts() for name in plan.kinds}
    rounds: list[Round] = []
    before = stage.look()
    until_s = time.monotonic() + plan.seconds
    while (time.monotonic() < until_s and not crew.good.faults) or not rounds:
        seconds = min(plan.storm_s, max(1.0, until_s - time.monotonic()))
        order = Order(seconds, plan.threads, f"{plan.seed}/{len(rounds)}", plan.kinds)
        rounds.append(one_round(stage, crew, order, total))
        tell(line_of(len(rounds), rounds[-1]))
    return rounds, before, total


def each(stage: RunningSystem, crew: RunClients, plan: Plan, tell: Tell) -> Outcome:
    """A storm of each kind alone, with what it costs the node."""
    total: Report = {name: AttackCounts() for name in plan.kinds}
    rounds: list[Round] = []
    before = stage.look()
    seconds = plan.seconds / len(plan.kinds)
    tell(
        f"{'kind':28}{'attacks':>9}{'events':>9}{'ms CPU/event':>14}{'p99 ms':>9}{'slowness':>9}"
        f"{'worst MiB':>11}"
    )
    for name in plan.kinds:
        is_flood = name.startswith("flood: ")
        threads = 1 if is_flood else plan.threads
        order = Order(seconds, threads, f"{plan.seed}/{name}", (name,))
        start = stage.look()
        one = one_round(stage, crew, order, total)
        rounds.append(replace(one, flooder=name if is_flood else ""))
        tally, one = total[name], rounds[-1]
        cpu_ms = (one.worst.cpu_s - start.cpu_s) * 1000 / max(1, tally.events)
        p99_ms = verdict.percentile(one.confirm_ms, 99)
        tell(
            f"{name:28}{tally.attacks:9}{tally.events:9}{cpu_ms:14.2f}{p99_ms:9.1f}"
            f"{one.slowness:9.1f}"
            f"{one.worst.resident_mib:11.1f}"
        )
    return rounds, before, total


def one_round(stage: RunningSystem, crew: RunClients, order: Order, total: Report) -> Round:
    """A storm and its calm, added to the total."""
    for client in crew:
        client.take()
    start = stage.look()
    report, worst = stage.storm(order)
    window, control = crew.good.take(), crew.control.take()
    for name, tally in report.items():
        total[name].attacks += tally.attacks
        total[name].events += tally.events
        total[name].surprises += tally.surprises
    return Round(
        seconds=order.seconds,
        worst=worst,
        calm=calm(stage),
        confirm_ms=window.confirm_ms,
        deliver_ms=window.deliver_ms,
        control_ms=control.confirm_ms,
        slowness=verdict.slowness(start, worst),
    )


def line_of(number: int, one: Round) -> str:
    """Line about one round while the run goes on."""
    p50_ms, p99_ms = (verdict.percentile(one.confirm_ms, percent) for percent in (50, 99))
    return (
        f"round {number:4}: confirm p50 {p50_ms:6.1f} p99 {p99_ms:6.1f} "
        f"max {max(one.confirm_ms, default=0):6.1f} ms, "
        f"not abused p99 {verdict.percentile(one.control_ms, 99):6.1f}; "
        f"worst {one.worst.resident_mib:6.1f} MiB {one.worst.files:4} fds; "
        f"calm {one.calm.resident_mib:6.1f} MiB {one.calm.files:3} fds {one.calm.threads} threads"
    )
