"""The command line: what it refuses, with what is right; what it says when all is well."""

import pytest

from tests.simulation.__main__ import command_of, main
from tests.simulation.options import parsed
from tests.simulation.run import Run
from tests.simulation.seeds import Job, attempt


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--nodes three", "numbers from 2 to 5 are wanted, as 3 or 3,5, not 'three'"),
        ("--nodes 3,", "numbers from 2 to 5 are wanted, as 3 or 3,5, not '3,'"),
        ("--nodes 1", "numbers from 2 to 5 are wanted, as 3 or 3,5, not '1'"),
        ("--nodes 3,6", "numbers from 2 to 5 are wanted, as 3 or 3,5, not '3,6'"),
        ("--seeds 0", "argument --seeds: a number from 1 on is wanted, not '0'"),
        ("--seconds -1", "argument --seconds: a number from 1 on is wanted, not '-1'"),
        ("--jobs 0", "argument --jobs: a number from 1 on is wanted, not '0'"),
        ("--jobs many", "argument --jobs: a number from 1 on is wanted, not 'many'"),
        ("--failures 0", "argument --failures: a number from 1 on is wanted, not '0'"),
        ("--without 3", "--without is about one run: name it with --seed"),
        ("--replay", "--replay is about one run: name it with --seed"),
        ("--shrink", "--shrink is about one run: name it with --seed"),
        ("--trace 9", "--trace is about one run: name it with --seed"),
        ("--seed 1 --without 3;8", "numbers of faults are wanted, as 3,8, not '3;8'"),
        ("--seed 1 --seeds 2", "not allowed with"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_right(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_only_faults_of_that_run_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Run(1, 3, seconds=10).plan
    line = ["--seed", "1", "--nodes", "3", "--seconds", "10", "--without"]
    assert parsed([*line, str(plan[0].number)]).without == [plan[0].number]
    with pytest.raises(SystemExit):
        parsed([*line, "0,99999"])
    assert "seed 1 with 3 nodes has no fault 99999; it has 0, 1" in capsys.readouterr().err


def test_a_seed_that_passes_says_so_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--nodes", "3", "--seconds", "3", "--replay"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("seed 1 with 3 nodes passed: ")
    assert last.endswith(f"digest {Run(1, 3, seconds=3).go().digest}")


def test_a_run_has_its_processor_time() -> None:
    assert attempt(Job(1, 3, 3))[0].cpu_s > 0


def test_many_runs_are_reported_as_they_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.simulation.__main__.RUNS_A_LINE", 1)
    assert main(["--seeds", "2", "--nodes", "3", "--seconds", "1", "--jobs", "1"]) == 0
    output = capsys.readouterr()
    assert output.err.startswith("1 of 2 runs, 0 failed, after ")
    assert len(output.err.splitlines()) == 1
    assert output.out.startswith("faults: none\n2 runs, 0 failed; ")


def test_the_command_that_repeats_a_run_has_all_that_made_it() -> None:
    assert command_of(Job(7, 5)) == "python -m tests.simulation --seed 7 --nodes 5"
    assert command_of(Job(7, 5, 9, (3, 8))).endswith("--nodes 5 --seconds 9 --without 3,8")
