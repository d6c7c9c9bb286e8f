"""Damage: what runs of the simulator found."""

import pytest

from fluffle.raft.log import HardState, Quarantine
from fluffle.raft.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    RepairRequest,
    VoteResponse,
)
from fluffle.raft.output import Output
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster, Host
from tests.raft.single import Single, entry, vote_request


def test_damage_found_at_the_start_is_remembered_before_the_log_is_received_again() -> None:
    """The entries behind the damage go as soon as the first is there again, so a crash in between
    leaves a log that is sound and too short: only what was remembered keeps it from voting."""
    cluster = Cluster(tuning=Tuning(append_bytes_max=1))
    cluster.create()
    cluster.elect("a")
    cluster.propose("one", "two", "three", "four")
    cluster.advance(500)
    c = cluster["c"]
    last = c.status().durable
    c.crash()
    c.disk.groups[GROUP].damaged.add(last - 3)
    c.start()
    cluster.link_all()
    for _ in range(1_000):
        if c.disk.groups[GROUP].last < last:
            break
        if cluster.network:
            cluster.deliver()
        elif not any(host.sync() for host in cluster.up):
            cluster.now_ms += 10
            for host in cluster.up:
                host.do()
    assert c.disk.groups[GROUP].last < last, "nothing was sent again"
    c.crash()
    c.start()
    assert c.status().is_quarantined


def test_what_a_snapshot_mends_is_acknowledged_once_it_is_on_disk() -> None:
    """The log behind it is of the same history and is kept, so it was durable all the time."""
    cluster = Cluster()
    cluster.create()
    cluster.elect("a")
    cluster.propose("two", "three", "four")
    cluster.advance(500)
    for name in "ac":
        cluster[name].snapshot()
    cluster.settle()
    c = cluster["c"]
    c.disk.groups[GROUP].damaged.add(2)
    c.do(lambda: c.group().damaged(2))
    for _ in range(1_000):
        if any(write.install for persist in c.disk.submitted for write in persist.writes):
            break
        if cluster.network:
            cluster.deliver()
        elif not c.sync():
            cluster.now_ms += 10
            for host in cluster.up:
                host.do()
    said = [m for source, _, m in cluster.network if source == "c"]
    assert not any(isinstance(message, AppendAccepted) for message in said)
    while c.sync():
        pass
    assert any(
        isinstance(message, AppendAccepted) and message.durable == 4
        for source, _, message in cluster.network
        if source == "c"
    )
    assert not c.status().is_quarantined


def test_what_was_written_behind_the_damage_since_is_kept_by_the_snapshot_that_mends_it() -> None:
    """Sound entries need not come again, nor leave the disk for that."""
    cluster = Cluster()
    cluster.create()
    cluster.elect("a")
    cluster.propose("two", "three")
    cluster.advance(500)
    for name in "ac":
        cluster[name].snapshot()
    cluster.settle()
    c = cluster["c"]
    c.disk.groups[GROUP].damaged.add(2)
    c.do(lambda: c.group().damaged(2))
    cluster.propose("four")
    truncated: list[int | None] = []

    def see(host: Host, output: Output) -> None:
        if host is c and output.persist is not None:
            truncated.extend(write.truncate_from for write in output.persist.writes)

    cluster.on_output = see
    cluster.advance(3_000)
    assert not c.status().is_quarantined
    assert cluster.data("c") == ["two", "three", "four"]
    assert set(truncated) == {None}


def test_what_is_damaged_is_asked_for_though_nobody_says_anything() -> None:
    """An idle leader sends nothing that an answer could be given to."""
    cluster = Cluster()
    cluster.create()
    cluster.elect("a")
    cluster.propose("two", "three")
    cluster.advance(500)
    c = cluster["c"]
    c.disk.groups[GROUP].damaged.add(2)
    c.do(lambda: c.group().damaged(2))
    assert cluster.drop(RepairRequest) == 1
    cluster.settle()
    assert c.status().is_quarantined
    cluster.advance(cluster.tuning.retry_ms_max + 500)
    assert not c.status().is_quarantined
    assert cluster.data("c") == ["two", "three"]


