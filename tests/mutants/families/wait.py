"""Mistakes in what waits in a queue or is held for too long, and in what is forgotten."""

from tests.mutants.change import Remove, Swap
from tests.mutants.mutant import Mutant

WAITING = [
    Mutant("WA1", "they do not expire", Swap("A(..., B=C)", "A(..., B=None)")),
    Mutant("WA2", "of one moment any comes first", Swap("A += 1", "A -= 1")),
    Mutant("WA3", "a run counts as one", Swap("len(A)", "1")),
    Mutant("WA4", "a moment too late", Swap("A <= B", "A < B")),
    Mutant("WA5", "one run at a time", Swap("while A: ...", "if A: ...")),
    Mutant("WA6", "a run counts as one", Swap("len(A)", "1")),
    Mutant("WA7", "the last is on record", Swap("A.append(B)", "A = [B]")),
    Mutant("WA8", "they come back", Remove()),
    Mutant("WA9", "in any order", Swap("not A", "False")),
    Mutant(
        "WA10", "those held are swept out", Swap("(A for A in B if C)", "(A for A in B if not C)")
    ),
    Mutant("WA11", "a moment too late", Swap("A <= B", "A < B")),
    Mutant("WA12", "one at a time", Swap("while A: ...", "if A: ...")),
    Mutant("WA13", "what was settled is late", Swap("A.B", "True")),
    Mutant("WA14", "all have the same", Swap("B if A else C", "C")),
    Mutant("WA15", "the time begins anew", Swap("A or B", "B")),
    Mutant("WA16", "nobody looks", Swap("A + B", "A * 9")),
    Mutant("WA17", "only one is settled", Swap("A -= B", "A -= 1")),
    Mutant("WA18", "nothing is forgotten", Swap("not A", "A is None")),
    Mutant("WA19", "without a policy it is the last", Swap("A.B", "A._timeout_ms")),
    Mutant("WA20", "what is held keeps its limit", Remove()),
    Mutant("WA21", "all is late", Swap("A - B", "A")),
    Mutant("WA22", "held since the last", Swap("A[0]", "A[-1]")),
    Mutant("WA23", "nobody looks again", Remove()),
    Mutant("WA24", "looked at all the time", Swap("A + B", "A")),
    Mutant("WA25", "the last is next", Swap("A[0]", "A[-1]")),
]

ORDER = [
    Mutant("OR1", "what was published before a consumer came is for it, too", Remove()),
    Mutant("OR2", "what was published before is got though a consumer had room", Remove()),
    Mutant("OR3", "what was published before is purged though a consumer had room", Remove()),
]
