"""The Raft paper, one test a sentence: Ongaro and Ousterhout, *In Search of an Understandable
Consensus Algorithm*, extended version.  The thesis has more: `test_thesis.py`.
"""

from random import Random

import pytest

from fluffle.raft.config import Member
from fluffle.raft.log import NOOP, HardState
from fluffle.raft.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
)
from fluffle.raft.output import Role
from tests.raft.cluster import GROUP, Cluster
from tests.raft.single import Single, entry, vote_request

B = Member("b", 1)


# Raft §5.1: terms


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_a_smaller_term_is_updated_to_the_larger(role: Role) -> None:
    """§5.1: "If one server's current term is smaller than the other's, then it updates its current
    term to the larger value."  And: a candidate or leader "immediately reverts to follower"."""
    node = Single()
    if role is not Role.FOLLOWER:
        node.stand()
    if role is Role.LEADER:
        node.lead()
    assert node.status.role is role
    node.receive("b", AppendRequest(GROUP, 9, 1, 1, 0, 0, 0, 1, ()))
    assert (node.status.role, node.status.term, node.status.leader) == (Role.FOLLOWER, 9, "b")


def test_a_request_of_an_old_term_is_rejected() -> None:
    """§5.1: "If a server receives a request with a stale term number, it rejects the request."""
    node = Single(log=(1, 1), hard=HardState(5, None))
    node.receive("b", AppendRequest(GROUP, 4, 1, 1, 2, 1, 2, 1, [entry(3, 4)]))
    assert [answer.term for answer in node.sent(AppendRejected)] == [5]
    assert (node.status.last, node.status.commit, node.status.leader) == (2, 0, None)


def test_a_vote_request_of_an_old_term_is_rejected() -> None:
    node = Single(hard=HardState(5, None))
    node.receive("b", vote_request(4, last=(9, 9)))
    assert [(a.term, a.is_granted) for a in node.sent(VoteResponse)] == [(5, False)]


# Raft §5.2: elections


def test_servers_begin_as_followers() -> None:
    """§5.2: "When servers start up, they begin as followers."""
    assert Single().status.role is Role.FOLLOWER


def test_a_candidate_increments_its_term_and_votes_for_itself() -> None:
    """§5.2."""
    node = Single(log=(1, 2), hard=HardState(2, None))
    node.stand()
    assert (node.status.role, node.status.term) == (Role.CANDIDATE, 3)
    assert node.status.vote == Member("a", 1)
    assert node.sent(VoteRequest) == [VoteRequest(GROUP, 3, 1, 1, 2, 2, False)] * 2


@pytest.mark.parametrize(
    ("nodes", "votes", "wins"),
    [("a", "", True), ("abc", "", False), ("abc", "b", True), ("abcde", "b", False),
     ("abcde", "bb", False), ("abcde", "bc", True)],
)  # fmt: skip
def test_a_majority_of_votes_wins(nodes: str, votes: str, wins: bool) -> None:
    """§5.2: "A candidate wins an election if it receives votes from a majority of the servers in
    the full cluster for the same term."  One that votes twice counts once."""
    node = Single(nodes)
    node.stand()
    for voter in votes:
        node.receive(voter, VoteResponse(GROUP, node.status.term, 1, 1, True))
    assert (node.status.role is Role.LEADER) == wins


def test_votes_of_another_term_do_not_count() -> None:
    node = Single()
    node.stand()
    node.receive("b", VoteResponse(GROUP, node.status.term - 1, 1, 1, True))
    assert node.status.role is Role.CANDIDATE


def test_each_server_votes_for_at_most_one_candidate_in_a_term() -> None:
    """§5.2: "... on a first-come-first-served basis"."""
    node = Single()
    node.receive("b", vote_request(1, last=(0, 0)))
    node.sync()
    assert [answer.is_granted for answer in node.sent(VoteResponse, "b")] == [True]
    node.receive("c", vote_request(1, last=(0, 0)))
    assert [answer.is_granted for answer in node.sent(VoteResponse, "c")] == [False]
    node.receive("b", vote_request(1, last=(0, 0)))
    assert [answer.is_granted for answer in node.sent(VoteResponse, "b")] == [True]


def test_a_vote_is_on_disk_before_anybody_hears_of_it() -> None:
    """Raft figure 2, thesis §3.8: "Updated on stable storage before responding to RPCs"."""
    node = Single()
    node.receive("b", vote_request(1, last=(0, 0)))
    assert node.sent(VoteResponse) == []
    assert node.writes[-1].hard_state == HardState(1, B)
    node.sync()
    assert len(node.sent(VoteResponse)) == 1


