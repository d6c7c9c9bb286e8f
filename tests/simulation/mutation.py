"""The simulator is tested too: known mistakes are put into the code under test, one at a time.

The first seed that fails *kills* a mutant; what no seed finds, a scenario or an example may.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.verdict import Verdict
from tests.raft.scenario import Scenario
from tests.simulation.queues.queue_cluster import QueueCluster
from tests.simulation.run import Subject
from tests.simulation.seeds import Failure, Job, outcome, outcomes
from tests.simulation.toy_client import ToyClient

SCENARIOS = Path(__file__).parent.parent / "raft" / "scenarios"
SEEDS_MAX = 25
"""A mutant that lives so long, with 3 and with 5 nodes, has escaped."""
SUBJECTS: dict[str, Subject] = {"groups": ToyClient, "queues": QueueCluster}
"""The subject of the runs that look for the mutants of a family."""
SECONDS = {"groups": 30, "queues": 15}
"""Simulated, of each run: mistakes show early, and many short runs have more mixes of faults."""


def jobs_for(family: str, seeds: int) -> Iterator[Job]:
    """3 and 5 nodes in turn, with every seed."""
    for seed in range(1, seeds + 1):
        for nodes in (3, 5):
            yield Job(seed, nodes, SECONDS[family], subject=SUBJECTS[family])


def hunt(family: str, mutant: Mutant, seeds: int = SEEDS_MAX) -> Verdict:
    """Run seeds until one finds the mistake."""
    began = time.process_time()
    runs = 0
    with mutant.in_place():
        for runs, job in enumerate(jobs_for(family, seeds), 1):
            found = outcome(job)
            if isinstance(found, Failure):
                return Verdict(family, mutant, found.text, time.process_time() - began, runs)
        failure = scenario_that_fails() if family == "groups" else example_that_fails()
    return Verdict(family, mutant, failure, time.process_time() - began, runs)


def failure_of_the_original(family: str, processors: int) -> str | None:
    """The failure without any mistake, if anything: it would be taken for the death of each."""
    for found in outcomes(jobs_for(family, SEEDS_MAX), processors):
        if isinstance(found, Failure):
            return f"{found.job}: {found.text}"
    return None


def scenario_that_fails() -> str | None:
    """The first of `tests/raft/scenarios`, if any."""
    for path in sorted(SCENARIOS.glob("*.txt")):
        try:
            Scenario(path.read_text(encoding="utf-8")).play()
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - as of a run
            return f"{path.name}: {error}"
    return None


def example_that_fails() -> str | None:
    """The first of those of streams, of read indexes, or of dead letters that arrive, if any."""
    from tests.broker.cluster.queue_sessions.test_session_mutants import EXAMPLES
    from tests.broker.cluster.test_read_index import EXAMPLES as OF_READS
    from tests.broker.queues.quorum.test_deduplication import EXAMPLES as OF_ARRIVALS

    for example in (*EXAMPLES, *OF_READS, *OF_ARRIVALS):
        try:
            example()
        except Exception as error:  # noqa: BLE001 - as of a run
            return f"{getattr(example, '__name__', example)}: {error}"
    return None
