"""Answers of RabbitMQ, live or recorded.

It is read if nothing has changed since.  RabbitMQ is asked if there is nothing to read, or another
scenario has been recorded than there is now, and always with `--live` or `--record`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path

from tests.compat.differences import DIFFERENCES
from tests.compat.entries import BROKERS, FOLDER, SUFFIX, Asked, ChangedByHand, Entry, File
from tests.compat.oracle import installed_version
from tests.compat.scenario import Transcript

AGAIN = "record it again: pytest tests/compat --record"


class Mode(Enum):
    """How a run uses what is recorded."""

    REPLAY = auto()
    LIVE = auto()
    """RabbitMQ is asked, and what is recorded is compared with that."""
    RECORD = auto()
    """RabbitMQ is asked, and what it says is written down where it is not yet."""


class Stale(AssertionError):
    """Recording that answers another question than the present one."""


class Answers:
    """Answers of RabbitMQ, in a run of the tests."""

    def __init__(
        self,
        mode: Mode,
        folder: Path = FOLDER,
        version: Callable[[], str | None] = installed_version,
        broker: str = BROKERS[0],
    ) -> None:
        """`version` is that of the broker there is, if there is one."""
        self.mode = mode
        self._folder = folder
        self._version = version
        self._broker = broker
        self._files: dict[str, File] = {}
        self._heard: dict[Asked, Transcript] = {}
        """Answers of RabbitMQ in this run."""

    @property
    def is_live(self) -> bool:
        return self.mode is not Mode.REPLAY

    def file(self, name: str) -> File:
        if name not in self._files:
            self._files[name] = File(self._folder / f"{name}{SUFFIX}")
        return self._files[name]

    def recorded(self, asked: Asked) -> Transcript | None:
        """Recorded answer to exactly this question, if there is one and recordings are used.

        ChangedByHand; Stale if RabbitMQ has to be asked again, and there is none.
        """
        if asked in self._heard:
            return self._heard[asked]
        if self.is_live:
            return None
        entry = self.current(asked)
        if entry is None and asked.name in self.file(asked.file).entries and not self._version():
            raise Stale(
                f"what is asked is not what was recorded, and no {self._broker} is here; {AGAIN}"
            )
        return entry.transcript if entry is not None else None

    def current(self, asked: Asked) -> Entry | None:
        """Entry in the files, if it answers exactly this question.  ChangedByHand."""
        entry = self.file(asked.file).entries.get(asked.name)
        if entry is not None and not entry.is_genuine:
            raise ChangedByHand(f"{entry.name} is not as {self._broker} has said it; {AGAIN}")
        return entry if entry is not None and entry.scenario == asked.fingerprint else None

    def both(
        self, asked: Asked, theirs: Callable[[], Transcript], ours: Callable[[], Transcript]
    ) -> tuple[Transcript, Transcript]:
        """Transcripts of RabbitMQ and of fluffle; both are made at once, if both are."""
        recorded = self.recorded(asked)
        if recorded is not None:
            return recorded, ours()
        with ThreadPoolExecutor(1) as beside:  # some wait for a silent peer's end
            running = beside.submit(theirs)
            here = ours()
            heard = running.result()
        self.note(asked, heard)
        return heard, here

    def of(self, asked: Asked, theirs: Callable[[], Transcript]) -> Transcript:
        """Transcript of RabbitMQ."""
        recorded = self.recorded(asked)
        if recorded is None:
            self.note(asked, recorded := theirs())
        return recorded

    def note(self, asked: Asked, heard: Transcript) -> None:
        """Record what RabbitMQ has just answered, or see that it is what it once has."""
        self._heard[asked] = heard
        if self.mode is Mode.RECORD:
            self._record(asked, heard)
        elif self.mode is Mode.LIVE and (entry := self.current(asked)) is not None:
            same = meant(asked.name, heard) == meant(asked.name, entry.transcript)
            assert same, (
                f"{self._broker} does not say what it said on {entry.day}: {asked.name}; {AGAIN}"
            )

    def _record(self, asked: Asked, heard: Transcript) -> None:
        """Record a transcript; an unchanged one keeps its day."""
        known = self.file(asked.file).entries.get(asked.name)
        version, day = self._version() or "", datetime.now(UTC).date().isoformat()
        if known is not None and known.is_genuine and known.version == version:
            day = known.day if known.transcript == heard else day
        self.file(asked.file).put(Entry.recorded(asked, version, day, heard, self._broker))


def meant(name: str, theirs: Transcript) -> Transcript:
    """Transcript expected of fluffle where RabbitMQ's is `theirs`."""
    for difference in DIFFERENCES:
        if difference.concerns(name):
            theirs = difference.applied(theirs)
    return theirs