def test_a_vote_is_remembered() -> None:
    node = Single(hard=HardState(3, B))
    node.receive("c", vote_request(3, last=(0, 0)))
    assert [answer.is_granted for answer in node.sent(VoteResponse)] == [False]


def test_a_candidate_asks_only_once_its_own_vote_is_on_disk() -> None:
    node = Single()
    node.group.campaign()
    node.turn()
    node.receive("b", PreVoteResponse(GROUP, 1, 1, 1, True))
    assert node.status.role is Role.CANDIDATE
    assert node.sent(VoteRequest) == []
    node.sync()
    assert len(node.sent(VoteRequest)) == 2


def test_a_candidate_recognizes_the_leader_of_its_term() -> None:
    """§5.2: "If the leader's term is at least as large as the candidate's current term, then the
    candidate recognizes the leader as legitimate and returns to follower state."""
    node = Single()
    node.stand()
    node.follow("b", node.status.term)
    assert (node.status.role, node.status.leader) == (Role.FOLLOWER, "b")


def test_candidates_that_fail_do_not_try_again_in_step() -> None:
    """§5.2: "Raft uses randomized election timeouts"."""
    delays = set()
    for seed in range(10):
        node = Single()
        node.raft._node.chance = Random(seed)
        node.stand()
        assert node.state.deadline_ms is not None
        delays.add(node.state.deadline_ms)
    assert len(delays) > 5


# Raft §5.3: replication


def test_a_leader_appends_and_sends_in_parallel() -> None:
    """§5.3; thesis §10.2.1: "The leader may even commit ... before it has been written to the
    leader's own disk", so the entry leaves in the turn in which it is given to the disk."""
    node = Single()
    node.lead()
    node.accept("b", 1)
    node.accept("c", 1)
    node.group.propose(b"x")
    node.turn()
    assert [e.payload for e in node.writes[-1].entries] == [b"x"]
    for peer in "bc":
        assert [[e.payload for e in m.entries] for m in node.sent(AppendRequest, peer)] == [[b"x"]]


def test_an_entry_is_committed_once_a_majority_has_it() -> None:
    """§5.3."""
    node = Single("abcde")
    node.lead()
    node.accept("b", 1)
    assert node.status.commit == 0
    node.accept("c", 1)
    assert node.status.commit == 1


def test_the_leaders_own_disk_is_one_of_the_majority() -> None:
    """Thesis §10.2.1."""
    node = Single()
    node.lead()
    node.accept("b", 1)
    node.group.propose(b"x")
    node.turn()
    assert node.status.durable == 1
    node.accept("b", 2)
    assert node.status.commit == 1, "its own disk does not have it"
    node.accept("c", 2)
    assert node.status.commit == 2, "two others have"
    assert node.status.applied == 1, "what is applied is durable here"
    node.sync()
    assert node.status.applied == 2


def test_the_commit_index_is_reported_with_the_next_append() -> None:
    """§5.3: "it includes that index in future AppendEntries RPCs"."""
    node = Single()
    node.lead()
    node.accept("b", 1)
    node.group.propose(b"x")
    node.turn()
    assert [m.commit for m in node.sent(AppendRequest, "b")] == [1]


def test_entries_behind_a_gap_or_another_term_are_refused() -> None:
    """§5.3: "If the follower does not find an entry in its log with the same index and term, then
    it refuses the new entries."""
    node = Single(log=(1, 1, 2))
    node.follow("b", 3, entry(6, 3), previous=entry(5, 3))
    assert [(m.previous_index, m.hint_index) for m in node.sent(AppendRejected)] == [(5, 3)]
    node.follow("b", 3, entry(4, 3), previous=entry(3, 1))
    assert [(m.previous_index, m.hint_index) for m in node.sent(AppendRejected)] == [(3, 2)]
    assert node.status.last == 3


def test_conflicting_entries_are_replaced_by_the_leaders() -> None:
    """§5.3: "conflicting entries in follower logs will be overwritten with entries from the
    leader's log"."""
    node = Single(log=(1, 2, 2, 2))
    node.follow("b", 3, entry(2, 3), previous=entry(1, 1))
    assert (node.status.last, node.state.log.term_at(2)) == (2, 3)
    assert node.writes[-1].truncate_from == 2
    assert [e.term for e in node.writes[-1].entries] == [3]


def test_entries_that_are_there_already_are_kept() -> None:
    """Raft figure 2: "If an existing entry conflicts with a new one (same index but different
    terms), delete the existing entry and all that follow it" - and otherwise do not."""
    node = Single(log=(1, 1, 1, 1), hard=HardState(1, None))
    node.follow("b", 1, entry(2, 1), previous=entry(1, 1))
    assert node.status.last == 4
    assert node.writes == []


