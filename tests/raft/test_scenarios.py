"""The scenarios in `scenarios/`: what went wrong in other implementations, and what is delicate."""

from pathlib import Path

import pytest

from tests.raft.__main__ import main
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


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("jump a", "there is no command 'jump'; there are advance, alone, "),
        ("elect", "elect takes NAME; missing a required argument: 'name'"),
        ("elect a b", "elect takes NAME; too many positional arguments"),
        ("elect z", "there is no node 'z'; there are a, b, c"),
        ("suspect a z", "there is no node 'z'"),
        ("lose a b AppendReqest", "there is no message 'AppendReqest'; there are AppendAccepted, "),
        ("expect no message a b Vote", "there is no message 'Vote'"),
        ("expect no a", "expect message a b Kind, or expect no message a b [Kind]"),
        ("expect a wins", "there is no expectation 'wins'; there are applied, "),
        ("expect a term", "expect term takes TEXT; missing a required argument: 'text'"),
        ("expect a term one", "a number is wanted, not 'one'"),
        ("expect a is king", "there is no role 'king'; there are candidate, follower, "),
        ("expect a quarantined maybe", "there is no answer 'maybe'; there are no, yes"),
        ("expect c term 1", "c is down"),
        ("propose c x", "c is down"),
        ("crash c", "c is down"),
        ("sync c", "c is down"),
        ("expect b leads", "b is paused"),
        ("resume a", "a is not paused"),
        ("start a", "a is up already"),
        ("change a depose b", "there is no change 'depose'; there are add, promote, remove"),
        ("refused NEVER propose a x", "there is no reason 'NEVER'"),
        ("tuning speed 3", "there is no tuning 'speed'"),
    ],
)
def test_a_line_that_means_nothing_is_refused_with_a_sentence(line: str, sentence: str) -> None:
    text = f"nodes a b c\nelect a\ncrash c\npause b\n{line}"
    with pytest.raises(AssertionError) as failed:
        Scenario(text).play()
    assert str(failed.value).startswith(f"line 5: {line}: {sentence}")


def test_what_should_be_refused_and_is_not_fails_with_its_line() -> None:
    with pytest.raises(AssertionError, match=r"line 3: .*it was not refused"):
        Scenario("nodes a b c\nelect a\nrefused NOT_LEADER propose a x").play()


def test_files_are_played_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("nodes a b c\nexpect a term 7\n")
    assert main([str(SCENARIOS[0])]) == 0
    assert main([str(SCENARIOS[0]), str(wrong), str(tmp_path / "none.txt")]) == 1
    output = capsys.readouterr().out.splitlines()
    assert output[1] == f"{SCENARIOS[0]}: as it says"
    assert output[2].startswith(f"{wrong}: line 2: expect a term 7: ")
    assert "none.txt: " in output[-1]
