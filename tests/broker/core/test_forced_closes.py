"""What follows from a change: a few in a turn, in order; a bug in one concerns no other."""

from __future__ import annotations

from functools import partial

from fluffle.broker.core.forced_closes import PIECE
from tests.support.edge import Edge


def test_a_turn_sees_a_few() -> None:
    edge = Edge()
    done: list[int] = []
    for number in range(2 * PIECE + 1):
        edge.services.consequences.add(partial(done.append, number))
    counts = [len(done)]
    while edge.scheduler.turn():
        counts.append(len(done))
    assert counts[:4] == [0, PIECE, 2 * PIECE, 2 * PIECE + 1]
    assert done == list(range(2 * PIECE + 1))


def test_one_that_fails_keeps_the_others_from_nothing() -> None:
    edge = Edge()
    done: list[str] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    for act in (lambda: done.append("a"), fail, lambda: done.append("b")):
        edge.services.consequences.add(act)
    edge.run()
    assert done == ["a", "b"]
    edge.services.consequences.add(lambda: done.append("c"))
    edge.run()
    assert done == ["a", "b", "c"]
