"""The scenarios in `scenarios/`: what went wrong in other implementations, and what is delicate."""

from pathlib import Path

import pytest

from tests.raft.scenario import Scenario, known_kinds, named_kinds

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    Scenario(path.read_text(encoding="utf-8")).play()


def test_scenarios_name_only_messages_that_exist() -> None:
    """A misspelt name would match nothing, and "no message" would hold for ever."""
    for path in SCENARIOS:
        assert named_kinds(path.read_text(encoding="utf-8")) <= known_kinds(), path


def test_scenarios_say_what_they_are_about() -> None:
    silent = [path.name for path in SCENARIOS if not path.read_text().startswith("# ")]
    assert silent == []


def test_a_wrong_expectation_fails_with_its_line() -> None:
    with pytest.raises(AssertionError, match="line 3: expect a term 7"):
        Scenario("nodes a b c\nelect a\nexpect a term 7").play()
