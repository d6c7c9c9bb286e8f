"""Mistakes in what topics retain."""

from tests.mutants.change import Remove, Swap
from tests.mutants.mutant import Mutant

RETAINED = [
    Mutant("RT1", "two changes are under way at a time", Swap("A and not B", "A")),
    Mutant("RT2", "who does not lead removes what has expired", Swap("not A()", "False")),
    Mutant("RT3", "there is room for everything", Swap("A or B", "False")),
    Mutant("RT4", "what is under way is not found", Swap("A(B)", "{}")),
    Mutant("RT5", "wildcards see hidden topics", Swap("A and B and C", "False")),
    Mutant("RT6", "what waits of a client that has moved is retained", Swap("A.B(C)", "False")),
    Mutant("RT7", "it is not noticed that a session has moved meanwhile", Swap("A.B", "False")),
    Mutant("RT8", "a later message overtakes one for late subscribers", Remove()),
    Mutant("RT9", "who subscribes before a message is retained misses it", Swap("A", "False")),
    Mutant("RT10", "what a client has read is sent to it, too", Swap("A is not None", "False")),
    Mutant("RT11", "a message is sent behind a newer one", Swap("A or B", "A")),
]
