"""Mistakes in what queues do with messages: priorities, lifetimes, limits."""

from tests.mutants.change import Remove, Swap
from tests.mutants.mutant import Mutant

ENGINE = [
    Mutant("P1", "what is urgent waits like anything else", Swap("A(B)", "None")),
    Mutant(
        "P2", "the next leader forgets what is less urgent or more than what it came with", Remove()
    ),
    Mutant("P3", "what has come back last is handed out first", Swap("A.append", "A.appendleft")),
    Mutant(
        "P4",
        "what waits longest is handed out first, however urgent",
        Swap("A.bit_length", "(A & -A).bit_length"),
    ),
    Mutant("X1", "messages expire before their time", Swap("A <= B", "A <= B + 100")),
    Mutant("X2", "what has expired is handed out", Swap("A(B, C, D=E)", "A(B, C - 200, D=E)")),
    Mutant("X3", "what comes back has all the time anew", Swap("A(..., B=C)", "A(..., B=None)")),
    Mutant("X4", "a queue goes though it has just been used", Swap("A + B", "A")),
    Mutant("X5", "the end of a queue is not announced", Swap("not A", "True")),
    Mutant("X6", "whoever leaves a queue had not used it", Remove()),
    Mutant("B1", "what comes pushes out nothing", Swap("A and B", "True")),
    Mutant("B2", "what is too much is taken", Swap("0 if A else B", "wanted or B")),
    Mutant("B3", "what has failed too often is given back once more", Swap("A > B", "A > B + 1")),
]

UNUSED = [
    Mutant(
        "UN1",
        "that a queue is to go is said before its log allows it",
        Swap("A(self.B)", "self.B()"),
    ),
    Mutant("UN2", "a queue goes though its log has consumers", Swap("A and not B", "A")),
]
