"""What is shared out how."""

from tests.support.sharing import share_of


def test_a_file_goes_to_one_process() -> None:
    assert share_of("tests/raft/test_log.py::TestLog::test_it[a::b]") == "tests/raft/test_log.py"


def test_all_that_asks_one_rabbitmq_goes_to_one_process() -> None:
    alarms, scenarios = "tests/compat/test_alarms.py::test_a", "tests/compat/test_scenarios.py::b"
    assert share_of(alarms) == share_of(scenarios)
