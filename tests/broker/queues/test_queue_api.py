"""A run in somebody's hands: which messages of it are settled, in any order, and undone."""

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.queues.queue_api import DeliveryBatch, Holder
from tests.broker.queues.queue_harness import ORIGIN, numbered

NOBODY = cast(Holder, SimpleNamespace(no_ack=False))


def make_handout(count: int) -> DeliveryBatch:
    return DeliveryBatch(
        NOBODY, [ORIGIN] * count, numbered(0, count), range(count), redelivered=False
    )


def unsettled(delivery_batch: DeliveryBatch) -> set[int]:
    return {
        index
        for index in range(-2, len(delivery_batch.contents) + 2)
        if delivery_batch.holds(index)
    }


def test_in_order_moves_one_number() -> None:
    delivery_batch = make_handout(4)
    assert delivery_batch.settle(0, 1) == [(0, 1)]
    assert delivery_batch.settle(1, 3) == [(1, 3)]
    assert (delivery_batch.head, delivery_batch.holes, delivery_batch.is_settled) == (
        3,
        None,
        False,
    )
    assert delivery_batch.settle(3, 4) == [(3, 4)]
    assert delivery_batch.is_settled


def test_a_gap_that_closes_leaves_no_holes() -> None:
    delivery_batch = make_handout(5)
    assert delivery_batch.settle(3, 4) == [(3, 4)]
    assert delivery_batch.settle(1, 2) == [(1, 2)]
    assert unsettled(delivery_batch) == {0, 2, 4}
    assert delivery_batch.settle(0, 5) == [(0, 1), (2, 3), (4, 5)]
    assert (delivery_batch.is_settled, delivery_batch.holes) == (True, None)


RANGES = st.tuples(st.integers(0, 12), st.integers(1, 12)).map(
    lambda pair: (min(pair[0], 11), min(pair[0] + pair[1], 12))
)


@given(st.lists(st.tuples(st.booleans(), RANGES), max_size=25))
def test_a_handout_equals_a_set(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    delivery_batch, naive = make_handout(12), set(range(12))
    for is_undo, (start, stop) in steps:
        span = set(range(start, stop))
        if is_undo:
            undone = span - naive
            for index in sorted(undone, key=lambda index: (index % 3, index)):
                delivery_batch.unsettle(index, index + 1)
            naive |= undone
        else:
            stretches = delivery_batch.settle(start, stop)
            settled = [index for stretch in stretches for index in range(*stretch)]
            assert settled == sorted(span & naive)
            assert all(first < last for first, last in stretches)
            naive -= span
        assert unsettled(delivery_batch) == naive
        assert delivery_batch.is_settled == (not naive)
        assert delivery_batch.holes is None or min(delivery_batch.holes) > delivery_batch.head


@given(st.integers(0, 9), st.integers(1, 10))
def test_a_whole_stretch_is_undone_at_once(start: int, length: int) -> None:
    delivery_batch = make_handout(12)
    delivery_batch.settle(0, 5)
    delivery_batch.settle(7, 9)
    before = unsettled(delivery_batch)
    stretches = delivery_batch.settle(start, start + length)
    for stretch in stretches:
        delivery_batch.unsettle(*stretch)
    assert unsettled(delivery_batch) == before
