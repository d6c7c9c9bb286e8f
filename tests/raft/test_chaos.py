"""Random runs; a failure names its seed: `Chaos(seed, nodes).run(1_500)` repeats it."""

import pytest

from tests.raft.chaos import Chaos
from tests.suite.seeds import seeds


@pytest.mark.parametrize("nodes", ["abc", "abcde"])
@seeds(8)
def test_no_invariant_breaks(seed: int, nodes: str) -> None:
    Chaos(seed, nodes).run(1_000)


@pytest.mark.parametrize("nodes", ["abc", "abcde"])
@seeds(range(100, 117), at_night=200, slow=True)
def test_no_invariant_breaks_in_many_runs(seed: int, nodes: str) -> None:
    Chaos(seed, nodes).run(1_500)
