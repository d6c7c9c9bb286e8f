"""A short run of the driver: each kind alone, then all together for some seconds."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abuse.kinds import KINDS
from tests.abuse.process_samples import look
from tests.abuse.run import Plan, RunningSystem, run, scene
from tests.abuse.storm import Order
from tests.abuse.verdict import Patience
from tests.support.client import Client
from tests.support.daemon import Daemon

pytestmark = pytest.mark.slow("storms of bad clients last seconds each")

DESCRIPTORS = 64


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    with scene(tmp_path_factory.mktemp("abuse")) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_ends_as_it_must_and_costs_one_line(stage: RunningSystem, kind: str) -> None:
    """No traceback, at most one line of complaint for each event, nothing that stays open."""
    stage.hear_all()
    complaints = stage.log.complaints
    report, _worst = stage.storm(Order(seconds=0.0, threads=1, seed="1", kinds=(kind,), least=3))
    stage.hear_all()
    tally = report[kind]
    assert (tally.attacks, tally.surprises) == (3, [])
    assert stage.log.tracebacks == []
    assert stage.log.complaints - complaints <= tally.events


def test_all_kinds_together(tmp_path: Path) -> None:
    lines: list[str] = []
    patience = Patience(p99_ms=5_000, worst_ms=10_000)  # other tests may run beside this one
    plan = Plan(seconds=10.0, seed="1", threads=2, storm_s=5.0, patience=patience)
    assert run(tmp_path, plan, lines.append) == 0, "\n".join(lines)


def test_a_node_without_descriptors_serves_who_is_there_and_recovers(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, Client("127.0.0.1", daemon.port) as client:
        client.open().channel()
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        crowd = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(200)]
        client.settle(1)
        assert look(daemon.pid).files <= DESCRIPTORS
        for sock in crowd:
            sock.close()
        client.settle(1)
        with Client("127.0.0.1", daemon.port) as late:
            late.open().channel()
        assert "raceback" not in daemon.log
