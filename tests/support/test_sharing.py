"""Tests of how files are shared out, and in which order."""

from __future__ import annotations

import pytest

from tests.support.sharing import USUAL_S, order_of, seconds_of, share_of, usual_s

ALARMS, SCENARIOS = "tests/compat/test_alarms.py::test_a", "tests/compat/test_scenarios.py::b"


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_file_goes_to_one_process(*, is_asked: bool) -> None:
    share = share_of("tests/raft/test_log.py::TestLog::test_it[a::b]", rabbitmq_is_asked=is_asked)
    assert share == "tests/raft/test_log.py"


def test_all_that_asks_one_rabbitmq_goes_to_one_process() -> None:
    assert share_of(ALARMS, rabbitmq_is_asked=True) == share_of(SCENARIOS, rabbitmq_is_asked=True)


def test_what_is_recorded_is_compared_by_any_process() -> None:
    shares = {share_of(each, rabbitmq_is_asked=False) for each in (ALARMS, SCENARIOS)}
    assert len(shares) == 2


def test_a_mark_says_how_long_a_test_takes(request: pytest.FixtureRequest) -> None:
    usual = seconds_of(request.node)
    request.node.add_marker(pytest.mark.interop)
    beside_clients = seconds_of(request.node)
    request.node.add_marker(pytest.mark.slow("nodes start as processes", seconds=40))
    assert usual < beside_clients < seconds_of(request.node) == 40


def test_a_folder_says_how_long_its_tests_take() -> None:
    assert usual_s("tests/raft/test_log.py::test_it") == USUAL_S
    assert usual_s("tests/broker/cluster/queues/test_membership.py::test_it") > 10 * USUAL_S
    assert usual_s("tests/broker/clusters.py::test_it") == USUAL_S


def test_the_file_that_takes_longest_is_begun_first_and_none_is_torn() -> None:
    """However many tests it has."""
    shares = [*"aaaa", "b", *"ccc", "d"]
    seconds = [1.0] * 4 + [40.0] + [2.0, 0.5, 3.0] + [1.0]
    order = order_of(shares, seconds)
    assert "".join(shares[place] for place in order) == "bcccaaaad"
    assert order == [4, 5, 6, 7, 0, 1, 2, 3, 8]
