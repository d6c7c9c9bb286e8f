"""Freshness of the recordings of MQTT's oracles."""

import re

import pytest

from tests.compat.entries import SUFFIX, Asked, File
from tests.compat.mqtt.differences import DIFFERENCES
from tests.compat.mqtt.oracles import FOLDER, Oracles, asked_of
from tests.compat.mqtt.scenario import ROWS, Oracle, load_scenarios
from tests.compat.replay import AGAIN, Mode

SCENARIOS = load_scenarios()
ASKED = [(oracle, name) for name, each in sorted(SCENARIOS.items()) for oracle in each.oracles]


@pytest.fixture(scope="module")
def asked() -> dict[str, Asked]:
    all_asked = [asked_of(oracle, SCENARIOS[name]) for oracle, name in ASKED]
    return {each.name: each for each in all_asked}


@pytest.fixture(scope="module")
def files(oracles: Oracles, asked: dict[str, Asked]) -> dict[str, File]:
    """Recordings by name; those without a question are dropped when anything is recorded."""
    files = {path.stem: File(path) for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}
    if oracles.answers[Oracle.MOSQUITTO].mode is Mode.RECORD:
        for name, file in files.items():
            file.keep(each.name for each in asked.values() if each.file == name)
    return files


@pytest.mark.parametrize(
    ("oracle", "name"), ASKED, ids=lambda value: str(getattr(value, "value", value))
)
def test_an_oracle_has_answered(oracle: Oracle, name: str, oracles: Oracles) -> None:
    assert any(oracles.of(oracle, SCENARIOS[name]).values()), "nothing was heard"


def test_each_is_the_answer_to_what_is_asked_now(
    asked: dict[str, Asked], files: dict[str, File]
) -> None:
    entries = {name: entry for file in files.values() for name, entry in file.entries.items()}
    current = {name: entry.scenario for name, entry in entries.items()}
    assert current == {name: each.fingerprint for name, each in asked.items()}, AGAIN
    assert [name for name, entry in entries.items() if not entry.is_genuine] == [], AGAIN


def test_files_are_as_they_would_be_written(files: dict[str, File]) -> None:
    for name, file in files.items():
        text = (FOLDER / f"{name}{SUFFIX}").read_text(encoding="utf-8")
        assert text == file.text(file.entries), name


def test_every_difference_is_still_needed(oracles: Oracles) -> None:
    stale = {difference.reason for difference in DIFFERENCES}
    for name, each in SCENARIOS.items():
        theirs = oracles.of(each.reference, each)
        for difference in DIFFERENCES:
            if difference.concerns(name):
                rewritten = difference.applied(theirs)
                stale -= {difference.reason} if rewritten != theirs else set()
                theirs = rewritten
    assert stale == set()


def test_each_row_has_a_scenario() -> None:
    named = {row for each in SCENARIOS.values() for row in each.rows}
    assert named == set(ROWS)
    assert all(re.fullmatch(r"\d+(\.\d+)?", row) for row in ROWS)