def test_a_live_entry_that_is_lost_between_others_is_not_passed_over() -> None:
    """A page with a hole, sent as it is, would leave the follower without that entry for good."""
    cluster = Cluster()
    cluster.create()
    leader = cluster.elect("a")
    cluster.partition("ab", "c")
    cluster.propose("one", "two", "three", "four")
    cluster.advance(500)
    leader.snapshot()
    cluster.settle()
    indexes = [index for index, _, _ in leader.applied[GROUP]]
    del leader.disk.groups[GROUP].entries[indexes[1]]
    cluster.heal()
    cluster.advance(3_000)
    for host in cluster.up:
        assert not host.status().is_quarantined
        assert cluster.data(host.name) == ["one", "two", "three", "four"]
        assert host.disk.groups[GROUP].entries.keys() >= set(indexes)


def test_a_leader_applies_nothing_that_its_disk_has_lost() -> None:
    """The others have it, so it is committed, and it is in memory: but the disk vouches for it."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    index = a.status().last + 1
    cluster.propose("two")
    for host in cluster.up:
        while cluster.network and cluster.network[0][1] == host.name != "a":
            cluster.deliver()
        while host.sync():
            pass
    assert len(cluster.network) == 2, "both answers are under way"
    a.disk.groups[GROUP].damaged.add(index)
    applied: list[bool] = []

    def see(host: Host, output: Output) -> None:
        entries = [entry for apply in output.applies for entry in apply.entries]
        if host is a and any(entry.index == index for entry in entries):
            applied.append(index not in a.disk.groups[GROUP].damaged)

    cluster.on_output = see
    a.do(lambda: a.group().damaged(index))
    cluster.advance(3_000)
    assert applied
    assert all(applied)
    assert cluster.data("a") == ["two"]


def test_no_snapshot_is_installed_that_is_older_than_our_own_on_its_way_to_the_disk() -> None:
    """Ours takes dead entries out of the log; the older would call that part of it whole."""
    cluster = Cluster()
    cluster.create()
    cluster.elect("a")
    cluster.propose("two", "three", "four")
    cluster.advance(500)
    for name in "ac":
        cluster[name].snapshot()
    cluster.settle()
    cluster.propose("five", "six")
    cluster.advance(500)
    c = cluster["c"]
    c.snapshot(dead=[5])
    c.disk.groups[GROUP].damaged.add(2)
    c.do(lambda: c.group().damaged(2))
    for _ in range(500):
        if cluster.network:
            cluster.deliver()
        elif not any(cluster[name].sync() for name in "ab"):
            cluster.now_ms += 10
            for host in cluster.up:
                host.do()
    cluster.advance(5_000)
    c.crash()
    c.start()
    cluster.link_all()
    cluster.advance(5_000)
    assert not c.status().is_quarantined
    assert c.status().floor == 6
    assert cluster.data("c") == ["two", "three", "four", "five", "six"]


def test_damage_behind_all_that_is_known_is_received_again_too() -> None:
    """Entries came since the first damage was found, and now one of them cannot be read."""
    cluster = Cluster(tuning=Tuning(snapshot_window=1))
    cluster.create()
    cluster.elect("a")
    cluster.propose("two", "three")
    cluster.advance(500)
    for name in "ac":
        cluster[name].snapshot()
    cluster.settle()
    c = cluster["c"]
    c.do(lambda: c.group().damaged(2))
    cluster.drop(RepairRequest)
    cluster.propose("four", "five")
    cluster.settle()
    assert (c.status().durable, c.status().is_quarantined) == (5, True)
    c.disk.groups[GROUP].damaged.add(5)
    c.do(lambda: c.group().damaged(5))
    cluster.advance(5_000)
    assert not c.status().is_quarantined
    assert c.disk.groups[GROUP].damaged == set()
    assert cluster.data("c") == ["two", "three", "four", "five"]


@pytest.mark.parametrize(("log", "is_over"), [((1, 1, 1), True), ((1, 1, 2), False)])
def test_a_leader_with_a_shorter_log_ends_a_quarantine(
    log: tuple[int, ...], *, is_over: bool
) -> None:
    """Leaders may have counted acknowledged entries of their own term, further than they reported;
    a leader of a later term has all that were ever committed."""
    node = Single(log=log, hard=HardState(2, None))
    node.group.damaged(2)
    node.turn()
    own = entry(2, 2)
    node.receive("b", AppendRequest(GROUP, 2, 1, 1, 1, 1, 2, 1, [own]))
    node.sync()
    assert node.status.is_quarantined is not is_over
    node.receive("b", AppendRequest(GROUP, 2, 1, 1, 2, 2, 2, 2, [entry(3, 2)]))
    node.sync()
    assert not node.status.is_quarantined


def test_a_vote_that_was_given_before_damage_was_found_is_not_sent() -> None:
    node = Single(log=(1, 1))
    node.receive("b", vote_request(2, last=(1, 2)))
    node.group.damaged(2)
    node.sync()
    assert node.status.is_quarantined
    assert node.sent(VoteResponse) == []
    node.receive("b", vote_request(2, last=(1, 2)))
    assert [answer.is_granted for answer in node.sent(VoteResponse)] == [False]


def test_what_a_later_leader_cut_off_need_not_come_again() -> None:
    """More damage is found when the log ends with an entry of that leader."""
    node = Single(log=(1,) * 5)
    node.group.damaged(2)
    node.turn()
    node.follow("b", 2, entry(2, 2), previous=entry(1, 1))
    assert node.state.quarantine == Quarantine(2, 5, 1, needs_snapshot=False)
    node.group.damaged(1)
    node.turn()
    assert node.state.quarantine == Quarantine(1, 2, 2, needs_snapshot=False)


def test_what_came_again_and_is_damaged_again_comes_once_more() -> None:
    """An image that did not take it has to be restored, though the quarantine goes on."""
    node = Single(log=(1,) * 5)
    node.group.damaged(2)
    node.turn()
    for _ in range(2):
        again = AppendRequest(GROUP, 1, 1, 1, 1, 1, 3, 1, [entry(2, 1), entry(3, 1)])
        (read,) = node.receive("b", again).reads
        node.sync()
        node.group.entries_read(read.number, [entry(1, 1)])
        node.turn()
        node.turn()
        assert (node.status.applied, node.status.is_quarantined) == (3, True)
        node.group.damaged(2)
        assert len(node.turn().restores) == 1
        assert (node.status.applied, node.status.last) == (0, 1)


def test_what_differs_in_front_of_the_damage_is_compared_further() -> None:
    """The differing entry was never the leader's: asking only for what follows would never end."""
    node = Single(log=(1, 1, 1, 1))
    node.group.damaged(3)
    node.turn()
    node.receive("b", AppendRequest(GROUP, 3, 1, 1, 4, 2, 0, 1, []))
    assert {request.first for request in node.sent(RepairRequest)} == {3}
    node.receive("b", AppendRequest(GROUP, 3, 1, 1, 2, 2, 0, 2, []))
    assert [(said.previous_index, said.hint_index) for said in node.sent(AppendRejected)] == [
        (2, 1)
    ]
    node.receive("b", AppendRequest(GROUP, 3, 1, 1, 1, 1, 0, 3, [entry(2, 2), entry(3, 2)]))
    node.sync()
    assert [answer.durable for answer in node.sent(AppendAccepted)] == [3]


@pytest.mark.parametrize("what", ["all", "behind", "uncommitted", "transferring", "full"])
def test_a_leader_adds_an_entry_only_for_who_has_all_and_when_it_would_take_another(
    what: str,
) -> None:
    single = Single()
    single.lead()
    single.accept("b", 1)
    if what != "behind":
        single.accept("c", 1)
    if what == "uncommitted":
        single.group.propose(b"x")
        single.turn()
        single.accept("c", 2)
    elif what == "transferring":
        single.group.transfer("b")
    elif what == "full":
        single.raft.has_room = False
    last, term = single.status.last, single.status.term
    assert single.status.commit == 1
    for _ in range(3):
        single.receive("c", RepairRequest(GROUP, term, 1, 1, last + 1, 0))
    assert single.status.last == last + (what == "all")
