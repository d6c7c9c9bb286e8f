"""Mistakes in what topics retain."""

from tests.mutants.change import Swap
from tests.mutants.mutant import Mutant

RETAINED = [
    Mutant("RT1", "two changes are under way at a time", Swap("A and not B", "A")),
    Mutant("RT2", "who does not lead removes what has expired", Swap("not A()", "False")),
    Mutant("RT3", "there is room for everything", Swap("A or B", "False")),
    Mutant("RT4", "what is under way is not found", Swap("A()", "{}")),
    Mutant("RT5", "wildcards see hidden topics", Swap("A and B and C", "False")),
    Mutant("RT6", "what waits of a client that has moved is retained", Swap("A.B(C)", "False")),
    Mutant("RT7", "it is not noticed that a session has moved meanwhile", Swap("A.B", "False")),
]
