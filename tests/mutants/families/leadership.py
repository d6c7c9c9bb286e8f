"""Mistakes in the leadership of a replicated queue, and in what messages bring along."""

from tests.mutants.change import Remove, Swap
from tests.mutants.mutant import Mutant

LEADERSHIP = [
    Mutant("LE1", "repeats do not wait for the draft", Swap("A.B", "False")),
    Mutant("LE2", "repeats do not wait at all", Swap("A.B", "False")),
    Mutant("LE3", "an operation too many", Swap("1 if A else B", "2 if A else B")),
    Mutant("LE4", "who is detached is forgotten", Swap("A and B and C", "A and B")),
    Mutant("LE5", "getters get what others hold", Swap("del A", "_ = A")),
    Mutant("LE6", "all of an entry is ready", Swap("A(B)", "[range(B.first, B.first + B.count)]")),
    Mutant("LE7", "the next content", Swap("A[B]", "A[wanted[-1]]")),
    Mutant("LE8", "nothing has come back", Swap("A(B)", "_ = B")),
    Mutant("LE9", "shares are swapped", Swap("[A for B in C]", "[A for B in C[::-1]]")),
    Mutant("LE10", "all is one run", Swap("A and B and C", "A and C")),
    Mutant("LE11", "any holder's", Swap("(A, B) != C", "(fact.holder, B) != C")),
    Mutant("LE12", "any session's", Swap("A or B", "B")),
    Mutant("LE13", "failures do not count", Swap("A in B", "False")),
    Mutant("LE14", "all returns count", Swap("A in B", "True")),
    Mutant("LE15", "one failure too few", Swap("A > B", "A >= B")),
    Mutant("LE16", "who has failed too often waits", Swap("A.B", "outcome")),
    Mutant("LE17", "what is dropped is another", Swap("A(..., B, C)", "A(..., B[:1], C)")),
    Mutant("LE18", "who is to wait does not", Swap("A.B", "outcome")),
    Mutant("LE19", "the dead are dropped", Swap("not A", "True")),
    Mutant("LE20", "dead twice", Swap("A(B, C)", "lambda: [C] * 2")),
    Mutant("LE21", "another dies", Swap("A(B)", "A([1] * len(B))")),
    Mutant("LE22", "the dead stay", Remove()),
    Mutant("LE23", "what does not fit is taken", Swap("A(B, C)", "A(EnqueueResult.ACCEPTED, C)")),
    Mutant("LE24", "refusals are forgotten", Swap("A(B)", "_ = B")),
    Mutant("LE25", "what is held is not taken up", Remove()),
    Mutant("LE26", "who is detached is served", Swap("A and B", "A")),
    Mutant("LE27", "what is lost stays", Swap("A is not None", "False")),
    Mutant(
        "LE28",
        "requeued messages go by age",
        Swap("A(B, C=D, E=F, G=H, I=J)", "A(B, C=None, E=F, G=H, I=J)"),
    ),
    Mutant("LE29", "memory is free too soon", Swap("A += 1", "A += 0")),
]

CARRIED = [
    Mutant("CA1", "nothing is written down", Swap("A is not B", "False")),
    Mutant("CA2", "all are put in front", Swap("A(B, C, D)", "A(0, C, D)")),
    Mutant("CA3", "nothing comes", Swap("A = B", "A")),
    Mutant("CA4", "all brings as much", Swap("A = B", "A")),
    Mutant("CA5", "a leader forgets it", Swap("A(B)", "A()")),
    Mutant("CA6", "it stays", Swap("A(B)", "id(B)")),
    Mutant("CA7", "more are taken than are alike", Swap("(A, B)", "(_, B)")),
    Mutant("CA8", "they are called new", Swap("A or B", "A")),
    Mutant("CA9", "a purge leaves it", Remove()),
    Mutant("CA10", "what is unread was new", Swap("not (A and B)", "True or B")),
    Mutant("CA11", "what is behind goes, too", Swap("A > B", "False")),
    Mutant("CA12", "what is in front goes, too", Swap("A < B", "False")),
    Mutant("CA13", "the next run is alike", Swap("min(A, B)", "A")),
    Mutant("CA14", "what is new goes on", Swap("min(A, B)", "A")),
    Mutant("CA15", "others are of the run", Swap("A and B", "A")),
    Mutant("CA16", "what lies between is of it", Swap("A.B == C and D == E", "A.counts == E")),
]

OUTBOX = [
    Mutant(
        "OU1",
        "what was refused has arrived",
        Swap("if A: ...\nelse: ...", "if True: ...\nelse: ..."),
    ),
    Mutant("OU2", "what has arrived stays", Swap("A(B)", "_ = B")),
    Mutant("OU3", "one of many is left out", Swap("A[B:]", "A[B + 1:]")),
    Mutant("OU4", "those of others are left out", Remove()),
]
