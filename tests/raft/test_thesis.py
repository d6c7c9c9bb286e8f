"""The thesis, one test a sentence: Ongaro, *Consensus: Bridging Theory and Practice*.

What it repeats from the paper is in `test_paper.py`.
"""

import pytest

from fluffle.raft.config import AddLearner, Configuration, Member, Promote, Remove, with_change
from fluffle.raft.leader import ProposalRefused, RefusalReason
from fluffle.raft.log import CONFIG, Entry
from fluffle.raft.messages import (
    AppendAccepted,
    AppendRequest,
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteResponse,
)
from fluffle.raft.output import Role
from tests.raft.cluster import GROUP
from tests.raft.single import Single, entry, vote_request

# Thesis §3.10: transfer


def test_a_leader_hands_over_to_one_that_has_everything() -> None:
    """§3.10: "The prior leader fully updates the target's log", "stops accepting new client
    requests", and sends TimeoutNow."""
    node = Single()
    node.lead()
    node.group.transfer("b")
    node.turn()
    assert node.sent(TimeoutNow) == []
    with pytest.raises(ProposalRefused) as refused:
        node.group.propose(b"x")
    assert refused.value.reason is RefusalReason.TRANSFERRING
    node.accept("b", 1)
    assert len(node.sent(TimeoutNow, "b")) == 1


def test_a_transfer_that_fails_is_given_up() -> None:
    """§3.10: "If leadership transfer does not complete after about an election timeout, the prior
    leader aborts the transfer and resumes accepting client requests."""
    node = Single()
    node.lead()
    node.group.transfer("b")
    node.turn()
    node.advance(500)
    node.group.propose(b"x")


def test_the_target_stands_at_once_and_is_heard() -> None:
    """§3.10; §4.2.3: "disruptive" servers are not heard, but this one is."""
    node = Single()
    node.follow("b", 1)
    node.sync()
    node.receive("c", vote_request(2, last=(9, 9)))
    assert (node.status.term, node.status.leader) == (1, "b")
    node.receive("c", vote_request(2, last=(9, 9), is_transfer=True))
    assert (node.status.term, node.status.vote) == (2, Member("c", 1))
    target = Single()
    target.follow("b", 1)
    target.receive("b", TimeoutNow(GROUP, 1, 1, 1))
    assert (target.status.role, target.status.term) == (Role.CANDIDATE, 2)


def test_an_old_order_to_stand_is_not_obeyed() -> None:
    node = Single()
    node.follow("b", 5)
    node.receive("b", TimeoutNow(GROUP, 4, 1, 1))
    assert node.status.role is Role.FOLLOWER


# Thesis §4: membership


def test_a_configuration_is_active_as_soon_as_it_is_in_the_log() -> None:
    """§4.1: "as soon as it is added to its log"; and "must be prepared to fall back"."""
    node = Single("abc")
    config = with_change(Configuration.initial("abc"), AddLearner("d"))
    node.follow("b", 1, Entry(1, 1, CONFIG, config.encode()))
    assert node.status.config == config
    node.follow("c", 2, entry(1, 2))
    assert node.status.config == Configuration.initial("abc")


def test_no_change_before_the_one_before_is_committed() -> None:
    """§4.1; and not before an entry of the leader's own term is (Ongaro's correction of 2015)."""
    node = Single("abcd", config=Configuration.initial("abc"))
    node.lead()
    with pytest.raises(ProposalRefused) as refused:
        node.group.change(AddLearner("d"))
    assert refused.value.reason is RefusalReason.NOT_READY
    node.accept("b", 1)
    node.group.change(AddLearner("d"))
    node.turn()
    with pytest.raises(ProposalRefused) as refused:
        node.group.change(Remove("c"))
    assert refused.value.reason is RefusalReason.CHANGE_UNDER_WAY


