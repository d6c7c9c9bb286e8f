"""The short version of `make torture`: a few faults with a fixed seed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluffle.broker.torture.online_checker import HistoryWriter
from fluffle.broker.torture.run import RunOptions
from tests.support.daemon import Daemon
from tests.torture.systems import SYSTEMS, torture

KINDS = ("kill", "kill-twice", "restart", "reset-clients")
CLUSTER_RATE = 30.0
"""Messages a second: how many there are matters little, and at night there are more."""


@pytest.mark.slow("a node is killed and restarted for 15 s, and its queues are emptied", seconds=25)
async def test_a_lone_node_keeps_its_promises_under_torture(tmp_path: Path) -> None:
    output: list[str] = []
    history_writer = HistoryWriter(time.monotonic_ns)
    async with SYSTEMS["lone"](tmp_path) as system:
        order = RunOptions(seconds=15.0, seed=4, kinds=KINDS)
        code = await torture(system, order, history_writer, output.append)
    assert code == 0, "\n".join(output)
    assert history_writer.checker.report.confirmed > 100
    assert history_writer.checker.report.duplicated > 0
    assert output[-1].startswith("MQTT: ")
    assert output[-2].startswith("torture seed=4 ")


@pytest.mark.slow("three nodes start as processes and are struck for 25 s", seconds=45)
async def test_three_nodes_keep_their_promises_under_torture(tmp_path: Path) -> None:
    output: list[str] = []
    history_writer = HistoryWriter(time.monotonic_ns)
    async with SYSTEMS["fluffle"](tmp_path) as system:
        kinds = (*KINDS, "isolate", "lag", "part", "pause", "starve")
        order = RunOptions(seconds=25.0, seed=12, kinds=kinds, rate=CLUSTER_RATE)
        code = await torture(system, order, history_writer, output.append)
    assert code == 0, "\n".join(output)
    assert history_writer.checker.report.confirmed > 100
    assert output[-1].startswith("MQTT: ")
    assert output[-2].startswith("torture seed=12 ")


@pytest.mark.slow("disks are put back for 40 s, and each time a node joins anew", seconds=60)
async def test_a_node_whose_disk_is_put_back_is_turned_away_and_joins_anew(tmp_path: Path) -> None:
    output: list[str] = []
    history_writer = HistoryWriter(time.monotonic_ns)
    async with SYSTEMS["fluffle"](tmp_path) as system:
        order = RunOptions(seconds=40.0, seed=2, kinds=("roll-back",), rate=CLUSTER_RATE)
        code = await torture(system, order, history_writer, output.append)
    assert code == 0, "\n".join(output)
    assert any(line.startswith("roll-back") for line in output)
    assert history_writer.checker.report.confirmed > 100


@pytest.mark.slow("a disk is put back seconds after its copy, and its node joins anew", seconds=40)
async def test_a_node_whose_disk_is_put_back_in_place_is_found_out_by_the_others(
    tmp_path: Path,
) -> None:
    output: list[str] = []
    history_writer = HistoryWriter(time.monotonic_ns)
    async with SYSTEMS["fluffle"](tmp_path) as system:
        kinds = ("roll-back-in-place",)
        order = RunOptions(seconds=10.0, seed=11, kinds=kinds, rate=CLUSTER_RATE)
        code = await torture(system, order, history_writer, output.append)
    assert code == 0, "\n".join(output)
    assert any(line.startswith("roll-back-in-place") for line in output)
    assert history_writer.checker.report.confirmed > 100


@pytest.mark.slow("two nodes join and one leaves, and all queues move each time", seconds=60)
async def test_nodes_come_and_go_while_clients_work(tmp_path: Path) -> None:
    output: list[str] = []
    history_writer = HistoryWriter(time.monotonic_ns)
    async with SYSTEMS["fluffle"](tmp_path) as system:
        # two nodes join and one of them leaves
        kinds = ("grow", "shrink")
        order = RunOptions(seconds=16.0, seed=17, kinds=kinds, rate=CLUSTER_RATE)
        code = await torture(system, order, history_writer, output.append)
    assert code == 0, "\n".join(output)
    assert {"grow", "shrink"} <= {line.partition(" ")[0] for line in output}
    assert history_writer.checker.report.confirmed > 100


@pytest.mark.slow("faults need seconds to do harm and to be mended")
def test_the_command_tortures_what_operators_allow(tmp_path: Path) -> None:
    """And judges the history that it has kept in the same way."""
    file = tmp_path / "history"
    with Daemon(tmp_path / "data") as daemon:
        run(
            "--node", f"node=amqp://guest:guest@127.0.0.1:{daemon.port}/%2F",
            "--queue-type", "classic", "--seconds", "5", "--seed", "1", "--history", str(file),
            "--faults", "pause,reset-clients",
            "--pause-command", f"kill -STOP {daemon.pid}",
            "--resume-command", f"kill -CONT {daemon.pid}",
        )  # fmt: skip
    assert "lost                               0" in run("--check", str(file))


def run(*words: str) -> str:
    """Output of a command, which must succeed."""
    command = [sys.executable, "-m", "fluffle.broker", "torture", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
