"""Mistakes in how batches are cut, and in the home of a classic queue."""

from tests.mutants.change import Remove, Swap
from tests.mutants.mutant import Mutant

BATCHES = [
    Mutant(
        "BA1",
        "what was done before has the times",
        Swap("slice(A, None)", "slice(0, len(contents))"),
    ),
    Mutant("BA2", "times are one place off", Swap("slice(A, None)", "slice(A + 1, None)")),
    Mutant("BA3", "numbers are those of what was done", Swap("A.B(C)", "A")),
    Mutant("BA4", "what is brought along stays behind", Remove()),
    Mutant("BA5", "what comes next brings as much", Remove()),
    Mutant("BA6", "a stretch has the first times", Swap("A(B, C)", "B")),
    Mutant("BA7", "stretches have the numbers of the first", Swap("A(B + C, B + D)", "A(C, D)")),
    Mutant("BA8", "who leads no more is believed", Swap("(A, B)", "(B,)")),
    Mutant("BA9", "what is here is reported of others", Swap("A + B", "1 + B")),
    Mutant(
        "BA10",
        "all have the first time",
        Swap("A(..., B=C)", "A(..., B=C[0] if isinstance(C, list) else C)"),
    ),
    Mutant("BA11", "a full disk refuses the dead", Swap("A or B", "B")),
    Mutant("BA12", "a full disk refuses nothing", Swap("A()", "True")),
    Mutant("BA13", "duplicates are refused", Swap("A is B.C", "A is not B.ACCEPTED")),
    Mutant("BA14", "the last number is not remembered", Swap("(A, B)", "(A, B - 1)")),
    Mutant("BA15", "parts are reported of the first", Swap("A + B", "A")),
    Mutant("BA16", "all runs have the first times", Swap("slice(A, B)", "slice(0, B - A)")),
    Mutant(
        "BA17",
        "a run has the time of its first",
        Swap("A(B, slice(C, D))", "B[C] if isinstance(B, list) else B"),
    ),
    Mutant(
        "BA18",
        "all runs have the first numbers",
        Swap("B(C, D) if A else None", "B(0, D - C) if A else None"),
    ),
    Mutant("BA19", "numbers stay behind", Swap("B if A else None", "None if A else None")),
    Mutant("BA20", "what is brought along stays behind", Swap("A(..., B=C)", "A(..., B=NEW)")),
    Mutant("BA21", "the last of a batch is left out", Swap("range(0, A, B)", "range(0, A - 1, B)")),
    Mutant("BA22", "all runs are reported as the first", Swap("A(..., B, C)", "A(..., 0, C)")),
    Mutant("BA23", "the last is kept", Swap("A(0, B, C)", "A(0, B - 1, C)")),
    Mutant("BA24", "the successor gets what has an outcome", Swap("A - B", "0")),
    Mutant(
        "BA25",
        "the successor gets the first times",
        Swap("A(..., B=C(D, E))", "A(..., B=C(D, slice(0, count)))"),
    ),
    Mutant("BA26", "the successor gets no numbers", Swap("A(B, C)", "None")),
    Mutant("BA27", "the successor gets no counts", Swap("A.B", "NEW")),
    Mutant("BA28", "the successor is not asked", Swap("A is not B", "True")),
    Mutant(
        "BA29",
        "what was done before has the times",
        Swap("slice(A, None)", "slice(0, len(contents))"),
    ),
    Mutant(
        "BA30",
        "all have the first time",
        Swap("A(..., B=C)", "A(..., B=C[0] if isinstance(C, list) else C)"),
    ),
    Mutant("BA31", "nothing that is partly taken waits", Swap("A.B", "EnqueueResult.ACCEPTED")),
    Mutant("BA32", "parts are reported of the first", Swap("A + B", "A")),
    Mutant("BA33", "what is refused is not said", Swap("A.B", "id")),
    Mutant("BA34", "an operation too few", Swap("A(B, C)", "A(B, 1)")),
    Mutant("BA35", "what was held back is taken", Swap("B if A else C", "B")),
    Mutant("BA36", "more is reported than was held back", Swap("A - B", "A")),
]

HOME = [
    Mutant("HO1", "nothing waits for the disk", Swap("B if A else C", "C if A else C")),
    Mutant("HO2", "all that is written is durable", Swap("A <= B", "A >= 0")),
    Mutant("HO3", "what was done is done again", Swap("min(A, B)", "0")),
    Mutant("HO4", "a settlement reaches nobody", Swap("for A in B: ...", "for A in (): ...")),
    Mutant("HO5", "what is got is forgotten", Swap("A and (not B)", "A and B and False")),
    Mutant("HO6", "what a session held stays there", Swap("A(B, C)", "A(B, None)")),
    Mutant("HO7", "nobody hears that it is gone", Swap("if A: ...", "if False: ...")),
    Mutant("HO8", "a delivery is held by nobody", Swap("A.add", "A.note")),
    Mutant("HO9", "a consumer stays in its turn", Swap("A(B)", "id(B)")),
]
