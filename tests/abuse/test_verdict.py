"""The verdict of a run: bounds follow from what the machine gave the node."""

from __future__ import annotations

import pytest

from tests.abuse.process_samples import Sample
from tests.abuse.verdict import Round, flooded, slowness


def sample(run_s: float = 0.0, queued_s: float = 0.0) -> Sample:
    return Sample(
        resident_mib=30.0, files=20, threads=2, cpu_s=run_s, run_s=run_s, queued_s=queued_s
    )


@pytest.mark.parametrize(
    ("end", "times"), [((0.0, 0.0), 1.0), ((2.0, 0.0), 1.0), ((2.0, 1.0), 1.5), ((1.0, 3.0), 4.0)]
)
def test_a_node_is_as_slow_as_it_waits_for_a_processor(
    end: tuple[float, float], times: float
) -> None:
    start = sample(1.0, 1.0)
    assert slowness(start, sample(1.0 + end[0], 1.0 + end[1])) == times


def beside_a_flooder(confirm_ms: float, *, times: float = 1.0, control_ms: float = 1.0) -> Round:
    return Round(
        seconds=2.0,
        worst=sample(),
        calm=sample(),
        confirm_ms=[confirm_ms] * 40,
        deliver_ms=[],
        control_ms=[control_ms] * 40,
        slowness=times,
        flooder="flood: it",
    )


def test_on_a_quiet_machine_a_flooder_may_cost_others_fifty_milliseconds() -> None:
    assert list(flooded([beside_a_flooder(50.0)])) == []
    (found,) = flooded([beside_a_flooder(51.0)])
    assert "more than 50.0" in found


def test_on_a_busy_one_more_by_as_much_as_it_is_slower() -> None:
    assert list(flooded([beside_a_flooder(250.0, times=2.0)])) == []
    assert list(flooded([beside_a_flooder(80.0, control_ms=20.0)])) == []
    assert len([*flooded([beside_a_flooder(251.0, times=2.0)])]) == 1
