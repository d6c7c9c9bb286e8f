"""Mistakes against rule 20 of replicated queues: pings never wait behind bodies."""

from tests.mutants.change import Swap
from tests.mutants.mutant import Mutant

LINKS = [
    Mutant("LI1", "a frame goes as a whole", Swap("min(A, B)", "max(0, B)")),
    Mutant("LI2", "all of a lane may be under way", Swap("A < B", "True")),
    Mutant("LI3", "what is sent to others takes all", Swap("A >= B", "False")),
    Mutant("LI4", "bytes are no life", Swap("A.B", "False")),
    Mutant(
        "LI5", "no beat is due while another is awaited", Swap("A >= B.C", "A >= B.silent_after_ms")
    ),
]
