"""Power cuts of a cluster, of one node and of all: what was answered is there when they start."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.crash.power_cuts import cuts, findings, record_cluster
from tests.suite.seeds import is_night
from tests.support.cluster_nodes import ports_of_nodes

CUTS = 20 if is_night() else 5


@pytest.mark.slow("each power cut starts the nodes of a cluster anew", seconds=20)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_cluster_has_all_that_it_answered_before_a_power_cut(tmp_path: Path, seed: int) -> None:
    random, ports = Random(seed), ports_of_nodes(3)
    recording = record_cluster(tmp_path, ports, seed, steps=60)
    chosen = cuts(recording, ports, CUTS, random)
    assert {len(cut.struck) for cut in chosen} == {1, 3}, "of one node, and of all"
    for cut, wrong in findings(tmp_path, recording, ports, chosen, random):
        assert not wrong, f"seed {seed}, {cut}: {wrong[:5]}"
