"""Elections: what runs of the simulator and readers found."""

from functools import partial

from fluffle.raft.config import Config
from fluffle.raft.messages import PreVoteRequest, TimeoutNow, VoteRequest, VoteResponse
from fluffle.raft.output import Role
from tests.raft.cluster import GROUP, Cluster
from tests.raft.single import Single


def test_whoever_stands_has_forgotten_the_vote_it_was_about_to_send() -> None:
    """Its own vote becomes durable, and would be taken for the one that was waited for."""
    cluster = Cluster()
    cluster.create()
    b = cluster["b"]
    while b.sync():
        pass
    b.do(lambda: b.raft.receive("a", [VoteRequest(GROUP, 5, 1, 1, 0, 0, False)]))
    b.do(lambda: b.raft.receive("c", [TimeoutNow(GROUP, 5, 1, 1)]))
    assert b.status().role is Role.CANDIDATE
    while b.sync():
        pass
    assert [sent for sent in cluster.network if sent[0] == sent[1]] == []


def test_whoever_lost_often_stands_soon_when_it_has_what_another_candidate_lacks() -> None:
    """Its own next try may be two seconds away, and nobody else can win meanwhile."""
    cluster = Cluster()
    cluster.create()
    cluster.elect("a")
    cluster.propose("one")
    cluster.advance(500)
    c, now_ms = cluster["c"], cluster.now_ms
    state = c.raft._groups[GROUP]
    state.tries = 8
    c.do(lambda: c.raft.link_down("a"))
    soon_ms = now_ms + cluster.tuning.rank_delay_ms
    state.set_deadline(now_ms + cluster.tuning.retry_ms_max)
    same_log = PreVoteRequest(GROUP, state.term + 1, 1, 1, state.log.last_index, state.term)
    c.do(lambda: c.raft.receive("b", [same_log]))
    assert state.deadline_ms is not None
    assert state.deadline_ms > soon_ms
    shorter = PreVoteRequest(GROUP, state.term + 1, 1, 1, state.log.last_index - 1, state.term)
    c.do(lambda: c.raft.receive("b", [shorter]))
    assert state.deadline_ms == soon_ms


def test_whoever_wins_when_its_majority_is_lost_already_steps_down() -> None:
    """No verdict follows that would make it look."""
    node = Single()
    node.stand()
    node.raft.link_down("b")
    node.raft.link_down("c")
    node.receive("b", VoteResponse(GROUP, node.status.term, 1, 1, True))
    roles = [node.status.role]
    node.advance(node.state.node.tuning.election_timeout_ms)
    roles.append(node.status.role)
    assert roles == [Role.LEADER, Role.FOLLOWER]


def test_the_first_leader_of_a_group_is_elected_without_a_question_before() -> None:
    """Nobody could cling to another; and who has not heard of the group yet is asked again."""
    cluster = Cluster()
    config = Config.initial("abc")
    cluster["a"].do(partial(cluster["a"].raft.create, GROUP, 1, config))
    a = cluster["a"]
    a.do(lambda: a.group().campaign(is_first=True))
    cluster.advance(5)
    assert a.group().status.role is Role.CANDIDATE
    cluster["b"].do(partial(cluster["b"].raft.create, GROUP, 1, config))
    cluster.advance(5)
    assert a.group().status.role is Role.CANDIDATE
    a.do(lambda: a.group().campaign(is_first=True))
    cluster.advance(5)
    assert (a.group().status.role, a.group().status.term) == (Role.LEADER, 1)
    a.do(lambda: a.group().campaign(is_first=True))
    cluster.advance(5)
    assert (a.group().status.role, a.group().status.term) == (Role.LEADER, 1)


def test_whoever_would_be_the_first_leader_too_late_asks_before_it_stands() -> None:
    cluster = Cluster()
    cluster.create()
    cluster.elect("b")
    a = cluster["a"]
    cluster.advance(50)
    term = a.group().status.term
    a.do(lambda: a.group().campaign(is_first=True))
    cluster.advance(50)
    assert a.group().status.term == term
    assert cluster.led(GROUP).name == "b"
