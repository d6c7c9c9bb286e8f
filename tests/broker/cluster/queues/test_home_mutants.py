"""The tests are tested: a mistake in the home of a queue must be found by whatever happens."""

from __future__ import annotations

import pytest

from tests.broker.cluster.queues.test_home import whatever
from tests.simulation.mutation import Mutant

SEEDS_MAX = 60
"""A mutant that lives through so many histories has escaped."""

HERE = "broker.cluster.queues.home:Home"


def mutant(what: str, where: str, old: str, new: str) -> Mutant:
    return Mutant(what, what, f"{HERE}.{where}", old, new)


MUTANTS = [
    mutant(
        "nothing waits for the disk", "publish", "self._say_later if taken", "self._say if taken"
    ),
    mutant("all that is written is durable", "on_durable", "<= ticket", ">= 0"),
    mutant("what was done is done again", "_known", "min(expected - first, count)", "0"),
    mutant("a settlement reaches nobody", "settle", "in parts:", "in ():"),
    mutant("what is got is forgotten", "get", "not no_ack:", "no_ack and False:"),
    mutant("what a session held stays there", "drop_session", "key, outcome)", "key, None)"),
    mutant("nobody hears that it is gone", "drop_session", "if keeps_row:", "if False:"),
    mutant("a delivery is held by nobody", "deliver", "held.add(", "held.note("),
    mutant("a consumer stays in its turn", "_detach", "self.queue.detach(", "id("),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_found(mutant: Mutant) -> None:
    with mutant.in_place():
        assert any(map(fails, range(SEEDS_MAX))), mutant.mistake


def fails(seed: int) -> bool:
    try:
        whatever(seed)
    except (AssertionError, LookupError, ValueError, TypeError):
        return True
    return False
