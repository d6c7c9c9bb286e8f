"""Mistakes against the rules of streams between nodes."""

from tests.mutants.change import Remove, Swap
from tests.mutants.mutant import Mutant

STREAMS = [
    Mutant("ST1", "a settlement is asked once", Remove()),
    Mutant("ST2", "a frame comes twice", Swap("A == B + 1", "A >= B")),
    Mutant("ST3", "all of a term delivers", Swap("(A, B) == C.D", "A == C.term")),
    Mutant("ST4", "a term is led once", Swap("A.B > C.B", "A.term > C.term")),
    Mutant("ST5", "what arrived is missing", Remove()),
    Mutant("ST6", "old lives go on", Swap("A(B, C)", "(lambda *_: 0)(B, C)")),
    Mutant("ST7", "nobody says who leads", Swap("A is None", "False")),
    Mutant("ST8", "all get as they like", Swap("if A: ...", "if False: ...")),
    Mutant("ST9", "an edge hears of any queue", Swap("(A, B, C)", "(frame.group, B, C)")),
    Mutant("ST10", "a leader listens for any queue", Swap("A or B", "B")),
    Mutant("ST11", "a tombstone nacks", Swap("True", "False")),
    Mutant("ST12", "nobody is paused", Swap("A >= B or C", "A < 0 or C")),
]
