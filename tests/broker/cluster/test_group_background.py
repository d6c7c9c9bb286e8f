"""When groups take snapshots, and who goes first."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.group_background import (
    FULL_BYTES,
    RETRY_MS,
    ROUND_MS,
    HostLimits,
    ScrubLimits,
    SnapshotSchedule,
    first_hole,
)
from fluffle.raft.log import DATA, Entry
from tests.simulation.toy import put, settle
from tests.support.raft_hosts import HostCluster

MIN, NODE_MAX = 100, 1_000


def fresh() -> SnapshotSchedule:
    return SnapshotSchedule(MIN, NODE_MAX)


def take_all(books: SnapshotSchedule, now_ms: int = 0) -> list[int]:
    """Groups that take a snapshot, in order, until none is left."""
    order: list[int] = []
    while (group := books.next(now_ms)) is not None:
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


def test_a_group_owes_one_once_enough_of_its_log_is_of_no_use() -> None:
    books = fresh()
    books.taken(1, MIN + 50)
    books.freed(1, MIN)
    books.applied(1, 1)
    assert books.next(0) is None, "its state is larger"
    books.freed(1, 50)
    assert books.next(0) == 1
    assert books.owed_bytes == 1, "for the others it counts as what it has applied"
    books.taken(1, 0)
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


def test_beyond_the_limit_who_was_asked_to_wait_waits() -> None:
    books = SnapshotSchedule(MIN, 0)
    books.applied(1, 10)
    assert books.next(0) == 1
    books.postpone(1, 0)
    assert books.next(0) is None


def test_where_there_is_little_room_all_take_one_now_and_then() -> None:
    books = fresh()
    books.applied(1, 1)
    books.applied(2, 1)
    books.postpone(2, 0)
    assert books.next(0) is None
    books.is_short = True
    assert take_all(books) == [1]
    books.applied(1, 1)
    assert (books.next(0), books.deadline_ms) == (None, RETRY_MS)
    assert books.next(RETRY_MS) == 2
    books.taken(2, 0)
    assert (books.next(RETRY_MS), books.deadline_ms) == (None, ROUND_MS)
    assert books.next(ROUND_MS) == 1
    books.taken(1, 0)
    assert books.deadline_ms is None, "nobody owes any"


def test_where_only_votes_have_room_those_are_taken_that_free_more_than_they_cost() -> None:
    """Nothing else makes room there: what consumers take is not written any more."""
    books = fresh()
    for group in (1, 2, 3, 4):
        books.taken(group, 4 * FULL_BYTES if group == 3 else 50)
        books.applied(group, 10)
    books.freed(2, 2 * FULL_BYTES)
    books.freed(3, 4 * FULL_BYTES)
    books.freed(4, FULL_BYTES)
    books.postpone(1, 0)
    books.is_short = books.is_full = True
    assert books.next(0) == 2
    books.taken(2, 50)
    assert (books.next(0), books.deadline_ms) == (None, RETRY_MS)
    assert (books.next(RETRY_MS), books.deadline_ms) == (None, None), "nobody is asked for ever"
    books.is_full = False
    assert sorted(take_all(books, RETRY_MS)) == [1, 3, 4]


def test_where_only_votes_have_room_a_state_that_was_large_may_be_small_by_now() -> None:
    """The state is made again once more is freed than it took: making it costs as much as its
    size."""
    books = fresh()
    books.taken(1, 8 * FULL_BYTES)
    books.applied(1, 300_000)
    books.freed(1, 8 * FULL_BYTES)
    books.is_short = books.is_full = True
    assert books.next(0) is None
    books.freed(1, 1)
    assert books.next(0) == 1
    books.too_large(1, 9 * FULL_BYTES)
    books.freed(1, 9 * FULL_BYTES)
    assert books.next(0) is None
    books.freed(1, 1)
    assert take_all(books) == [1]


def test_where_only_votes_have_room_who_was_asked_to_wait_waits() -> None:
    books = fresh()
    books.freed(1, FULL_BYTES + 1)
    books.freed(2, FULL_BYTES + 1)
    books.is_full = True
    books.postpone(1, 0)
    assert take_all(books) == [2]
    assert books.deadline_ms == RETRY_MS
    assert take_all(books, RETRY_MS) == [1]
    assert books.deadline_ms is None


def test_a_state_that_has_grown_too_large_is_made_again_once_more_is_freed() -> None:
    books = fresh()
    books.freed(1, 4 * FULL_BYTES)
    books.is_full = True
    assert books.next(0) == 1
    books.too_large(1, FULL_BYTES + 1)
    assert (books.next(0), books.deadline_ms) == (None, None)
    books.freed(1, FULL_BYTES + 1)
    assert books.next(0) is None
    books.freed(1, 1)
    assert books.next(0) == 1
    books.too_large(1, FULL_BYTES + 1)
    books.is_full = False
    assert books.next(0) == 1, "there is room for it"


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


GROUP = 7
SCRUB = ScrubLimits(piece_bytes=500, pause_ms=50, rest_ms=4_000)


def backlog(scrub: ScrubLimits = SCRUB) -> HostCluster:
    """Three nodes with twenty live entries, every third of the log dead, below their floors."""
    cluster = HostCluster(settings=HostLimits(scrub=scrub))
    cluster.create(GROUP)
    cluster.propose(GROUP, *(put(number, 80) for number in range(30)))
    cluster.propose(GROUP, settle(range(2, 32, 3)))
    cluster.advance(100)
    for node in cluster.running():
        node.snapshot(GROUP)
    cluster.settle()
    assert cluster.led(GROUP).status.floor == 32
    return cluster


def test_a_damaged_entry_is_found_and_mended() -> None:
    cluster = backlog()
    hurt = cluster.followers(GROUP)[0]
    hurt.image.groups[GROUP].damaged.add(18)
    cluster.advance(5_000)
    assert hurt.reported.damages == [(GROUP, 18)]
    assert hurt.image.groups[GROUP].damaged == set()
    assert not hurt.host.group(GROUP).status.is_quarantined


def test_a_missing_entry_is_found() -> None:
    cluster = backlog()
    hurt = cluster.followers(GROUP)[0]
    del hurt.image.groups[GROUP].entries[18]
    cluster.advance(5_000)
    assert hurt.reported.damages == [(GROUP, 18)]
    assert 18 in hurt.image.groups[GROUP].entries


def test_a_damaged_state_is_found_and_mended() -> None:
    cluster = backlog()
    hurt = cluster.followers(GROUP)[0]
    hurt.image.groups[GROUP].is_state_damaged = True
    cluster.advance(5_000)
    assert hurt.reported.damages == [(GROUP, 32)]
    assert not hurt.image.groups[GROUP].is_state_damaged


def test_nothing_is_found_where_nothing_is_wrong_though_snapshots_come_and_go() -> None:
    cluster = backlog(ScrubLimits(piece_bytes=100, pause_ms=10, rest_ms=10))
    for number in range(100):
        cluster.propose(GROUP, put(1_000 + number, 80), settle(range(3, 10 + number)))
        for node in cluster.running():
            node.snapshot(GROUP)
        cluster.advance(30)
    assert [node.reported.damages for node in cluster.running()] == [[], [], []]
    assert sum(node.store.happened.count("read") for node in cluster.running()) > 300


def test_a_backlog_is_read_to_its_end_though_snapshots_come_more_often() -> None:
    cluster = backlog(ScrubLimits(piece_bytes=500, pause_ms=50, rest_ms=50))
    hurt = cluster.followers(GROUP)[0]
    hurt.image.groups[GROUP].damaged.add(30)
    for number in range(40):
        cluster.propose(GROUP, put(1_000 + number, 80))
        for node in cluster.running():
            node.snapshot(GROUP)
        cluster.advance(60)
    assert hurt.reported.damages == [(GROUP, 30)]


def test_it_reads_in_pieces_with_pauses_and_rests_after_a_round() -> None:
    cluster = backlog()
    node = cluster.nodes["a"]
    node.store.happened.clear()
    read_at: list[int] = []
    for _ in range(1_500):
        cluster.advance(10)
        reads = node.store.happened.count("read")
        assert reads - len(read_at) <= 1
        if reads > len(read_at):
            read_at.append(cluster.now_ms)
    pauses = [after - before for before, after in pairwise(read_at)]
    assert len(read_at) > 2 * 20 * 80 // SCRUB.piece_bytes
    assert min(pauses) >= SCRUB.pause_ms
    assert sum(pause >= SCRUB.rest_ms for pause in pauses) in (2, 3)


def test_holes() -> None:
    entries = [Entry(index, 1, DATA, b"") for index in (4, 5, 7)]
    assert first_hole(entries, 4) == 6
    assert first_hole(entries, 3) == 3
    assert first_hole(entries[:2], 4) is None
    assert first_hole([], 4) == 4
