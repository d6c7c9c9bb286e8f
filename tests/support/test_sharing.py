"""What is shared out how."""

import pytest

from tests.support.sharing import share_of

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
