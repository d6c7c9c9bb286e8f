"""The short version of `make torture`: a few faults with a fixed seed."""

import time
from pathlib import Path

import pytest

from fluffle.broker.torture.conduct import conducted
from fluffle.broker.torture.diary import Diary
from fluffle.broker.torture.run import Order
from tests.torture.systems import SYSTEMS

KINDS = ("kill", "kill-twice", "restart", "reset-clients")


@pytest.mark.slow
async def test_a_lone_node_keeps_its_promises_under_torture(tmp_path: Path) -> None:
    told: list[str] = []
    diary = Diary(time.monotonic_ns)
    async with SYSTEMS["lone"](tmp_path) as system:
        order = Order(seconds=15.0, seed=4, kinds=KINDS)
        code = await conducted(system, order, diary, told.append)
    assert code == 0, "\n".join(told)
    assert diary.judge.report.confirmed > 100
    assert diary.judge.report.duplicated > 0
    assert told[-1].startswith("torture seed=4 ")
