"""Mistakes in what queues do with messages: priorities, lifetimes, limits."""

from tests.simulation.mutation import Mutant
from tests.simulation.queues.town import Town

QUEUES = "broker.queues."


def mutant(name: str, mistake: str, where: str, old: str, new: str) -> Mutant:
    return Mutant(name, mistake, where, old, new, Town)


ENGINE_MUTANTS = [
    mutant(
        "P1",
        "what is urgent waits like anything else",
        QUEUES + "levels:Levels.of",
        "priorities_of(contents)",
        "None",
    ),
    mutant(
        "P2",
        "the next leader forgets what is less urgent or more than what it came with",
        QUEUES + "replicated.levels:ContentsByLevel.levels",
        "found |= {*each.priorities}",
        "pass",
    ),
    mutant(
        "P3",
        "what has come back last is handed out first",
        QUEUES + "returned:InOrder.add",
        "self.runs.append(run)",
        "self.runs.appendleft(run)",
    ),
    mutant(
        "P4",
        "what waits longest is handed out first, however urgent",
        QUEUES + "lanes:Lanes.take",
        "self._filled.bit_length() - 1",
        "(self._filled & -self._filled).bit_length() - 1",
    ),
    mutant(
        "X1",
        "messages expire before their time",
        QUEUES + "expiries:is_due",
        "expires_at_ms <= now_ms",
        "expires_at_ms <= now_ms + 100",
    ),
    mutant(
        "X2",
        "what has expired is handed out",
        QUEUES + "expiries:undue_count",
        "now_ms, is_new",
        "now_ms - 200, is_new",
    ),
    mutant(
        "X3",
        "what comes back has all the time anew",
        QUEUES + "handout:Handout.back",
        "part_of(self.expiries, part)",
        "None",
    ),
    mutant(
        "X4",
        "a queue goes though it has just been used",
        QUEUES + "disuse:Disuse.is_over",
        "self._since_ms + self._after_ms",
        "self._since_ms",
    ),
    mutant(
        "X5",
        "nobody is told that a queue is to go",
        QUEUES + "disuse:Disuse.is_to_be_told",
        "not self.is_over",
        "True",
    ),
    mutant(
        "X6",
        "whoever leaves a queue had not used it",
        QUEUES + "engine:Queue.detach",
        "self._used()",
        "pass",
    ),
    mutant(
        "B1",
        "what comes pushes out nothing",
        QUEUES + "bound:Bound.keep",
        "if excess <= 0 and excess_bytes <= 0:",
        "if True:",
    ),
    mutant(
        "B2",
        "what is too much is taken",
        QUEUES + "bound:Bound._fitting",
        "0 if self._is_shut else",
        "wanted or",
    ),
    mutant(
        "B3",
        "what has failed too often is given back once more",
        QUEUES + "replicated.ending:Ending._come_back",
        "counts.failed > limit",
        "counts.failed > limit + 1",
    ),
]
