"""Mistakes about groups of Raft that others have made, or nearly."""

from tests.mutants.change import Insert, Remove, Swap
from tests.mutants.mutant import Mutant

RAFT = [
    Mutant("M1", "acknowledges before the disk has it", Swap("min(A, B)", "B")),
    Mutant(
        "M2", "a leader counts itself before its disk has it", Swap("A.B.index", "A.log.last_index")
    ),
    Mutant("M3", "a vote leaves before the disk has it", Swap("A and B", "A")),
    Mutant("M4", "votes are asked for before one's own is on disk", Swap("A and B", "A")),
    Mutant(
        "M5a", "the vote of the last term is kept in the next", Swap("None", "self.hard_state.vote")
    ),
    Mutant("M5b", "the vote is forgotten without a new term", Swap("A > B", "A >= B")),
    Mutant("M6", "commits entries of earlier terms by counting (Figure 8)", Swap("A == B", "True")),
    Mutant("M7a", "votes whatever the candidate's log", Swap("A >= B", "True")),
    Mutant(
        "M7b", "compares lengths of logs before terms", Swap("(A, B) >= (C, D)", "(B, A) >= (D, C)")
    ),
    Mutant(
        "M8",
        "a follower commits its own tail, unseen",
        Swap("min(A, B.C)", "min(A, B.log.last_index)"),
    ),
    Mutant("M9", "truncates with every request", Swap("A.B(C) != D", "C > A.commit")),
    Mutant("M10", "does not truncate on a conflict", Swap("A != B", "A is None")),
    Mutant("M11", "a late completion confirms what took its place", Swap("min(A, B)", "A")),
    Mutant("M12", "acknowledges a durable tail that nobody vouched for", Swap("min(A, B)", "A")),
    Mutant(
        "M13",
        "a vote that comes twice counts twice",
        Swap(
            "A(B)",
            "fresh = next((v for v in state.voters if v not in campaign.granted), B)\n"
            "A(fresh if B in campaign.granted else B)",
        ),
    ),
    Mutant(
        "M14a",
        "votes of an old term count",
        Insert(
            "if type(message) is VoteResponse and state.role is Role.CANDIDATE:\n"
            "    election.on_vote_response(state, node, message)"
        ),
    ),
    Mutant(
        "M14b",
        "acknowledgements of an old term count",
        Insert(
            "if type(message) is AppendAccepted and state.role is Role.LEADER:\n"
            "    replication.on_append_accepted(state, node, message)"
        ),
    ),
    Mutant(
        "M15",
        "granting a pre-vote takes over the term",
        Insert("if is_granted:\n    state.become_follower(request.term, None)"),
    ),
    Mutant("M16a", "nobody holds on to a leader that is alive", Swap("A(B)", "False")),
    Mutant("M16b", "a leader without a majority leads on", Swap("A(B)", "True")),
    Mutant(
        "M17",
        "changes members before an entry of its own term is committed",
        Swap("A(B, C)", "True"),
    ),
    Mutant("M18", "changes members while another change is not committed", Swap("A <= B", "True")),
    Mutant("M19", "a configuration outlives the truncation of its entry", Swap("A > 1", "A > 99")),
    Mutant("M20", "configurations above the floor are not recovered", Swap("A.B", "A.B[:0]")),
    Mutant("M21a", "learners count like voters", Swap("return A.B", "return A.members")),
    Mutant(
        "M21b",
        "a learner stands for leadership",
        Swap("(A.B(C) for A in D)", "(C in A.members for A in D)"),
    ),
    Mutant(
        "M22",
        "a leader that has left counts itself",
        Swap("A.B", "(*(v for v in A.B if v != A.me), A.me)"),
    ),
    Mutant(
        "M23a",
        "a snapshot keeps the tail of another history",
        Swap("A.B(C) == D", "A.last_index >= C"),
    ),
    Mutant("M23b", "the image is not replaced by a snapshot", Swap("True", "False")),
    Mutant(
        "M24",
        "a late snapshot of its own replaces a newer one",
        Swap("A.B < C <= A.D", "C <= A.last_index"),
    ),
    Mutant(
        "M25",
        "a snapshot is offered with nothing live in it",
        Swap("A(..., B, C, D, E)", "A(..., b'', C, D, E)"),
    ),
    Mutant(
        "M26",
        "the smallest live index is deleted with the dead",
        Swap("A(B)", "A(Ranges.of(*((f + (n == 0), s) for n, (f, s) in enumerate(B))))"),
    ),
    Mutant("M27", "applies what is committed and not durable here", Swap("min(A, B)", "A")),
    Mutant("M29a", "reads before an entry of its own term is committed", Swap("A and B", "A")),
    Mutant(
        "M29b", "reads by a round that began before the question", Swap("(A, B, C)", "(0, B, C)")
    ),
    Mutant(
        "M31a",
        "who cannot read its log votes all the same",
        Swap("A and B and C and D and E", "A and B and True and D and E"),
    ),
    Mutant("M31b", "damage found at the start is forgotten by the next", Remove()),
    Mutant(
        "M35",
        "what an earlier incarnation of a member has counts for the present one",
        Swap("A and B", "True"),
    ),
    Mutant("M36", "what was in flight is not forgotten by a probe", Remove()),
    Mutant(
        "M37",
        "an outdated rejection moves the next index back",
        Swap("A or B or C or D", "False and (A or B or C or D)"),
    ),
    Mutant("M38", "the last commit index is not reported", Swap("A or B", "A")),
    Mutant("M41", "an entry that was lost on the way is not sent again", Swap("A or B", "False")),
    Mutant(
        "M42",
        "a call to stand from an old term is followed",
        Insert(
            "if type(message) is TimeoutNow:\n    election.start_election(state, is_transfer=True)"
        ),
    ),
    Mutant("M43", "answers from a term that it may forget", Swap("A == B", "True")),
    Mutant("M44", "a candidate sends itself the vote it owed another", Remove()),
    Mutant("M45", "follows on whoever does not have the group any more", Remove()),
    Mutant("M46", "the codec loses the term of entries", Swap("A(B, C, ...)", "A(B, 1, ...)")),
    Mutant(
        "M47",
        "once mended, only what was damaged is to be kept after a crash",
        Swap("A.B(A.C(D=E, F=G))", "A"),
    ),
    Mutant(
        "M48",
        "a leader of an old term is not heard if all have come back as others since",
        Swap("A and B", "False"),
    ),
    Mutant(
        "M49",
        "after a truncation what was on disk before it is still called durable (Ra, until 3.1.8)",
        Remove(),
    ),
    Mutant("M50", "a copy of the files of a disk is taken for them", Swap("A != B", "False")),
    Mutant(
        "M51",
        "who is late is suspected after the same time, again and again",
        Swap("max(A, B)", "tuning.suspect_after_ms"),
    ),
    Mutant("M52", "who has asked for a repair is promoted before that", Swap("A < B", "False")),
    Mutant(
        "M53",
        "a leader that is asked for more than it has adds nothing",
        Swap("A and B and C and D", "False"),
    ),
    Mutant(
        "M54",
        "a leader adds an entry whenever one that had everything asks for a repair",
        Swap("A and B and C and D", "A and C and D"),
    ),
]
