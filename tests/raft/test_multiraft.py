"""All groups of a node together."""

from collections import Counter
from functools import partial
from random import Random

import pytest

from fluffle.raft import multiraft
from fluffle.raft.config import Configuration
from fluffle.raft.group import end_turn
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import GroupId
from fluffle.raft.messages import (
    AppendRequest,
    GroupUnknown,
    Message,
    Ping,
    PreVoteRequest,
    PreVoteResponse,
)
from fluffle.raft.multiraft import MultiRaft, PendingNews
from fluffle.raft.output import AbsentMember, Output, ReadEntries, Role
from fluffle.raft.state import GroupState
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster, Host


def leaders(cluster: Cluster, groups: range) -> Counter[str]:
    found: Counter[str] = Counter()
    for group in groups:
        found[cluster.led(group).name] += 1
    return found


def many(groups: range) -> Cluster:
    """All with a leader, and asleep."""
    cluster = Cluster()
    for group in groups:
        cluster.create("abc", group)
    cluster.advance(2_000, step_ms=50)
    return cluster


def test_three_nodes_elect_a_leader_and_agree() -> None:
    cluster = Cluster()
    cluster.create()
    cluster.elect()
    cluster.propose("one", "two", "three")
    cluster.advance(50)
    assert [cluster.data(name) for name in "abc"] == [["one", "two", "three"]] * 3


def test_leaders_are_balanced_from_the_beginning_and_after_a_loss() -> None:
    groups = range(1, 91)
    cluster = Cluster()
    cluster.advance(300)
    for group in groups:
        cluster.create("abc", group)
    cluster.advance(2_000, step_ms=50)
    assert all(leaders(cluster, groups)[name] >= 15 for name in "abc")
    cluster["a"].crash()
    for name in "bc":
        cluster[name].do(partial(cluster[name].raft.link_down, "a"))
    cluster.advance(500)
    found = leaders(cluster, groups)
    assert found["a"] == 0
    assert all(found[name] >= 30 for name in "bc")


def test_the_groups_of_a_lost_node_stand_in_one_frame() -> None:
    groups = range(1, 61)
    cluster = many(groups)
    lost = [group for group in groups if cluster.led(group).name == "a"]
    cluster["a"].crash()
    b = cluster["b"]
    b.do(partial(b.raft.link_down, "a"))
    output = b.do()
    asked = [m for m in output.messages["c"] if isinstance(m, PreVoteRequest)]
    first = {message.group for message in asked}
    assert len(first) == len(asked)
    assert first <= set(lost)
    assert len(first) >= len(lost) // 4


def test_of_many_groups_that_have_lost_their_leader_few_stand_in_each_turn() -> None:
    """A node with thousands of them hears pings in between, and the definitions' group is first."""
    groups = range(1, 61)
    cluster = Cluster(tuning=Tuning(groups_max=4))
    for group in groups:
        cluster.create("abc", group)
    cluster.advance(2_000, step_ms=10)
    cluster["a"].crash()
    b = cluster["b"]
    asked: list[list[int]] = []

    def note(host: Host, output: Output) -> None:
        messages = output.messages.get("c", [])
        if host is b:
            asked.append([each.group for each in messages if isinstance(each, PreVoteRequest)])

    cluster.on_output = note
    b.do(partial(b.raft.link_down, "a"))
    while (at_ms := b.raft.deadline_ms) is not None and at_ms <= cluster.now_ms:
        b.do()
    assert max(map(len, asked)) <= 4
    stood = [group for found in asked for group in found]
    assert stood == sorted(stood)
    assert len(stood) > 4
    cluster["c"].do(partial(cluster["c"].raft.link_down, "a"))
    cluster.advance(2_000)
    assert not leaders(cluster, groups)["a"]


