"""Whole clusters under faults, seed by seed; and that a seed means one run, and no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.faults import Fault
from tests.simulation.mqtt.mqtt_cluster import MqttCluster
from tests.simulation.queues.queue_cluster import QueueCluster
from tests.simulation.run import Account, Run, Subject
from tests.simulation.seeds import Failure, Job, Summary, outcome, outcomes
from tests.simulation.toy_client import ToyClient, create
from tests.simulation.virtual_time import SECOND_US
from tests.suite.seeds import regressions_of, seeds

ROOT = Path(__file__).parent.parent.parent
SLICES = 200
SEEDS = 200
QUEUE_SLICES = 40
QUEUE_SEEDS = 40
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PROCESSORS = max(1, (os.cpu_count() or 1) // WORKERS)
"""The others are for who runs tests beside these."""
SIMULATION = pytest.mark.simulation(
    *("raft", "storage", "broker/cluster", "broker/definitions", "broker/metadata"),
    *("broker/policies", "broker/queues", "tests/simulation"),
)
"""Folders of the code that runs there."""


def check(jobs: list[Job]) -> Summary:
    summary = Summary()
    for found in outcomes(jobs, PROCESSORS):
        assert not isinstance(found, Failure), f"{found.job}: {found.text}"
        summary.add(found)
    return summary


@pytest.mark.parametrize("nodes", [3, 5])
def test_a_few_seeds_find_nothing(nodes: int) -> None:
    """Short ones, for each change; `make test` runs many."""
    for seed in (1, 2):
        found = outcome(Job(seed, nodes, seconds=10))
        assert isinstance(found, Account), f"seed {seed} with {nodes} nodes: {found}"
        assert found.commits > 0


@pytest.mark.parametrize("nodes", [3, 5])
def test_a_few_seeds_about_queues_find_nothing(nodes: int) -> None:
    for seed in (1, 2, 3):
        found = outcome(Job(seed, nodes, seconds=8, subject=QueueCluster))
        assert isinstance(found, Account), f"seed {seed} with {nodes} nodes: {found}"
        assert found.commits > 0


@pytest.mark.slow("a simulated minute of a cluster")
@seeds([])
def test_a_seed_that_failed_once(seed: int) -> None:
    come_up_again(seed, "test_a_seed_that_failed_once", ToyClient)


@pytest.mark.slow("a simulated minute of a cluster")
@seeds([])
def test_a_seed_about_queues_that_failed_once(seed: int) -> None:
    come_up_again(seed, "test_a_seed_about_queues_that_failed_once", QueueCluster)


def come_up_again(seed: int, test: str, subject: Subject) -> None:
    [once] = [
        one for one in regressions_of(f"simulation/test_seeds.py::{test}") if one.seed == seed
    ]
    for nodes in once.nodes:
        found = outcome(Job(seed, nodes, subject=subject))
        assert isinstance(found, Account), f"{once.reason}: {found}"


@pytest.mark.slow("many simulated minutes")
@SIMULATION
@pytest.mark.parametrize("slice_", range(QUEUE_SLICES))
def test_many_seeds_about_queues_find_nothing(slice_: int) -> None:
    seeds = range(1 + slice_, QUEUE_SEEDS + 1, QUEUE_SLICES)
    summary = check(
        [Job(seed, nodes, 10, subject=QueueCluster) for seed in seeds for nodes in (3, 5)]
    )
    assert summary.runs == 2 * QUEUE_SEEDS // QUEUE_SLICES
    assert summary.commits > 50


@pytest.mark.slow("many simulated minutes")
@SIMULATION
@pytest.mark.parametrize("slice_", range(SLICES))
def test_many_seeds_find_nothing(slice_: int) -> None:
    seeds = range(1 + slice_, SEEDS + 1, SLICES)
    summary = check([Job(seed, nodes) for seed in seeds for nodes in (3, 5)])
    assert summary.runs == 2 * SEEDS // SLICES
    assert summary.commits > 200
    assert summary.elections > 5


DIGEST = """
from tests.simulation.{} as subject
from tests.simulation.run import Run
print(Run(3, 3, seconds=8, subject=subject).go().digest)
"""


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        (ToyClient, "toy_client import ToyClient"),
        (QueueCluster, "queues.queue_cluster import QueueCluster"),
        (MqttCluster, "mqtt.mqtt_cluster import MqttCluster"),
    ],
)
def test_a_seed_is_one_run_whatever_python_hashes(subject: Subject, name: str) -> None:
    """Nothing may depend on the order of a set of names, or on where an object lies in memory."""
    code = DIGEST.format(name)
    digests = set()
    for hash_seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        found = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(found.stdout)
    digests.add(f"{Run(3, 3, seconds=8, subject=subject).go().digest}\n")
    assert len(digests) == 1


def test_other_seeds_are_other_runs() -> None:
    digests = {Run(seed, 3, seconds=4).go().digest for seed in (1, 2, 3)}
    assert len(digests) == 3


def test_leaving_out_a_fault_leaves_the_others_where_they_were() -> None:
    whole = Run(1, 3).plan
    numbers = [fault.number for fault in whole]
    assert len(whole) > 1
    assert Run(1, 3, without=numbers[:1]).plan == whole[1:]


@pytest.mark.parametrize("is_ended", [False, True])
def test_what_was_ended_does_not_come_back_into_the_calm(is_ended: bool) -> None:
    run = Run(1, 3)
    create(run.workload)
    for name in run.cluster.names:
        run.cluster.start(name)
    run.faults.follow([Fault(0, "go back", 3 * SECOND_US, 2 * SECOND_US)])
    run.clockwork.run(4 * SECOND_US)
    if is_ended:
        run.faults.end_all()
    run.clockwork.run(6 * SECOND_US)
    assert any(machine.is_hurt for machine in run.cluster.machines.values()) is not is_ended
