"""Verdicts: what became of mutants, and the tables that say who kills whom."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.mutant import Mutant


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a mutant that the tests of one family looked for."""

    family: str
    mutant: Mutant
    failure: str | None
    """The failure that was found; None if it escaped."""
    cpu_s: float
    runs: int = 0
    """How many simulated runs it took; 0 where tests look for it."""

    def row(self) -> str:
        """A row of a table."""
        failure = (self.failure or "escaped").split(": ")[0]
        words = failure.split(" ")
        kind = " ".join(words[:2]) if words[0] in ("inv", "rule") else words[0]
        cells = (self.mutant.number, self.mutant.mistake, f"`{self.mutant.where}`")
        how = f"{self.runs} | {self.cpu_s:.0f}" if self.runs else f"{self.cpu_s:.1f}"
        return f"| {' | '.join(cells)} | {how} | {kind} |"
