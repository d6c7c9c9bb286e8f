"""Findings of a checker: numbers, and sentences about what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

SENTENCES_MAX = 50
"""Of each kind of breach; the rest is only counted."""


class Breach(Enum):
    """Breach of a promise to clients, worst first."""

    LOST = "lost"
    """Confirmed, and never received."""
    LET_IN = "let in with an old disk"
    """A node that had confirmed what was not on its disk any more, and served."""
    APART = "stands apart"
    """A node that was to join the cluster, and is of none, or of another."""
    UNEXPECTED = "unexpected"
    """Never published, or nothing that a broker may say."""
    STALE = "stale answer"
    """The answer contradicts what was answered before it was asked for, as "not there" after
    declare-ok."""
    LOCKED = "locked for ever"
    """An exclusive queue outlives its connection."""
    BACK = "acknowledged and back"
    LIED = "untrue redelivered"
    """Or a count of deliveries that falls."""
    DISORDERED = "out of order"
    SHARED = "in two hands"
    """Which no broker promises when a consumer cannot be reached."""
    OUTDATED = "outdated yes"
    """A thing is there still, by a node that has not heard of its deletion: to say yes, or to route
    a message, no node asks another."""


NOT_PROMISED = {Breach.SHARED, Breach.OUTDATED}


@dataclass(slots=True)
class Findings:
    """Numbers and breaches that a history comes to."""

    attempted: int = 0
    confirmed: int = 0
    refused: int = 0
    unanswered: int = 0
    """Neither confirmed nor refused: the connection ended before."""
    returned: int = 0
    """Confirmed, and returned as there is no queue for them: some are published so."""
    received: int = 0
    """Messages and queues that they were received from, each once."""
    duplicated: int = 0
    """Received again."""
    recovered: int = 0
    """Received though never confirmed: they came further than the confirm."""
    refused_received: int = 0
    not_owed: int = 0
    """Confirmed and not received, which is right: cleared away, transient or handed out without
    acknowledgement."""
    complaints: Counter[str] = field(default_factory=Counter)
    """Of the broker, by its words."""
    breaches: Counter[Breach] = field(default_factory=Counter)
    _sentences: dict[Breach, list[str]] = field(default_factory=dict)

    def add(self, breach: Breach, sentence: str) -> None:
        self.breaches[breach] += 1
        sentences = self._sentences.setdefault(breach, [])
        if len(sentences) < SENTENCES_MAX:
            sentences.append(sentence)

    @property
    def is_clean(self) -> bool:
        return not self.breaches

    @property
    def is_good(self) -> bool:
        """Whether nothing was broken that is promised."""
        return not self.broken

    @property
    def broken(self) -> int:
        """Number of breaches of what is promised."""
        return sum(self.breaches[breach] for breach in {*self.breaches} - NOT_PROMISED)

    def numbers(self) -> dict[str, int]:
        """Return all counts by name."""
        return {
            "attempted": self.attempted,
            "confirmed": self.confirmed,
            "refused": self.refused,
            "unanswered": self.unanswered,
            "returned": self.returned,
            "received": self.received,
            "duplicated": self.duplicated,
            "recovered": self.recovered,
            "refused received": self.refused_received,
            "not owed": self.not_owed,
            **{breach.value: self.breaches[breach] for breach in Breach},
        }

    def sentences(self) -> Iterator[str]:
        """Yield the breaches, worst first; not more than so many of a kind."""
        return (line for breach in Breach for line in self._sentences.get(breach, ()))
