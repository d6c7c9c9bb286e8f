"""Mistakes against the rules of replicated queues, by the numbers of the rules."""

from tests.simulation.mutation import Mutant
from tests.simulation.queues.town import Town

QUEUES = "broker.queues.replicated."
STREAMS = "broker.cluster.streams."
SERVING = "broker.cluster.queues."


def mutant(name: str, mistake: str, where: str, old: str, new: str) -> Mutant:
    return Mutant(name, mistake, where, old, new, Town)


QUEUE_MUTANTS = [
    mutant(
        "R1",
        "effects do not wait for the entry they rest on",
        QUEUES + "gate:Gate.keep",
        "self._waiting",
        "self._known",
    ),
    mutant(
        "R2",
        "a leadership goes on when the lead is lost",
        QUEUES + "member:Member.followed",
        "self._end()",
        "pass",
    ),
    mutant(
        "R3",
        "an edge that was put back to an old disk is taken for itself",
        STREAMS + "sessions:Sessions.linked",
        "(session.boot, session.nonce) != boot",
        "session.boot != boot.counter",
    ),
    mutant(
        "R4a",
        "what was done is done again",
        QUEUES + "numbering:Numbering.known",
        "min(expected - first, count)",
        "0",
    ),
    mutant(
        "R4b",
        "a refusal is not on record",
        QUEUES + "numbering:Numbering._outcomes",
        "NotTaken(",
        "Done(",
    ),
    mutant(
        "R5",
        "a hand-out is ended by any ordinal",
        QUEUES + "holders:Held.holding",
        "counts.acquired == ordinal",
        "counts",
    ),
    mutant(
        "R6",
        "settlements are asked for once",
        STREAMS + "edge:Edge.connect",
        "self.unsent += self.pending",
        "self.unsent += [each for each in self.pending if type(each) is not m.Settle]",
    ),
    mutant(
        "R7",
        "a purge is not in the log",
        QUEUES + "leadership:Leadership.purge",
        "if runs",
        "if False",
    ),
    mutant(
        "R8",
        "a snapshot leaves out what is live in the last entries",
        QUEUES + "image:Image.snapshot",
        "self.state.entries.live_indexes()",
        "self.state.entries.live_indexes().within(0, self.state.index - 4)",
    ),
    mutant(
        "R9a",
        "frames of a leader are sent once",
        STREAMS + "outbox:Outbox.repeat",
        "self._frames[0].number - 1",
        "self._next - 1",
    ),
    mutant(
        "R9b",
        "what never arrived is not delivered by the next leader",
        STREAMS + "hearing:on_record",
        "missing.append(token)",
        "pass",
    ),
    mutant(
        "R9c",
        "what comes to nobody is not given back",
        STREAMS + "hearing:give_back",
        "if tokens",
        "if False",
    ),
    mutant(
        "R10",
        "a session goes with its link",
        STREAMS + "sessions:Sessions.unlinked",
        "known.silent_since_ms = now_ms",
        "self.removed(node)",
    ),
    mutant(
        "R11",
        "nobody else is asked who leads",
        SERVING + "lines:Lines._search",
        "self._ask_next(line)",
        "pass",
    ),
    mutant(
        "R13",
        "who is suspected is taken for gone",
        STREAMS + "sessions:Sessions.tick",
        ">= CONSUMER_DISCONNECTED_MS",
        ">= 0",
    ),
    mutant(
        "R15a",
        "frames of any leadership count",
        STREAMS + "hearing:hear",
        "(frame.term, frame.leadership) == edge.reign",
        "frame.term > 0",
    ),
    mutant(
        "R15b",
        "what a leader does not recognise stays in hands",
        STREAMS + "hearing:_not_recognised",
        "return on_revoked(edge, m.Revoked(unknown))",
        "return []",
    ),
    mutant(
        "R16",
        "queue time is that of the wall",
        QUEUES + "draft:Draft.time_ms",
        "max(self._stamp_ms, now_ms)",
        "now_ms",
    ),
    mutant(
        "R18",
        "an empty queue is told of from memory",
        QUEUES + "leadership:Leadership.get",
        "self._gate.keep(",
        "(self._gate.keep if handout else self._gate._known.append)(",
    ),
    mutant(
        "R22",
        "nobody hears of what was asked of a queue that is gone",
        SERVING + "lines:Lines.close",
        "self._tell(line, line.edge.deleted())",
        "pass",
    ),
    mutant(
        "R23",
        "an edge without a leader forgets what it was asked for",
        STREAMS + "edge:Edge.connect",
        "self.unsent = []",
        "self.unsent = [] if leader else self.pending.clear()[:0]",
    ),
    mutant(
        "R24",
        "what comes before its turn is done",
        QUEUES + "numbering:Numbering.known",
        "if first > expected",
        "if not first",
    ),
    mutant(
        "M28",
        "clients are answered when an entry is proposed",
        QUEUES + "leadership:Leadership._end_entry",
        "self._gate.propose()",
        "self._gate.propose(); self._release(self._gate.apply()); self._gate._under_way.append([])",
    ),
    mutant(
        "M32",
        "how far a session is, is not in a snapshot",
        QUEUES + "snapshot:_dump_session",
        "session.next,",
        "1,",
    ),
    mutant(
        "M33",
        "who follows leads as well",
        QUEUES + "member:Member.followed",
        "self._end()",
        "self._end(); self._lead()",
    ),
    mutant(
        "M34",
        "a queue is given an id that was used",
        SERVING + "placement:draw_id",
        "            return drawn",
        "            return FIRST_ID",
    ),
    mutant(
        "M39",
        "an image depends on where it lies in memory",
        QUEUES + "applying:apply",
        "= batch.stamp_ms",
        "= batch.stamp_ms + (id(state) >> 4) % 3",
    ),
]
