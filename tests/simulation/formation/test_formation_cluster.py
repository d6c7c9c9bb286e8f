"""Clusters are founded once, however many nodes are started with whatever size, whatever goes
wrong.

python -m tests.simulation.formation 1 2000
"""

from __future__ import annotations

import sys

import pytest

from fluffle.broker.config.config import ListenAddress
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES
from tests.simulation.facts import Violation
from tests.simulation.formation.__main__ import main
from tests.simulation.formation.formation_cluster import FormationCluster, Process, run

SEEDS, SEEDS_OF_MUTANTS = 30, 300


def test_one_cluster_is_founded_and_all_come_to_it() -> None:
    worlds = [run(seed) for seed in range(SEEDS)]
    assert sum(len(cluster.registered) for cluster in worlds) > SEEDS // 2
    assert sum(bool(cluster.joining) for cluster in worlds) > SEEDS // 4, "some have grown"
    assert run(1).clockwork.events == run(1).clockwork.events, "a seed says it all"


@FAMILIES["formation"].each()
def test_a_mistake_is_found(mutant: Mutant) -> None:
    with mutant.in_place():
        assert is_said_too_early() or any(map(fails, range(SEEDS_OF_MUTANTS))), mutant.mistake


def test_a_promise_is_on_the_disk_before_it_is_said() -> None:
    assert not is_said_too_early()


def is_said_too_early() -> bool:
    """No seed comes to harm by that: whoever draws the marks would have to lose one as well."""
    cluster = FormationCluster(0)
    process = Process(cluster, "a", {"a": ListenAddress("a", 1)})
    process.formation.look()
    return bool(process.formation.promise.mark or process.disk.group)


def fails(seed: int) -> bool:
    try:
        run(seed)
    except (Violation, AssertionError):
        return True
    return False


@pytest.mark.parametrize("words", [["--help"], [], ["2", "1"], ["x", "1"]])
def test_the_command_says_what_it_takes(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["formation", *words])
    with pytest.raises(SystemExit):
        main()
    assert "FIRST LAST" in "".join(capsys.readouterr())