def test_no_change_that_would_leave_too_few_who_are_alive() -> None:
    """Such a change could not be committed, and no other could be made before: the group would
    stand still."""
    node = Single()
    node.lead()
    node.accept("b", 1)
    node.raft.link_down("c")
    node.turn()
    with pytest.raises(ProposalRefused) as refused:
        node.group.change(Remove("b"))
    assert refused.value.reason is RefusalReason.NO_MAJORITY
    assert node.status.last == 1
    node.group.change(Remove("c"))


def test_no_change_that_rests_on_who_does_not_follow() -> None:
    """A node may be alive that has lost its member, or whose member has not begun."""
    node = Single()
    node.lead()
    node.accept("b", 1)
    with pytest.raises(ProposalRefused) as refused:
        node.group.change(Remove("b"))
    assert refused.value.reason is RefusalReason.NO_MAJORITY
    node.accept("c", 1)
    node.group.change(Remove("b"))


def test_who_has_come_back_is_asked_whether_it_follows_before_a_change_rests_on_it() -> None:
    """Also if nothing else is to be sent to it, and it has everything."""
    node = Single()
    node.lead()
    node.accept("b", 1)
    node.accept("c", 1)
    assert node.state.leading is not None
    node.state.leading.peers["c"].probe(2)
    node.turn()
    assert node.sent(AppendRequest, "c") == []
    with pytest.raises(ProposalRefused) as refused:
        node.group.change(Remove("b"))
    assert refused.value.reason is RefusalReason.NO_MAJORITY
    node.turn()
    assert len(node.sent(AppendRequest, "c")) == 1
    node.accept("c", 1)
    node.group.change(Remove("b"))


def test_a_learner_is_promoted_once_it_has_caught_up() -> None:
    """§4.2.1: "the leader should ... not promote it before it is caught up"."""
    node = Single("abcd", config=with_change(Configuration.initial("abc"), AddLearner("d")))
    node.lead()
    node.accept("b", 1)
    with pytest.raises(ProposalRefused) as refused:
        node.group.change(Promote("d"))
    assert refused.value.reason is RefusalReason.NOT_CAUGHT_UP
    node.receive("d", AppendAccepted(GROUP, node.status.term, 2, 1, 1, 1, 1, 9))
    node.group.change(Promote("d"))


def test_a_learner_that_has_everything_is_asked_for_that_if_its_link_was_lost() -> None:
    """Nothing is sent to it any more, so nothing else would show again that it has caught up."""
    node = Single("abcd", config=with_change(Configuration.initial("abc"), AddLearner("d")))
    node.lead()
    node.accept("b", 1)
    node.receive("d", AppendAccepted(GROUP, node.status.term, 2, 1, 1, 1, 1, 9))
    assert node.state.leading is not None
    node.state.leading.peers["d"].probe(2)
    node.turn()
    with pytest.raises(ProposalRefused) as refused:
        node.group.change(Promote("d"))
    assert refused.value.reason is RefusalReason.NO_MAJORITY
    node.turn()
    assert len(node.sent(AppendRequest, "d")) == 1
    node.receive("d", AppendAccepted(GROUP, node.status.term, 2, 1, 1, 1, 1, 9))
    node.group.change(Promote("d"))


def test_a_learner_that_has_fallen_behind_again_is_not_promoted() -> None:
    node = Single("abcd", config=with_change(Configuration.initial("abc"), AddLearner("d")))
    node.lead()
    node.accept("b", 1)
    node.receive("d", AppendAccepted(GROUP, node.status.term, 2, 1, 1, 1, 1, 9))
    lag = node.raft._node.tuning.promotion_lag_entries
    for _ in range(lag):
        node.group.propose(b"x")
    node.turn()
    node.sync()
    node.accept("b", lag + 1)
    with pytest.raises(ProposalRefused) as refused:
        node.group.change(Promote("d"))
    assert refused.value.reason is RefusalReason.NOT_CAUGHT_UP
    node.receive("d", AppendAccepted(GROUP, node.status.term, 2, 1, 2, 2, 2, 9))
    node.group.change(Promote("d"))


def test_a_learner_is_not_counted() -> None:
    node = Single("abcd", config=with_change(Configuration.initial("abc"), AddLearner("d")))
    node.lead()
    node.receive("d", AppendAccepted(GROUP, node.status.term, 2, 1, 1, 1, 1, 9))
    assert node.status.commit == 0


