"""A node that serves clients, metrics and the management API is small while nothing happens."""

import pytest

from benchmarks.machine import placements
from benchmarks.own import SERVED, resident_mib

RESIDENT_MIB_MAX = 64.0
"""Limit of resident memory, so that it lives in a container of 128 MiB."""


@pytest.mark.slow("a process is measured when its start is over")
@pytest.mark.parametrize("what", SERVED)
def test_an_idle_node_is_small(what: str) -> None:
    place = placements(pin_rabbitmq=False)["fluffle"]
    assert resident_mib(place, *SERVED[what]) <= RESIDENT_MIB_MAX
