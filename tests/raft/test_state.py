"""Persisted state, compared with a disk that does one write after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.raft.log import HardState
from fluffle.raft.state import DurableState

NONE = HardState(0, None)


def test_a_late_completion_does_not_confirm_what_took_its_place() -> None:
    """The drawing at the head of the module."""
    durable = DurableState(4, NONE)
    durable.submit(1, 9, NONE)
    durable.truncate(6)
    durable.submit(2, 7, NONE)
    durable.finish(1)
    assert durable.index == 5
    durable.finish(2)
    assert durable.index == 7


def test_what_was_durable_and_is_truncated_is_not_durable() -> None:
    durable = DurableState(9, NONE)
    durable.truncate(4)
    assert durable.index == 3


def test_writes_before_a_snapshot_say_nothing_of_the_log_behind_it() -> None:
    durable = DurableState(3, NONE)
    durable.submit(1, 9, NONE)
    durable.reset()
    durable.submit(2, 50, NONE)
    durable.finish(1)
    assert durable.index == 0
    durable.finish(2)
    assert durable.index == 50


def test_writes_finish_in_order() -> None:
    durable = DurableState(0, NONE)
    durable.submit(1, 1, NONE)
    durable.submit(2, 2, NONE)
    with pytest.raises(AssertionError, match="write 2 finished before 1"):
        durable.finish(2)


def test_term_and_vote_are_durable_with_their_write() -> None:
    durable = DurableState(0, NONE)
    durable.submit(1, 0, HardState(3, None))
    assert durable.hard_state == NONE
    durable.finish(1)
    assert durable.hard_state == HardState(3, None)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("truncate"), st.integers(1, 20)),
        st.tuples(st.just("sync"), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_is_called_durable_is_on_disk(steps: list[tuple[str, int]]) -> None:
    """Each entry is a number of its own; the disk does the writes in order, as they were."""
    memory: list[int] = []
    disk: list[int] = []
    writes: list[tuple[int, list[int]]] = []
    durable, number = DurableState(0, NONE), 0
    for step, value in steps:
        if step == "append":
            start = len(memory)
            memory += range(number, number + value)
            number += value
            writes.append((start, memory[start:]))
            durable.submit(number, len(memory), NONE)
        elif step == "truncate" and value <= len(memory):
            del memory[value - 1 :]
            durable.truncate(value)
        elif step == "sync" and writes:
            start, entries = writes.pop(0)
            disk[start:] = entries
            durable.finish(durable._pending_writes[0][0])
        assert disk[: durable.index] == memory[: durable.index]
        assert durable.index <= len(memory)