def test_a_leader_that_leaves_does_not_count_itself() -> None:
    """§4.2.2: "it replicates log entries but does not count itself in majorities"."""
    node = Single()
    node.lead()
    node.accept("b", 1)
    node.accept("c", 1)
    node.group.change(Remove("a"))
    node.turn()
    node.sync()
    node.accept("b", 2)
    assert node.status.commit == 1
    node.accept("c", 2)
    assert node.status.commit == 2


def test_a_vote_is_given_to_a_candidate_that_is_no_member() -> None:
    """§4.1: "servers grant votes to candidates regardless of whether the candidate is part of the
    server's latest configuration"."""
    node = Single("abcd", config=Configuration.initial("abc"))
    node.receive("d", vote_request(2, last=(1, 1)))
    node.sync()
    assert [answer.is_granted for answer in node.sent(VoteResponse)] == [True]


def test_a_live_leader_is_not_disturbed() -> None:
    """§4.2.3: "if a server receives a RequestVote request within the minimum election timeout of
    hearing from a current leader, it does not update its term or grant its vote"."""
    node = Single()
    node.follow("b", 1)
    node.receive("c", vote_request(7, last=(9, 9)))
    assert (node.status.term, node.status.leader) == (1, "b")
    assert node.sent(VoteResponse) == []


# Thesis §6.2 and §9.6: leaders that nobody hears, and elections that nobody would win


def test_a_leader_without_a_majority_steps_down() -> None:
    """§6.2: "A leader in Raft steps down if an election timeout elapses without a successful round
    of heartbeats to a majority of its cluster"."""
    node = Single()
    node.lead()
    for peer in "bc":
        node.raft.link_down(peer)
    node.turn()
    assert node.status.leader == "a"
    node.advance(node.raft._node.tuning.election_timeout_ms)
    assert node.status.role is Role.FOLLOWER


def test_a_leader_of_learners_alone_steps_down() -> None:
    node = Single("abcde", config=with_change(Configuration.initial("abcd"), AddLearner("e")))
    node.lead()
    for peer in "bc":
        node.raft.link_down(peer)
    node.turn()
    node.advance(node.raft._node.tuning.election_timeout_ms)
    assert node.status.role is Role.FOLLOWER, "two of four voters, and a learner"


def test_a_pre_vote_changes_nothing() -> None:
    """§9.6: "a candidate would first ask other servers whether its log was up-to-date enough to
    get their vote"; only then it increments its term."""
    node = Single()
    node.group.campaign()
    node.turn()
    assert (node.status.role, node.status.term) == (Role.PRE_CANDIDATE, 0)
    assert len(node.sent(PreVoteRequest)) == 2
    voter = Single()
    voter.receive("b", PreVoteRequest(GROUP, 5, 1, 1, 0, 0))
    assert [(m.term, m.is_granted) for m in voter.sent(PreVoteResponse)] == [(5, True)]
    assert (voter.status.term, voter.status.vote, voter.writes) == (0, None, [])


def test_a_pre_vote_is_refused_while_there_is_a_leader() -> None:
    """§9.6."""
    node = Single()
    node.follow("b", 1)
    node.receive("c", PreVoteRequest(GROUP, 2, 1, 1, 9, 9))
    assert [m.is_granted for m in node.sent(PreVoteResponse)] == [False]
    node.receive("b", PreVoteRequest(GROUP, 2, 1, 1, 9, 9))
    assert [m.is_granted for m in node.sent(PreVoteResponse)] == [True], "the leader itself asks"


def test_late_pre_votes_do_not_disturb_a_leader() -> None:
    node = Single("abcde")
    node.lead()
    term = node.status.term
    node.receive("d", PreVoteResponse(GROUP, term, 1, 1, True))
    node.receive("e", PreVoteResponse(GROUP, term + 1, 1, 1, True))
    assert (node.status.role, node.status.term) == (Role.LEADER, term)
