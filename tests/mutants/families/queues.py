"""Mistakes against the rules of replicated queues, by the numbers of the rules."""

from tests.mutants.change import Insert, Remove, Swap
from tests.mutants.mutant import Mutant

QUEUES = [
    Mutant(
        "R1",
        "effects do not wait for the entry they rest on",
        Swap("A.B.append", "A._known.append"),
    ),
    Mutant("R2", "a leadership goes on when the lead is lost", Remove()),
    Mutant(
        "R3",
        "an edge that was put back to an old disk is taken for itself",
        Swap("(A, B) != C", "A != C.counter"),
    ),
    Mutant("R4a", "what was done is done again", Swap("min(A, B)", "0")),
    Mutant("R4b", "a refusal is not on record", Swap("A(B, C(D, E))", "A(B, DoneReply(D, E))")),
    Mutant("R4c", "a settlement that did not count is on record as done", Swap("A and B", "False")),
    Mutant("R5", "a hand-out is ended by any ordinal", Swap("A.B == C", "A")),
    Mutant(
        "R6a",
        "settlements are asked for once",
        Swap("A += B", "A += [each for each in B if type(each) is not m.Settle]"),
    ),
    Mutant("R6b", "acknowledgements that were put off are never asked for", Remove()),
    Mutant("R7", "a purge is not in the log", Swap("if A: ...", "if False: ...")),
    Mutant(
        "R8",
        "a snapshot leaves out what is live in the last entries",
        Swap("A.B.C()", "A.B.C().within(0, A.index - 4)"),
    ),
    Mutant("R9a", "frames of a leader are sent once", Swap("A.B[0].C", "A._next")),
    Mutant("R9b", "what never arrived is not delivered by the next leader", Remove()),
    Mutant("R9c", "what comes to nobody is not given back", Swap("if A: ...", "if False: ...")),
    Mutant("R10", "a session goes with its link", Swap("A = B", "self.removed(node)")),
    Mutant("R11", "nobody else is asked who leads", Remove()),
    Mutant("R12a", "nobody says who is the single active consumer", Swap("A(B)", "_ = B")),
    Mutant(
        "R12b", "the next leader chooses the single active consumer anew", Swap("A != B", "False")
    ),
    Mutant("R12c", "who gives way to a higher priority may hold messages", Swap("A > 0", "False")),
    Mutant("R13", "who is suspected is taken for gone", Swap("A >= B", "A >= 0")),
    Mutant("R15a", "frames of any leadership count", Swap("(A, B) == C", "A > 0")),
    Mutant("R15b", "what a leader does not recognise stays in hands", Swap("A(B, C)", "[]")),
    Mutant("R16", "queue time is that of the wall", Swap("max(A, B)", "0")),
    Mutant("T1", "common time is what most clocks on walls show", Swap("max(A, min(B, C))", "C")),
    Mutant("R17a", "older settings take the place of newer ones", Swap("A and B", "B")),
    Mutant("R17b", "the next leader goes by what arguments say", Swap("A(B, C)", "A(b'', C)")),
    Mutant("R17c", "a queue goes by settings that are not on record", Swap("A(B)", "_ = B")),
    Mutant("R17d", "who comes to lead goes by what is on record alone", Remove()),
    Mutant("R17e", "who leads hears of no change of policies", Remove()),
    Mutant(
        "R18",
        "an empty queue is reported from memory",
        Swap("A.B(lambda: C)", "(A.B if delivery_batch else A._known.append)(lambda: C)"),
    ),
    Mutant(
        "R19",
        "of what is live in an entry only the first message is left",
        Swap("{A for B in C for A in B}", "set(sorted((A for B in C for A in B))[:1])"),
    ),
    Mutant(
        "R20",
        "pings wait behind what a follower is sent that lags",
        Swap("if A: ...", "if A and (not (bulk and self._may_go(BULK))): ..."),
    ),
    Mutant("R21a", "entries are as new as any member can read", Swap("min", "max")),
    Mutant(
        "R21b",
        "what a node says of itself counts before that is in the log",
        Swap("min(A, B)", "min(self._image.reads, B)"),
    ),
    Mutant("R22", "nobody hears of what was asked of a queue that is gone", Remove()),
    Mutant(
        "R23",
        "an edge without a leader forgets what it was asked for",
        Swap("[]", "[] if leader else self.pending.clear()[:0]"),
    ),
    Mutant("R24", "what comes before its turn is done", Swap("A > B", "not A")),
    Mutant(
        "M28",
        "clients are answered when an entry is proposed",
        Insert("self._release(self._effects.entry_applied())\nself._effects._under_way.append([])"),
    ),
    Mutant(
        "M32",
        "how far a session is, is not in a snapshot",
        Swap("[A, B, C, D, E]", "[A, B, 1, D, E]"),
    ),
    Mutant("M33", "who follows leads as well", Swap("A", "A\nself._lead()")),
    Mutant("M34", "a queue is given an id that was used", Swap("return A", "return FIRST_ID")),
    Mutant(
        "M39",
        "an image depends on where it lies in memory",
        Swap("A = B", "A = B + (id(state) >> 4) % 3"),
    ),
    Mutant("L1", "an edge asks its link for no room", Swap("not A", "False")),
    Mutant("L2", "a leader asks its links for no room", Swap("A(B)", "True")),
    Mutant(
        "R14a",
        "the dead are handed on before it is known that they are dead",
        Swap("A.B(C)", "A._known.append(C)"),
    ),
    Mutant("R14b", "the dead that another has left are not handed on", Swap("A(B)", "_ = B")),
    Mutant("R14c", "the dead are not handed on, and it is said that they were", Remove()),
    Mutant(
        "R14d",
        "what must arrive is said to have when it is sent",
        Swap(
            "A.B(A.C.D, A.C.E, F)",
            "(A.B(A.C.D, A.C.E, F), [A._on_result(way.sequence, is_there=True) for way in ways])",
        ),
    ),
    Mutant(
        "R14e",
        "what has been refused has arrived",
        Swap("if A: ...\nelse: ...", "if True: ...\nelse: ..."),
    ),
    Mutant("R14f", "what must arrive is left out once it was refused", Swap("A <= B", "False")),
    Mutant("R14g", "what must arrive and has is taken once more", Swap("B if A else C", "C")),
    Mutant(
        "R14h",
        "what is on record of arrivals is forgotten by the next leader",
        Swap("dict(A)", "{}"),
    ),
    Mutant(
        "R14i", "what must arrive is taken before it would be remembered", Swap("A(B)", "False")
    ),
    Mutant(
        "C1",
        "consumers are served whatever their priority",
        Swap("A(..., B=C, D=E, F=G, H=I)", "A(..., B=0, D=E, F=G, H=I)"),
    ),
    Mutant(
        "C2",
        "the next leader forgets what waits to be ready",
        Swap("A(B, C, D, E)", "_ = (B, C, D, E)"),
    ),
    Mutant("C3", "who is ready again is not said to be", Remove()),
    Mutant("K1", "the next leader knows no keys", Swap("A(B, ...)", "A(None, ...)")),
    Mutant("K2", "what was taken is not remembered", Swap("A(B)", "_ = B")),
    Mutant("H1", "the next leader gives everybody time anew", Swap("A(..., B, C)", "A(..., 0, C)")),
    Mutant("H2", "who holds a message may have it for twice as long", Swap("A - B", "A - 2 * B")),
    Mutant("F2", "who has settled what was lost on its way does not hear of it", Remove()),
    Mutant("F3", "what was settled is taken for known at once", Swap("A > B", "B")),
    Mutant("F4", "a message that is refused has no receipt", Swap("False", "True")),
]
