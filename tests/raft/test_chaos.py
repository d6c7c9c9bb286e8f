"""Random runs; a failure names its seed: `Chaos(seed, nodes).run(1_500)` repeats it."""

import pytest

from tests.raft.chaos import Chaos


@pytest.mark.parametrize("nodes", ["abc", "abcde"])
@pytest.mark.parametrize("seed", range(8))
def test_no_invariant_breaks(seed: int, nodes: str) -> None:
    Chaos(seed, nodes).run(1_000)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", ["abc", "abcde"])
@pytest.mark.parametrize("first", range(100, 300, 20))
def test_no_invariant_breaks_in_many_runs(first: int, nodes: str) -> None:
    for seed in range(first, first + 20):
        Chaos(seed, nodes).run(1_500)
