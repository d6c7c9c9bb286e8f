"""Freshness of the recordings of RabbitMQ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.differences import DIFFERENCES
from tests.compat.entries import FOLDER, SUFFIX, Asked, ChangedByHand, Entry, File
from tests.compat.questions import all_asked
from tests.compat.replay import AGAIN, Answers, Mode, Stale
from tests.compat.scenario import Transcript

VERSION = "4.0.5"
ASKED = Asked("file", "file.asked", "1234")
CHANGED = Asked("file", "file.asked", "5678")
HEARD: Transcript = {"client": ["[1] Basic.QosOk()", "ü"], "notes": ["a\nb"], "silent": []}
OTHER: Transcript = {"client": ["[1] Basic.CancelOk()"]}


@pytest.fixture(scope="module")
def asked() -> dict[str, Asked]:
    return {each.name: each for each in all_asked()}


@pytest.fixture(scope="module")
def files(answers: Answers, asked: dict[str, Asked]) -> dict[str, File]:
    """Recordings by name; those without a question are dropped when anything is recorded."""
    files = {path.stem: File(path) for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}
    if answers.mode is Mode.RECORD:
        for name, file in files.items():
            file.keep(each.name for each in asked.values() if each.file == name)
    return files


@pytest.fixture(scope="module")
def entries(files: dict[str, File]) -> dict[str, Entry]:
    return {name: entry for file in files.values() for name, entry in file.entries.items()}


def test_each_is_the_answer_to_what_is_asked_now(
    asked: dict[str, Asked], entries: dict[str, Entry]
) -> None:
    stale = [
        name
        for name, each in asked.items()
        if name not in entries or entries[name].scenario != each.fingerprint
    ]
    assert stale == [], f"these are asked otherwise than when they were recorded; {AGAIN}"


def test_none_was_changed_by_hand(entries: dict[str, Entry]) -> None:
    changed = [name for name, entry in entries.items() if not entry.is_genuine]
    assert changed == [], f"RabbitMQ has not said this; {AGAIN}"


def test_each_is_where_it_is_looked_for(asked: dict[str, Asked], files: dict[str, File]) -> None:
    there = {name: stem for stem, file in files.items() for name in file.entries}
    wanted = {name: each.file for name, each in asked.items()}
    strangers = {name for name, stem in there.items() if wanted.get(name) != stem}
    assert strangers == set(), f"nobody asks this any more; {AGAIN}"


def test_files_are_as_they_would_be_written(files: dict[str, File]) -> None:
    """Order and all."""
    for name, file in files.items():
        text = (FOLDER / f"{name}{SUFFIX}").read_text(encoding="utf-8")
        assert text == file.text(file.entries), name


def test_every_difference_is_still_needed(entries: dict[str, Entry]) -> None:
    stale = [
        difference.reason
        for difference in DIFFERENCES
        if not any(
            difference.applied(entry.transcript) != entry.transcript
            for name, entry in entries.items()
            if difference.concerns(name)
        )
    ]
    assert stale == []


class RabbitMQ:
    """Says what it is told to, and counts how often it is asked."""

    def __init__(self, heard: Transcript) -> None:
        self.heard = heard
        self.asked = 0

    def __call__(self) -> Transcript:
        self.asked += 1
        return self.heard


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Answers]:
    """A run of tests, with all that those before it have recorded."""

    def run(mode: Mode, version: str | None = VERSION) -> Answers:
        return Answers(mode, tmp_path, lambda: version)

    return run


@pytest.fixture
def recorded(run: Callable[..., Answers], tmp_path: Path) -> Path:
    """A file with what was heard."""
    run(Mode.RECORD).of(ASKED, RabbitMQ(HEARD))
    return tmp_path / f"file{SUFFIX}"


@pytest.mark.usefixtures("recorded")
def test_what_is_recorded_is_not_asked_again(run: Callable[..., Answers]) -> None:
    rabbitmq = RabbitMQ(OTHER)
    assert run(Mode.REPLAY).both(ASKED, rabbitmq, lambda: OTHER) == (HEARD, OTHER)
    assert rabbitmq.asked == 0


def test_what_is_not_recorded_is_asked(run: Callable[..., Answers], tmp_path: Path) -> None:
    assert run(Mode.REPLAY).both(ASKED, RabbitMQ(HEARD), lambda: OTHER) == (HEARD, OTHER)
    assert [*tmp_path.iterdir()] == [], "only a run that records does"


@pytest.mark.usefixtures("recorded")
def test_rabbitmq_is_asked_when_the_scenario_has_changed(run: Callable[..., Answers]) -> None:
    rabbitmq = RabbitMQ(OTHER)
    replaying = run(Mode.REPLAY)
    assert replaying.of(CHANGED, rabbitmq) == replaying.of(CHANGED, rabbitmq) == OTHER
    assert rabbitmq.asked == 1, "once a run is enough"


@pytest.mark.usefixtures("recorded")
def test_a_changed_scenario_fails_where_there_is_no_rabbitmq(run: Callable[..., Answers]) -> None:
    with pytest.raises(Stale, match="record it again"):
        run(Mode.REPLAY, None).of(CHANGED, RabbitMQ(OTHER))


@pytest.mark.parametrize("part", ["Basic.QosOk", "ü", "1234", VERSION, '"notes"', '"silent"', "-"])
def test_what_was_changed_by_hand_fails(
    run: Callable[..., Answers], recorded: Path, part: str
) -> None:
    text = recorded.read_text(encoding="utf-8")
    changed = text.replace(part, f"{part[:-1]}x{part[-1:]}", 1)
    assert changed != text
    recorded.write_text(changed, encoding="utf-8")
    with pytest.raises(ChangedByHand):
        run(Mode.REPLAY).of(ASKED, RabbitMQ(HEARD))


def test_lines_that_are_missing_or_moved_are_noticed(
    run: Callable[..., Answers], recorded: Path
) -> None:
    header, one, two, *more = recorded.read_text(encoding="utf-8").splitlines()
    for lines in ([header, two, one, *more], [header, one, *more], [one, two, *more]):
        recorded.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        with pytest.raises(ChangedByHand):
            run(Mode.REPLAY).of(ASKED, RabbitMQ(HEARD))


@pytest.mark.usefixtures("recorded")
def test_rabbitmq_is_asked_in_a_live_run(run: Callable[..., Answers]) -> None:
    rabbitmq = RabbitMQ(HEARD)
    assert run(Mode.LIVE).of(ASKED, rabbitmq) == HEARD
    assert rabbitmq.asked == 1


@pytest.mark.usefixtures("recorded")
def test_a_live_run_fails_if_rabbitmq_says_something_else(run: Callable[..., Answers]) -> None:
    with pytest.raises(AssertionError, match="does not say what it said"):
        run(Mode.LIVE).of(ASKED, RabbitMQ(OTHER))


def test_what_is_recorded_again_keeps_its_day_if_it_is_the_same(
    run: Callable[..., Answers], recorded: Path
) -> None:
    old = Entry.recorded(ASKED, VERSION, "2001-02-03", HEARD)
    File(recorded).put(old)
    run(Mode.RECORD).of(ASKED, RabbitMQ(HEARD))
    assert File(recorded).entries == {ASKED.name: old}
    run(Mode.RECORD).of(ASKED, RabbitMQ(OTHER))
    assert File(recorded).entries[ASKED.name].day > old.day


def test_an_entry_says_what_it_is(recorded: Path) -> None:
    header, *rows = map(json.loads, recorded.read_text(encoding="utf-8").splitlines())
    assert (header["name"], header["rabbitmq"]) == (ASKED.name, VERSION)
    assert rows == [
        ["client", "[1] Basic.QosOk()"],
        ["client", "ü"],
        ["notes", "a\nb"],
        ["silent"],
    ]
