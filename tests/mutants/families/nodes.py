"""Mistakes about nodes: on which of them queues are, who is one, and what all know."""

from tests.mutants.change import Remove, Swap
from tests.mutants.mutant import Mutant

NODES = [
    Mutant("D2", "a member that nobody wants stays", Swap("A - B", "set()")),
    Mutant("D5", "queues with too few members get no more", Remove()),
    Mutant(
        "N1",
        "who was forgotten stays a member of the group of definitions",
        Swap("[*(A for B in C), D, E]", "[*(A for B in ()), D, E]"),
    ),
    Mutant(
        "N2",
        "a node that was let in does not hear as which member it may begin",
        Swap("A and B", "False and B"),
    ),
    Mutant(
        "N3",
        "a disk that lacks what others know of is taken for what it was",
        Swap("A >= B", "A >= 0"),
    ),
    Mutant(
        "N4",
        "a node whose disk has room again takes nothing all the same",
        Swap("A or not B", "not B"),
    ),
    Mutant(
        "AB1",
        "a node that has not heard of a queue says that it has no member of it",
        Swap("A(partial(B, C, D))", "B(C, D)"),
    ),
    Mutant("E1", "a change is answered before all have it", Swap("A < B", "A < B - 1")),
    Mutant("E2", "what comes true after its connection has ended is kept", Swap("A(B)", "False")),
    Mutant("E3", "what earlier lives of a node have left is kept", Swap("0 < A < B", "0 < False")),
    Mutant(
        "I1",
        "what changes nothing by what a node knows is answered at once",
        Swap("A(B(C, D), E)", "C(D)"),
    ),
    Mutant(
        "I2",
        "a question whether all is known here is answered at once",
        Swap("A(B(C, D))", "return done()"),
    ),
    Mutant(
        "I3",
        "who leads by its own account need not ask whether it still does",
        Swap("A(B(C, D))", "C(D, self._applied)"),
    ),
    Mutant("I4", "nobody waits until the read index is applied", Swap("A < B", "False")),
    Mutant(
        "I5",
        "a question while a round is under way is answered by that",
        Swap("A.append", "(self._asked or A).append"),
    ),
    Mutant(
        "I6",
        "rounds are numbered from 1 at each start, whatever an earlier one has asked",
        Swap("A * B", "0"),
    ),
    Mutant(
        "I7",
        "a queue that is deleted is taken for the last of its name at once",
        Swap("A(B, C)", "B()"),
    ),
    Mutant(
        "I8",
        "what was for the next queue of a name is confirmed, as gone with the one before",
        Swap("A != B", "False"),
    ),
    Mutant(
        "I9",
        "nobody hears what becomes of messages whose queue was deleted before it had them",
        Remove(),
    ),
]
