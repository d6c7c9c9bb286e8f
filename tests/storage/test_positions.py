"""Positions of one group against a dictionary."""

from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.storage.positions import COMPACT_ENTRIES, Positions


@example([("append", 0, 0)] * 3 + [("delete", 2, 1), ("delete", 3, 1), ("append", 0, 0)])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "delete", "truncate"]),
            st.integers(0, 30),
            st.integers(0, 30),
        )
    )
)
def test_positions_hold_what_a_dictionary_would(actions: list[tuple[str, int, int]]) -> None:
    positions, model, place = Positions(), dict[int, int](), 0
    for action, a, b in actions:
        if action == "append":
            place += 1
            index = max([0, *model]) + 1 + a
            if model or positions.is_empty:
                positions.append(index, place)
                model[index] = place
        else:
            first, stop = (a, a + b) if action == "delete" else (a, 2**64 - 1)
            assert not positions.delete(first, stop), "nothing is cold"
            model = {index: at for index, at in model.items() if not first <= index < stop}
        assert dict(positions.hot(0, 2**64 - 1)) == model
        assert dict(positions.hot(5, 20)) == {i: p for i, p in model.items() if 5 <= i < 20}
        assert all(positions.find(index) == model.get(index, 0) for index in range(60))
        assert positions.is_empty == (not model)


def test_a_front_that_is_gone_is_cut_off() -> None:
    positions = Positions()
    for index in range(1, 10 * COMPACT_ENTRIES):
        positions.append(index, index)
        if index > 3:
            positions.delete(index - 3, index - 2)
    assert len(positions._indexes) < 3 * COMPACT_ENTRIES
    assert [index for index, _ in positions.hot(0, 2**64 - 1)][-1] == 10 * COMPACT_ENTRIES - 1


def test_cold_bounds_follow() -> None:
    positions = Positions()
    for index in range(1, 10):
        positions.append(index, index)
    for index in range(1, 6):
        positions.move_to_cold(index)
    assert (positions.cold_first, positions.cold_stop) == (1, 6)
    assert positions.find(5) == 0
    assert positions.find(6) == 6
    assert positions.cold_end(100) == 6
    assert positions.cold_end(3) == 3
    assert positions.delete(0, 2), "there may be cold ones"
    assert not positions.delete(6, 7), "there are none"
    positions.trimmed(0, 2)
    assert (positions.cold_first, positions.cold_stop) == (2, 6)
    positions.trimmed(5, 100)
    assert (positions.cold_first, positions.cold_stop) == (2, 5)
    positions.trimmed(7, 100)
    assert (positions.cold_first, positions.cold_stop) == (2, 5), "nothing was there"
    positions.trimmed(3, 4)
    assert (positions.cold_first, positions.cold_stop) == (2, 5), "a hole is not a bound"
    positions.delete(0, 100)
    assert not positions.is_empty
    positions.trimmed(0, 100)
    assert positions.is_empty
    assert positions.is_forgettable
    positions = Positions()
    positions.trimmed(7, 100)
    assert positions.is_forgettable, "an old debt says nothing of a group that began anew"
