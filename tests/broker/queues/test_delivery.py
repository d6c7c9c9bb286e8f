"""A run in somebody's hands: which messages of it are settled, in any order, and undone."""

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.queues.delivery import Handout, Holder
from tests.broker.queues.make import ORIGIN, numbered

NOBODY = cast(Holder, SimpleNamespace(no_ack=False))


def make_handout(count: int) -> Handout:
    return Handout(NOBODY, [ORIGIN] * count, numbered(0, count), range(count), redelivered=False)


def unsettled(handout: Handout) -> set[int]:
    return {index for index in range(-2, len(handout.contents) + 2) if handout.holds(index)}


def test_in_order_moves_one_number() -> None:
    handout = make_handout(4)
    assert handout.settle(0, 1) == [(0, 1)]
    assert handout.settle(1, 3) == [(1, 3)]
    assert (handout.head, handout.holes, handout.is_settled) == (3, None, False)
    assert handout.settle(3, 4) == [(3, 4)]
    assert handout.is_settled


def test_a_gap_that_closes_leaves_no_holes() -> None:
    handout = make_handout(5)
    assert handout.settle(3, 4) == [(3, 4)]
    assert handout.settle(1, 2) == [(1, 2)]
    assert unsettled(handout) == {0, 2, 4}
    assert handout.settle(0, 5) == [(0, 1), (2, 3), (4, 5)]
    assert (handout.is_settled, handout.holes) == (True, None)


RANGES = st.tuples(st.integers(0, 12), st.integers(1, 12)).map(
    lambda pair: (min(pair[0], 11), min(pair[0] + pair[1], 12))
)


@given(st.lists(st.tuples(st.booleans(), RANGES), max_size=25))
def test_a_handout_equals_a_set(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    handout, naive = make_handout(12), set(range(12))
    for is_undo, (start, stop) in steps:
        span = set(range(start, stop))
        if is_undo:
            undone = span - naive
            for index in sorted(undone, key=lambda index: (index % 3, index)):
                handout.unsettle(index, index + 1)
            naive |= undone
        else:
            stretches = handout.settle(start, stop)
            settled = [index for stretch in stretches for index in range(*stretch)]
            assert settled == sorted(span & naive)
            assert all(first < last for first, last in stretches)
            naive -= span
        assert unsettled(handout) == naive
        assert handout.is_settled == (not naive)
        assert handout.holes is None or min(handout.holes) > handout.head


@given(st.integers(0, 9), st.integers(1, 10))
def test_a_whole_stretch_is_undone_at_once(start: int, length: int) -> None:
    handout = make_handout(12)
    handout.settle(0, 5)
    handout.settle(7, 9)
    before = unsettled(handout)
    stretches = handout.settle(start, start + length)
    for stretch in stretches:
        handout.unsettle(*stretch)
    assert unsettled(handout) == before
