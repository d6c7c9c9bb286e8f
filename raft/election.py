"""Elections: when to campaign, how to vote, and what follows from the answers.

    leader lost --rank--> PRE_CANDIDATE --majority--> CANDIDATE --majority--> LEADER
                              |   ^                       |
                              +---+--- later, again ------+

No timer runs while the leader's node is alive: see "Elections without timers" in docs/raft.md.

`become_single_member` is for an operator who gives up all other members, most of which are lost for
good.  No majority agrees to this, so the others may be alive, and lead.  What keeps them from
counting: the member is another from now on, of a greater incarnation, and what they say is for the
one that it was.  What keeps them from being believed by members that compare terms: its own is far
greater.
"""

from __future__ import annotations

from zlib import crc32

from fluffle.raft import leader
from fluffle.raft.config import Configuration, Member, NodeId, is_majority
from fluffle.raft.log import CONFIG, Entry, GroupId, Log
from fluffle.raft.messages import (
    LeaderQuery,
    NotLeading,
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from fluffle.raft.output import Role
from fluffle.raft.state import Campaign, GroupState

TERM_STEP = 1 << 20
"""The others hold far fewer elections until they hear of it."""

# When to stand


def campaign_rank(node: NodeId, group: GroupId, nodes: list[NodeId]) -> int:
    """Return the place of a node in the order of candidates for this group: 0 first.  A node that
    is not in `nodes` comes last.

    Each group puts the nodes into an order of its own, and a missing one changes nothing in it.
    """
    mine = campaign_weight(node, group)
    return sum(campaign_weight(other, group) > mine or node not in nodes for other in nodes)


def campaign_weight(node: NodeId, group: GroupId) -> int:
    """Return a pseudo-random number that is the same on all nodes: the mixing of splitmix64."""
    mixed = (crc32(node.encode()) ^ group * 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFF_FFFF_FFFF_FFFF
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFF_FFFF_FFFF_FFFF
    return mixed ^ mixed >> 31


def may_campaign(state: GroupState) -> bool:
    """True if this is a voter in good order, with a majority to win, that sees no leader."""
    return not sees_leader(state) and is_electable(state) and has_live_quorum(state)


def is_electable(state: GroupState) -> bool:
    """True if a member may stand: no learner; one that is being removed may, as long as that is not
    committed: it may be the only one that has the entry (thesis §4.2.2)."""
    if state.quarantine is not None:
        return False
    # mutant: M21b
    return any(config.is_voter(state.me) for config in state.configs.in_use(state.log.commit))


def sees_leader(state: GroupState) -> bool:
    """True if the known leader, maybe this member, is alive.  Leader stickiness, thesis
    §4.2.3."""
    return state.leader is not None and state.leader in state.node.alive


def has_live_quorum(state: GroupState) -> bool:
    return state.node.has_quorum(state.voters)


def update_deadline(state: GroupState) -> None:
    """Set a deadline while a follower sees no leader and might become one; else clear it."""
    if state.role is Role.FOLLOWER:
        if not may_campaign(state):
            state.set_deadline(None)
        elif state.deadline_ms is None:
            schedule(state)


def schedule(state: GroupState) -> None:
    """Schedule a campaign for this member's rank, if no other has won by then."""
    node, tuning = state.node, state.node.tuning
    if state.tries == 0:
        alive = [voter.node for voter in state.voters if voter.node in node.alive]
        delay_ms = (tuning.rank_delay_ms + node.backlog_ms) * campaign_rank(
            node.name, state.group, alive
        )
    else:
        # A loser goes on trying, ever more rarely, and not in step with the others.
        longest_ms = min(tuning.rank_delay_ms << min(state.tries, 8), tuning.retry_ms_max)
        delay_ms = tuning.rank_delay_ms + node.backlog_ms + node.chance.randrange(longest_ms)
    state.set_deadline(node.now_ms + delay_ms)


def on_deadline(state: GroupState) -> None:
    """Campaign, or begin anew when the election has failed."""
    if state.role is Role.CANDIDATE:
        # Before asking for another term, ask whether any member would vote.
        state.become_follower(state.term, None)
        schedule(state)
    elif may_campaign(state):
        start_pre_vote(state)
    elif state.role is Role.PRE_CANDIDATE:
        state.become_follower(state.term, None)


def start_pre_vote(state: GroupState) -> None:
    """Ask for pre-votes.  Changes neither term nor vote.  Thesis §9.6."""
    state.tries += 1
    state.role = Role.PRE_CANDIDATE
    state.leader = None
    state.campaign = Campaign(is_transfer=False)
    state.campaign.granted.add(state.me)
    state.touch()
    if is_majority(state.campaign.granted, state.voters):
        start_election(state, is_transfer=False)
        return
    log, me = state.log, state.me
    for voter in state.voters:
        if voter != me and voter.node in state.node.alive:
            request = PreVoteRequest(
                state.group, state.term + 1, me.incarnation, voter.incarnation,
                log.last_index, log.last_term,
            )  # fmt: skip
            state.node.send(voter.node, request)
    schedule(state)


def start_first_term(state: GroupState, first: NodeId) -> None:
    """Vote in the first term of a new group, whose founders have agreed on its leader.

    So each has voted for it in that term, as it knows: that node leads once its own vote is on
    disk, and the others follow it without a word.  In a later life it does not lead that term any
    more, for then its vote is found, and it has to be elected.
    """
    assert not state.term, "a group is founded once"
    if first == state.me.node:
        start_election(state, is_transfer=False)
        assert state.campaign is not None
        state.campaign.granted.update(state.voters)
        state.campaign.is_first_term = True
        state.set_deadline(None)
    else:
        state.set_hard_state(1, Member(first, 1))
        state.follow(first)
        state.leader_incarnation = 1


def start_election(state: GroupState, *, is_transfer: bool) -> None:
    """Begin a new term with a vote for ourselves; others are asked once both are on disk."""
    state.follow(None)
    state.role = Role.CANDIDATE
    state.tries = max(1, state.tries)
    state.campaign = Campaign(is_transfer=is_transfer)
    state.grant_due = False  # mutant: M44
    state.set_hard_state(state.term + 1, state.me)
    set_vote_deadline(state)


def set_vote_deadline(state: GroupState) -> None:
    """Set the deadline for votes: long enough to win, and not as long as for all others."""
    node = state.node
    timeout_ms = node.tuning.election_timeout_ms
    delay_ms = timeout_ms + node.backlog_ms + node.chance.randrange(timeout_ms)
    state.set_deadline(node.now_ms + delay_ms)


# Voting


def is_new_enough(log: Log, last_index: int, last_term: int) -> bool:
    """Compare logs: the later term is newer; in the same term, the longer log.  Raft §5.4.1."""
    return (last_term, last_index) >= (log.last_term, log.last_index)  # mutant: M7a M7b


def on_pre_vote_request(state: GroupState, node: NodeId, request: PreVoteRequest) -> None:
    """Answer whether we would vote.  Changes nothing here, whatever the answer."""
    is_granted = (
        request.term > state.term
        and state.quarantine is None
        and is_new_enough(state.log, request.last_index, request.last_term)
        and not keeps_leader(state, node)
    )
    term = request.term if is_granted else state.term  # mutant: M15
    response = PreVoteResponse(
        state.group, term, state.me.incarnation, request.sender, is_granted
    )  # fmt: skip
    state.node.send(node, response)
    if state.leading is not None:
        leader.announce(state, node)
    elif not is_granted:
        send_leader_query(state)
        if not is_new_enough(state.log, request.last_index, request.last_term):
            campaign_soon(state)


def campaign_soon(state: GroupState) -> None:
    """Campaign soon: a candidate cannot win, because we have what its log lacks."""
    soon_ms = state.node.now_ms + state.node.tuning.rank_delay_ms
    is_later = state.deadline_ms is None or state.deadline_ms > soon_ms
    if state.role is not Role.CANDIDATE and may_campaign(state) and is_later:
        state.set_deadline(soon_ms)


def keeps_leader(state: GroupState, candidate: NodeId) -> bool:
    """True if a live leader is kept: always, unless the candidate is that leader itself."""
    # mutant: M16a
    return sees_leader(state) and (state.leader != candidate or state.role is Role.LEADER)


def on_vote_request(state: GroupState, node: NodeId, request: VoteRequest) -> None:
    """Vote or refuse.  Raft §5.2, §5.4.1; the candidate need not be in our configuration (§4.1)."""
    if request.term > state.term:
        if keeps_leader(state, node) and not request.is_transfer:
            send_leader_query(state)
            return
        state.become_follower(request.term, None)
    candidate = Member(node, request.sender)
    if request.term == state.term and may_vote_for(state, candidate, request):
        if state.hard_state.vote is None:
            state.set_hard_state(state.term, candidate)
        state.grant_due = True
        state.touch()
        postpone_campaign(state)
        return
    response = VoteResponse(
        state.group, state.term, state.me.incarnation, request.sender, is_granted=False
    )  # fmt: skip
    state.node.send(node, response)


def may_vote_for(state: GroupState, candidate: Member, request: VoteRequest) -> bool:
    """True if to vote: once a term, for a log that is new enough, by a member in good
    order."""
    return (
        state.role is Role.FOLLOWER
        and state.leader is None
        and state.quarantine is None  # mutant: M31a
        and state.hard_state.vote in (None, candidate)
        and is_new_enough(state.log, request.last_index, request.last_term)
    )


def postpone_campaign(state: GroupState) -> None:
    """Put off our own campaign, so that the candidate we voted for can win."""
    if may_campaign(state):
        set_vote_deadline(state)


def is_vote_durable(state: GroupState) -> bool:
    """True if this term's vote would survive a crash: only then may it be sent."""
    return state.durable.hard_state == state.hard_state


def flush(state: GroupState) -> None:
    """Send votes and requests that waited for a vote to be on disk."""
    if state.grant_due and is_vote_durable(state):  # mutant: M3
        state.grant_due = False
        candidate = state.hard_state.vote
        assert candidate is not None
        response = VoteResponse(
            state.group, state.term, state.me.incarnation, candidate.incarnation, is_granted=True
        )  # fmt: skip
        state.node.send(candidate.node, response)
    if state.role is Role.CANDIDATE and is_vote_durable(state):  # mutant: M4
        send_vote_requests(state)


def send_vote_requests(state: GroupState) -> None:
    """Count our own vote, which is on disk, and ask the others."""
    campaign, log, me = state.campaign, state.log, state.me
    assert campaign is not None
    if campaign.requests_sent:
        return
    campaign.requests_sent = True
    for voter in state.voters:
        if voter not in campaign.granted and voter != me and voter.node in state.node.alive:
            request = VoteRequest(
                state.group, state.term, me.incarnation, voter.incarnation,
                log.last_index, log.last_term, campaign.is_transfer,
            )  # fmt: skip
            state.node.send(voter.node, request)
    count_vote(state, me)


# Counting


def on_pre_vote_response(state: GroupState, node: NodeId, response: PreVoteResponse) -> None:
    """Count a pre-vote; answers to earlier terms do not count, nor do refusals.

    A node that does not know of a loss yet refuses, and grants when it is asked again.  To wait for
    longer then saved one stand in twenty when two nodes that lost the third of 8,000 groups heard
    of it 100 ms apart, and left five groups in eight to the one that heard later.
    """
    campaign = state.campaign
    assert campaign is not None
    if response.is_granted and response.term == state.term + 1:
        campaign.granted.add(Member(node, response.sender))
        if is_majority(campaign.granted, state.voters):
            start_election(state, is_transfer=False)


def on_vote_response(state: GroupState, node: NodeId, response: VoteResponse) -> None:
    if response.is_granted:
        count_vote(state, Member(node, response.sender))


def count_vote(state: GroupState, voter: Member) -> None:
    """Count a vote of a voter of the active configuration; others do not count."""
    campaign = state.campaign
    assert campaign is not None
    campaign.granted.add(voter)  # mutant: M13
    if is_majority(campaign.granted, state.voters):
        leader.begin(state)


def on_timeout_now(state: GroupState, node: NodeId, message: TimeoutNow) -> None:
    """Start an election at once, without pre-vote: the leader hands over.  Thesis §3.10."""
    if is_electable(state) and state.leader in (None, node) and message.term == state.term:
        start_election(state, is_transfer=True)


# Whether the known leader still leads


def send_leader_query(state: GroupState) -> None:
    """Ask the known leader whether it still leads."""
    if state.role is Role.FOLLOWER and state.leader is not None:
        query = LeaderQuery(
            state.group, state.term, state.me.incarnation, state.leader_incarnation
        )  # fmt: skip
        state.node.send(state.leader, query)


def on_leader_query(state: GroupState, node: NodeId, query: LeaderQuery) -> None:
    """Answer by an append if this member leads, else with the term in which it does not."""
    if query.term > state.term:
        state.become_follower(query.term, None)
    if state.leading is not None:
        leader.announce(state, node)
    else:
        answer = NotLeading(state.group, state.term, state.me.incarnation, query.sender)
        state.node.send(node, answer)


def on_not_leading(state: GroupState, node: NodeId, answer: NotLeading) -> None:
    """Drop a leader that does not lead in this term: it will not again."""
    if state.leader == node and answer.term == state.term:
        state.follow(None)


def on_group_unknown(state: GroupState, node: NodeId, incarnation: int) -> None:
    """Drop a leader whose node does not have the group."""
    if state.leader == node and state.leader_incarnation == incarnation:
        state.follow(None)  # mutant: M45


# A single member


def may_become_single_member(state: GroupState) -> bool:
    """True if this member can read its log and knows the members."""
    return state.quarantine is None and state.me in state.configs.active.members


def become_single_member(state: GroupState, incarnation: int) -> None:
    """Commit all that this member has, by its own vote alone."""
    state.become_follower(state.term + TERM_STEP, None)
    state.drop_receiver()
    state.me = Member(state.node.name, incarnation)
    state.pending().new_incarnation = incarnation
    single_member = Configuration((state.me,), (), incarnation)
    state.append([Entry(state.log.last_index + 1, state.term, CONFIG, single_member.encode())])
    start_pre_vote(state)


def was_forced(before: int, since: int) -> bool:
    """True if so much lies between two terms of a group: then entries of the first may be lost, and
    others be in their place."""
    return since - before >= TERM_STEP // 2
