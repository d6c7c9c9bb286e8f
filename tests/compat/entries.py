"""Recorded answers of an oracle in files: the question, the version, the day.

A file is a list of entries, by name.  An entry is a line that says what it is, then a line for each
thing that was heard: who heard it, and what.  `scenario` is the fingerprint of what was asked.
`digest` covers all of the entry: it is written when RabbitMQ has been asked, and one that does not
fit says that the entry was changed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from tests.compat.fingerprint import hashed
from tests.compat.scenario import Transcript

FOLDER = Path(__file__).with_name("transcripts")
SUFFIX = ".jsonl"
BROKERS = ("rabbitmq", "mosquitto")
"""Brokers that are asked; the name stands in an entry beside the version."""
FIELDS = ("day", "scenario", "digest")


@dataclass(frozen=True, slots=True)
class Asked:
    """Question to RabbitMQ: the entry of a file, and the fingerprint of the code that asks."""

    file: str
    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Recorded transcript with its version, day and digest."""

    name: str
    version: str
    """Version of the broker."""
    day: str
    scenario: str
    digest: str
    transcript: Transcript
    broker: str = BROKERS[0]

    @classmethod
    def recorded(
        cls,
        asked: Asked,
        version: str,
        day: str,
        transcript: Transcript,
        broker: str = BROKERS[0],
    ) -> Self:
        """That of an answer which a broker has just given."""
        digest = digest_of(asked.name, version, day, asked.fingerprint, transcript)
        return cls(asked.name, version, day, asked.fingerprint, digest, transcript, broker)

    @property
    def is_genuine(self) -> bool:
        """True if it is as it was recorded."""
        said = self.name, self.version, self.day, self.scenario, self.transcript
        return self.digest == digest_of(*said)

    def lines(self) -> Iterator[str]:
        """Lines of an entry in its file."""
        rest = {field: getattr(self, field) for field in FIELDS}
        yield line_of({"name": self.name, self.broker: self.version, **rest})
        yield from map(line_of, rows(self.transcript))


def digest_of(name: str, version: str, day: str, scenario: str, transcript: Transcript) -> str:
    return hashed(json.dumps([name, version, day, scenario, *rows(transcript)]))


def rows(transcript: Transcript) -> Iterator[list[str]]:
    """Each line with who heard it; who heard nothing stands alone."""
    for name, lines in sorted(transcript.items()):
        yield from ([name, line] for line in lines)
        if not lines:
            yield [name]


def line_of(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


class ChangedByHand(AssertionError):
    """Entry of a file that differs from what was recorded."""


class File:
    """The entries of one file; changed by `put` alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """Entries by name, in order.  ChangedByHand."""
        if not self._path.exists():
            return {}
        lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
        read = [*map(read_entry, sections(self._path, lines))]
        return {entry.name: entry for entry in read}

    def put(self, entry: Entry) -> None:
        """In the place of what has its name."""
        self._write({**self.entries, entry.name: entry})

    def keep(self, names: Iterable[str]) -> None:
        """Forget all others."""
        kept = self.entries.keys() & set(names)
        if kept != self.entries.keys():
            self._write({name: self.entries[name] for name in kept})

    @staticmethod
    def text(entries: Mapping[str, Entry]) -> str:
        """Text of a file with these entries, whatever their order."""
        lines = (line for _, entry in sorted(entries.items()) for line in entry.lines())
        return "".join(f"{line}\n" for line in lines)

    def _write(self, entries: Mapping[str, Entry]) -> None:
        """A file of no entries is none."""
        self.__dict__.pop("entries", None)
        if not entries:
            self._path.unlink(missing_ok=True)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(self.text(entries), encoding="utf-8")


def sections(path: Path, lines: list[str]) -> Iterator[list[object]]:
    """The lines of each entry."""
    found: list[object] = []
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ChangedByHand(f"{path}:{number} is not as it was recorded") from error
        if isinstance(value, dict) and found:
            yield found
            found = []
        found.append(value)
    if found:
        yield found


def read_entry(section: list[object]) -> Entry:
    """Read an entry from its lines.  ChangedByHand."""
    header, *heard = section
    broker = next((each for each in BROKERS if isinstance(header, dict) and each in header), None)
    if not isinstance(header, dict) or header.keys() != {"name", broker, *FIELDS}:
        raise ChangedByHand(f"an entry has no line that says what it is: {header}")
    transcript: Transcript = {}
    for row in heard:
        if not isinstance(row, list) or not row:
            raise ChangedByHand(f"{header['name']}: nobody has recorded {row}")
        name, *said = row
        transcript.setdefault(name, []).extend(said)
    version = header.pop(broker)
    return Entry(**header, version=version, transcript=transcript, broker=str(broker))