def test_a_leader_never_overwrites_its_own_entries() -> None:
    """§5.3, leader append-only."""
    node = Single(log=(1, 1), hard=HardState(1, None))
    node.lead()
    node.receive("b", AppendRequest(GROUP, 1, 1, 1, 0, 0, 0, 1, [entry(1, 9)]))
    assert [node.state.log.term_at(i) for i in (1, 2, 3)] == [1, 1, 2]


def test_a_leader_goes_back_a_term_at_a_time() -> None:
    """§5.3: "a leader can ... one AppendEntries RPC will be required for each term with
    conflicting entries, rather than one RPC per entry"."""
    cluster = Cluster()
    cluster.create()
    cluster.elect("a")
    cluster.partition("a", "bc")
    cluster.propose(*map(str, range(50)))
    cluster.advance(3_000)
    cluster.elect("b")
    cluster.propose("kept")
    cluster.advance(300)
    rejected = 0
    cluster.heal()
    for _ in range(400):
        rejected += sum(isinstance(message, AppendRejected) for *_, message in cluster.network)
        if cluster.network:
            cluster.deliver()
        elif not any(host.sync() for host in cluster.up):
            cluster.now_ms += 50
            for host in cluster.up:
                host.do()
    assert cluster.data("a") == ["kept"]
    assert rejected < 10


def test_an_acknowledgement_waits_for_the_disk() -> None:
    """Raft figure 2: persistent state includes the log."""
    node = Single()
    node.follow("b", 1, entry(1, 1))
    assert node.sent(AppendAccepted) == []
    node.sync()
    assert [m.durable for m in node.sent(AppendAccepted)] == [1]


# Raft §5.4: safety


@pytest.mark.parametrize(
    ("mine", "theirs", "granted"),
    [((1,), (1, 1), True), ((1, 1), (1, 1), False), ((1, 1), (1, 2), True), ((2,), (1, 5), False),
     ((1, 1, 1), (2, 1), True), ((1, 2), (2, 2), True), ((1, 2, 2), (2, 2), False)],
)  # fmt: skip
def test_a_voter_denies_its_vote_to_an_older_log(
    mine: tuple[int, ...], theirs: tuple[int, int], granted: bool
) -> None:
    """§5.4.1: the later term is more up-to-date; in the same term, the longer log."""
    node = Single(log=mine)
    node.receive("b", vote_request(9, last=theirs))
    node.sync()
    assert [answer.is_granted for answer in node.sent(VoteResponse)] in ([granted], [])
    assert (node.status.vote == B) == granted


def test_entries_of_earlier_terms_are_not_committed_by_counting() -> None:
    """§5.4.2 and figure 8: "only log entries from the leader's current term are committed by
    counting replicas"; with the first of those all before it are."""
    node = Single("abcde", log=(1, 2))
    node.lead()
    for peer in "bcde":
        node.accept(peer, 2)
    assert node.status.commit == 0
    node.accept("b", 3)
    assert node.status.commit == 0
    node.accept("c", 3)
    assert node.status.commit == 3


# Raft §5.5 and §8: crashes and clients


def test_requests_are_repeated_until_the_follower_answers() -> None:
    """§5.5: "Raft handles these failures by retrying indefinitely"."""
    node = Single()
    node.lead()
    node.accept("b", 1)
    asked = 0
    for _ in range(8):
        node.advance(100)
        asked += len(node.sent(AppendRequest, "c"))
    assert asked >= 2


def test_a_leader_begins_with_an_entry_of_its_own() -> None:
    """§8: "each leader commit[s] a blank no-op entry into the log at the start of its term"."""
    node = Single()
    node.lead()
    assert [(e.index, e.kind) for w in node.writes for e in w.entries] == [(1, NOOP)]


def test_a_read_waits_for_the_first_entry_and_for_a_majority() -> None:
    """§8; thesis §6.4: the leader must have "a heartbeat round" after the read was asked for."""
    node = Single()
    node.lead()
    node.group.read_index(7)
    node.turn()
    node.accept("b", 1)
    assert node.output.readable == [], "this answers a round that began before"
    node.accept("b", 1)
    assert [(r.context, r.index) for r in node.output.readable] == [(7, 1)]


def test_a_read_is_lost_with_the_leadership() -> None:
    node = Single()
    node.lead()
    node.group.read_index(7)
    node.turn()
    node.follow("b", 9)
    assert [(r.context, r.index) for r in node.output.readable] == [(7, None)]