class Turns:
    """Groups and pings of each turn of a host."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.flushed: list[int] = []
        groups: list[GroupId] = []

        def counted(state: GroupState) -> None:
            if state.node is host.raft._node:
                groups.append(state.group)
            end_turn(state)

        def note(who: Host, _output: Output) -> None:
            if who is host:
                self.flushed.append(len(groups))
                groups.clear()

        monkeypatch.setattr(multiraft, "end_turn", counted)
        host.cluster.on_output = note

    def until_done(self) -> None:
        while (at_ms := self.host.raft.deadline_ms) is not None and (
            at_ms <= self.host.cluster.now_ms
        ):
            self.host.do()


MANY = range(1, 101)
FEW = 8


def limited() -> Cluster:
    """Many groups, all with a leader and asleep, of nodes that do few in a turn."""
    cluster = Cluster(tuning=Tuning(groups_max=FEW))
    for group in MANY:
        cluster.create("abc", group)
    cluster.advance(4_000, step_ms=10)
    assert leaders(cluster, MANY).total() == len(MANY)
    return cluster


def test_the_loss_of_a_node_is_reported_to_few_groups_in_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = limited()
    cluster["a"].crash()
    turns = Turns(b := cluster["b"], monkeypatch)
    b.do(partial(b.raft.link_down, "a"))
    turns.until_done()
    assert max(turns.flushed) == FEW
    assert len(turns.flushed) >= len(MANY) / FEW
    assert not b.raft.scheduler.news
    cluster["c"].do(partial(cluster["c"].raft.link_down, "a"))
    cluster.advance(2_000)
    assert not leaders(cluster, MANY)["a"]
    assert max(turns.flushed) <= FEW + FEW  # of one more turn that a test takes within a turn


def test_those_that_have_lost_their_leader_hear_of_it_first() -> None:
    cluster = limited()
    lost = {group for group in MANY if cluster.led(group).name == "a"}
    b = cluster["b"]
    b.do(partial(b.raft.link_down, "a"))
    left = {state.group for state in b.raft.scheduler.news.first(len(MANY))}
    assert len(left) == len(MANY) - FEW
    assert left >= {*MANY} - lost


def test_a_start_takes_up_few_groups_in_each_turn_and_pings_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = limited()
    a = cluster["a"]
    a.crash()
    a.start()
    turns, pings = Turns(a, monkeypatch), []
    noting = cluster.on_output

    def note(host: Host, output: Output) -> None:
        noting(host, output)
        if host is a:
            assert len(output.restores) <= FEW
            pings.append(any(isinstance(each, Ping) for each in output.messages.get("b", ())))

    cluster.on_output = note
    a.do(partial(a.raft.link_up, "b"))
    for _ in range(5):
        cluster.now_ms += 250
        a.do()
    assert pings == [True] * 6
    assert max(turns.flushed) == FEW
    turns.until_done()
    assert all(a.raft.group(group).status.last for group in MANY)
    assert a.applied.keys() == {*MANY}


def test_a_group_for_which_something_comes_does_not_wait_for_the_others() -> None:
    """The group has received all news before that, and is the first to have its turn."""
    cluster = limited()
    a = cluster["a"]
    a.crash()
    a.start()
    last = MANY[-1]
    a.do(lambda: a.raft.receive("b", [PreVoteRequest(last, 9, 1, 1, 9, 9)]))
    assert last in a.applied
    b = cluster["b"]
    b.do(partial(b.raft.link_down, "a"))
    waiting = b.raft.scheduler.news.first(len(MANY))[-1].group
    b.do(partial(b.raft.scheduler.attend, waiting))
    assert waiting not in {state.group for state in b.raft.scheduler.news.first(len(MANY))}


def test_groups_that_are_asleep_answer_and_do_nothing_else() -> None:
    cluster = limited()
    a = cluster["a"]
    a.crash()
    a.start()
    a.raft = MultiRaft("a", 9, cluster.tuning, Random(1))
    a.raft.load(a.disk.load(), are_asleep=True)
    for name in "bc":
        a.do(partial(a.raft.link_up, name))
        a.do(partial(a.raft.link_down, name))
    assert not a.applied
    a.do(lambda: a.raft.receive("b", [PreVoteRequest(MANY[-1], 9, 1, 1, 9, 9)]))
    a.do(partial(a.raft.scheduler.attend, MANY[7]))
    assert a.applied.keys() == {MANY[-1], MANY[7]}
    assert [type(each) for *_, each in cluster.network if isinstance(each, PreVoteResponse)]
    a.do(a.raft.scheduler.wake)
    while a.raft.scheduler.news:
        a.do()
    assert a.applied.keys() == {*MANY}


def test_all_groups_write_together() -> None:
    groups = range(1, 21)
    cluster = many(groups)
    a = cluster["a"]
    led = [group for group in groups if cluster.led(group).name == "a"]
    output = a.do(lambda: [a.raft.group(group).propose(b"x") for group in led])
    assert output.persist is not None
    assert [write.group for write in output.persist.writes] == led
    assert sorted(output.messages) == ["b", "c"]


def test_idle_groups_send_and_want_nothing() -> None:
    """However many there are, a node wants to be called for its pings only."""
    cluster = many(range(1, 41))
    for host in cluster.up:
        for state in host.raft._groups.values():
            assert state.deadline_ms is None
    sent: list[type] = []
    cluster.on_output = lambda host, output: sent.extend(
        type(message) for messages in output.messages.values() for message in messages
    )
    cluster.advance(5_000, step_ms=50)
    assert set(sent) == {Ping}
    for host in cluster.up:
        assert host.raft.deadline_ms == host.raft._failure_detector.deadline_ms


def test_a_group_that_is_not_here_is_not_invented() -> None:
    cluster = Cluster()
    a = cluster["a"]
    request = PreVoteRequest(77, 1, 1, 1, 0, 0)
    output = a.do(lambda: a.raft.receive("b", [request]))
    (absent,) = output.absent
    assert absent == AbsentMember("b", 77, 1)
    assert 77 not in a.raft
    assert a.do(lambda: a.raft.deny(absent)).messages["b"] == [GroupUnknown(77, 1)]
    output = cluster["b"].do(lambda: cluster["b"].raft.receive("a", [GroupUnknown(77, 1)]))
    assert output.unknown == [("a", 77)]


def test_messages_for_another_incarnation_are_not_heard() -> None:
    cluster = Cluster()
    a = cluster["a"]
    a.do(lambda: a.raft.create(GROUP, 3, Configuration()))
    later, former = PreVoteRequest(GROUP, 1, 1, 4, 0, 0), PreVoteRequest(GROUP, 1, 1, 2, 0, 0)
    (absent,) = a.do(lambda: a.raft.receive("b", [later])).absent
    assert absent == AbsentMember("b", GROUP, 4)
    output = a.do(lambda: a.raft.receive("b", [former]))
    assert ("b" in output.messages, output.absent) == (False, [])


def test_a_member_that_is_there_meanwhile_is_not_denied() -> None:
    cluster = Cluster()
    a = cluster["a"]
    absent = AbsentMember("b", GROUP, 3)
    a.do(lambda: a.raft.create(GROUP, 3, Configuration()))
    assert "b" not in a.do(lambda: a.raft.deny(absent)).messages
    absent = AbsentMember("b", GROUP, 4)
    assert a.do(lambda: a.raft.deny(absent)).messages["b"] == [GroupUnknown(GROUP, 4)]


def test_what_is_deleted_is_gone_and_says_so() -> None:
    cluster = Cluster()
    cluster.create()
    leader = cluster.elect("a")
    leader.do(lambda: leader.raft.delete(GROUP))
    leader.sync()
    assert GROUP not in leader.raft
    assert leader.disk.groups == {}
    cluster.advance(2_000)
    assert cluster.led().name in "bc"


def test_a_former_member_is_dropped_in_front_of_the_new_one() -> None:
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")

    def come_again() -> None:
        a.raft.delete(GROUP)
        a.raft.create(GROUP, 9, Configuration())

    output = a.do(come_again)
    assert output.persist is not None
    assert [(w.is_drop, w.created_as) for w in output.persist.writes] == [(True, None), (False, 9)]
    a.sync()
    assert a.disk.groups[GROUP].incarnation == 9


def test_entries_of_a_former_member_are_not_for_the_image_of_the_new_one() -> None:
    """Such entries were read in the turn in which the group was deleted and created again,
    empty."""
    cluster = Cluster()
    cluster.create()
    a, b = cluster.elect("a"), cluster["b"]
    cluster.propose("one", "two")
    cluster.advance(50)
    last, term, founder = a.status().last, a.status().term, 1
    b.crash()
    b.start()
    commit = AppendRequest(GROUP, term, founder, founder, last, term, last, 1, [])
    b.raft.receive("a", [commit])
    (read,) = b.raft.output().reads
    assert isinstance(read, ReadEntries)
    found = b.disk.read(GROUP, read.first, read.stop, read.bytes_max)
    b.group().entries_read(read.number, found)
    b.raft.delete(GROUP)
    b.raft.create(GROUP, 2, Configuration())
    output = b.raft.output()
    assert [restore.snapshot.index for restore in output.restores] == [0]
    assert not output.applies


def test_what_was_never_written_needs_no_drop() -> None:
    cluster = Cluster()
    a = cluster["a"]

    def come_and_go() -> None:
        a.raft.create(5, 1, Configuration())
        a.raft.delete(5)

    assert a.do(come_and_go).persist is None


def test_a_group_that_is_lost_on_disk_can_be_dropped() -> None:
    cluster = Cluster()
    output = cluster["a"].do(lambda: cluster["a"].raft.delete(123))
    assert output.persist is not None
    assert [(write.group, write.is_drop) for write in output.persist.writes] == [(123, True)]


def test_damage_found_at_the_start_is_written_down_at_once() -> None:
    """Entries sent again replace those behind the damage: a crash in between must not look like
    health."""
    cluster = Cluster()
    cluster.create()
    cluster.elect("a")
    cluster.propose("one", "two", "three")
    cluster.advance(500)
    b = cluster["b"]
    b.crash()
    b.disk.groups[GROUP].damaged.add(2)
    b.start()
    output = b.do()
    assert output.persist is not None
    quarantine = output.persist.writes[0].quarantine
    assert quarantine is not None
    assert (quarantine.first, quarantine.last) == (2, 4)


def test_without_room_only_proposals_are_refused() -> None:
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    a.raft.has_room = False
    assert not a.raft.has_room
    with pytest.raises(ProposalRefused, match="the disk is nearly full"):
        cluster.propose("x")
    a.do(lambda: a.group().transfer("b"))
    cluster.advance(500)
    assert cluster["b"].status().role is Role.LEADER


def sync_all(host: Host) -> None:
    """Make durable what was submitted, and what follows from it."""
    while host.sync():
        continue


def test_votes_that_are_there_count_however_late_the_turn_is() -> None:
    """After a long turn many groups would else stand again, and their next turn be as long."""
    cluster = Cluster()
    cluster.create()
    cluster.settle()
    cluster.create(group=77)
    cluster.network.clear()
    a = cluster["a"]

    def answers() -> list[tuple[str, list[Message]]]:
        """Answers of all nodes asked."""
        asked, cluster.network = cluster.network, []
        for host in (cluster["b"], cluster["c"]):
            requests = [message for _, to, message in asked if to == host.name]
            host.do(partial(host.raft.receive, "a", requests))
            sync_all(host)
        answered, cluster.network = cluster.network, []
        return [(sender, [message]) for sender, to, message in answered if to == "a"]

    def hear(messages: list[tuple[str, list[Message]]]) -> None:
        for sender, sent in messages:
            a.raft.receive(sender, sent)

    a.do(lambda: a.group(77).campaign())
    a.do(partial(hear, answers()))
    assert a.status(77).role is Role.CANDIDATE
    sync_all(a)
    votes = answers()
    cluster.now_ms += 2 * cluster.tuning.election_timeout_ms
    a.do(partial(hear, votes))
    assert a.status(77).role is Role.LEADER


def test_each_group_is_given_all_news_once_and_in_order() -> None:
    pending: PendingNews[str, int] = PendingNews()
    pending.add("abc", 1)
    pending.add("bd", 2)
    assert len(pending.first(9)) == 4
    assert pending.first(2) == ["a", "b"]
    assert pending.take("b") == (1, 2)
    assert pending.take("b") == ()
    pending.add("b", 3)
    assert pending.first(9) == ["a", "c", "d", "b"]
    assert [pending.take(each) for each in "acdb"] == [(1,), (1,), (2,), (3,)]
    assert not pending
