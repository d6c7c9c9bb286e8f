"""When groups take snapshots, and who goes first."""

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.snapshots import RETRY_MS, Snapshots

MIN, NODE_MAX = 100, 1_000


def fresh() -> Snapshots:
    return Snapshots(MIN, NODE_MAX)


def take_all(books: Snapshots) -> list[int]:
    """Who takes one, in order, until nobody has to."""
    order: list[int] = []
    while (group := books.next(0)) is not None:
        order.append(group)
        books.taken(group, 0)
    return order


def test_a_group_owes_one_once_it_has_applied_enough() -> None:
    books = fresh()
    books.applied(1, MIN - 1)
    assert books.next(0) is None
    books.applied(1, 1)
    assert books.next(0) == 1
    books.taken(1, 10)
    assert books.next(0) is None


def test_a_large_state_is_not_written_more_often_than_it_is_worth() -> None:
    books = fresh()
    books.taken(1, 500)
    books.applied(1, 499)
    assert books.next(0) is None
    books.applied(1, 1)
    assert books.next(0) == 1


def test_who_owes_first_goes_first() -> None:
    books = fresh()
    for group in (3, 1, 2):
        books.applied(group, MIN)
    assert take_all(books) == [3, 1, 2]


def test_many_that_owe_little_are_taken_in_turn_beyond_the_limit_of_the_node() -> None:
    books = fresh()
    for group in range(20):
        books.applied(group, 60)
    assert take_all(books) == [0, 1, 2, 3]
    assert books.owed_bytes == 16 * 60 <= NODE_MAX


def test_who_cannot_take_one_is_asked_again_later_and_holds_up_nobody() -> None:
    books = fresh()
    books.applied(1, MIN)
    books.applied(2, MIN)
    books.postpone(1, 50)
    assert books.next(50) == 2
    books.taken(2, 0)
    assert (books.next(50), books.deadline_ms) == (None, 50 + RETRY_MS)
    assert books.next(50 + RETRY_MS) == 1
    assert books.deadline_ms is None


def test_beyond_the_limit_who_was_told_to_wait_waits() -> None:
    books = Snapshots(MIN, 0)
    books.applied(1, 10)
    assert books.next(0) == 1
    books.postpone(1, 0)
    assert books.next(0) is None


ACTS = st.lists(
    st.tuples(st.sampled_from(["applied", "taken", "forget", "postpone"]), st.integers(1, 4),
              st.integers(0, 150)),
    max_size=60,
)  # fmt: skip


@given(ACTS)
def test_the_sums_are_those_of_the_groups(acts: list[tuple[str, int, int]]) -> None:
    books = fresh()
    owed: dict[int, int] = {}
    states: dict[int, int] = {}
    postponed: set[int] = set()
    for what, group, size in acts:
        if what == "applied":
            books.applied(group, size)
            owed[group] = owed.get(group, 0) + size
        elif what == "postpone":
            books.postpone(group, 0)
            postponed |= {group} & owed.keys()
        else:
            owed.pop(group, None)
            states.pop(group, None)
            if what == "taken":
                books.taken(group, size)
                states[group] = size
            else:
                books.forget(group)
        assert books.owed_bytes == sum(owed.values())
        assert books.states_bytes == sum(states.values())
    due = {group for group, size in owed.items() if size >= max(MIN, states.get(group, 0))}
    due |= postponed & owed.keys()
    found = books.next(RETRY_MS)
    assert found in due if due else found is None or books.owed_bytes > NODE_MAX
