"""Properties of every placement."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.queues.placement import (
    LeaderLocator,
    balance,
    choose_added,
    choose_grown,
    choose_leader,
    choose_members,
    draw_id,
    draw_leader,
)
from fluffle.raft.election import campaign_rank

NODES = st.sets(st.sampled_from("abcdefg"), min_size=1)
LOADS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 9))


@given(NODES, st.sampled_from("abcdefg"), st.integers(1, 9), LOADS)
def test_members_are_as_many_as_there_can_be_and_have_least_to_do(
    nodes: set[str], own: str, size: int, loads: dict[str, int]
) -> None:
    members = choose_members(sorted(nodes), own, size, loads)
    assert len(members) == min(size, len(nodes))
    assert list(members) == sorted(set(members))
    assert own in members or own not in nodes
    others = nodes - set(members)
    busiest = max((loads.get(node, 0) for node in members if node != own), default=0)
    assert all(loads.get(node, 0) >= busiest for node in others)


@given(NODES, st.sampled_from("abcdefg"), st.sampled_from(LeaderLocator), LOADS)
def test_a_leader_is_here_or_has_least_to_lead(
    nodes: set[str], own: str, locator: LeaderLocator, leads: dict[str, int]
) -> None:
    leader = choose_leader(sorted(nodes), own, locator, leads)
    assert leader in nodes
    if locator is LeaderLocator.CLIENT_LOCAL and own in nodes:
        assert leader == own
    else:
        assert leads.get(leader, 0) == min(leads.get(node, 0) for node in nodes)


@given(NODES, st.integers())
def test_any_of_them_leads_by_chance(nodes: set[str], seed: int) -> None:
    draw_bits = Random(seed).getrandbits
    drawn = {draw_leader(draw_bits, sorted(nodes)) for _ in range(200)}
    assert drawn == nodes, "200 draws of at most seven"


def test_what_locators_were_called_earlier_is_balanced() -> None:
    assert LeaderLocator.of("client-local") is LeaderLocator.CLIENT_LOCAL
    for name in ("balanced", "random", "least-leaders", "min-masters"):
        assert LeaderLocator.of(name) is LeaderLocator.BALANCED


@given(NODES, NODES, st.integers(0, 9), LOADS)
def test_a_queue_grows_to_its_target_but_not_from_odd_to_even_for_lack_of_nodes(
    members: set[str], nodes: set[str], size: int, loads: dict[str, int]
) -> None:
    grown = choose_grown(sorted(members), sorted(nodes), size, loads)
    others = nodes - members
    room = max(0, min(size - len(members), len(others)))
    is_short_of_nodes = len(members) + len(others) <= size
    if room and is_short_of_nodes and not (len(members) + room) % 2:
        room -= 1
    assert set(members) <= set(grown) <= members | nodes
    assert list(grown) == sorted(set(grown))
    assert len(grown) == len(members) + room
    left = others - set(grown)
    assert all(
        loads.get(new, 0) <= loads.get(node, 0) for new in set(grown) - members for node in left
    )


@given(NODES, st.integers())
def test_an_id_has_its_leader_stand_first(nodes: set[str], seed: int) -> None:
    for leader in nodes:
        drawn = draw_id(Random(seed).getrandbits, leader, sorted(nodes))
        assert drawn > 1
        assert campaign_rank(leader, drawn, sorted(nodes)) == 0


@given(NODES, NODES, LOADS)
def test_a_queue_grows_onto_whom_it_is_not_on(
    members: set[str], nodes: set[str], loads: dict[str, int]
) -> None:
    added = choose_added(sorted(members), sorted(nodes), loads)
    if nodes <= members:
        assert added is None
    else:
        assert added in nodes - members


QUEUES = st.dictionaries(
    st.integers(2, 40), st.sets(st.sampled_from("abcd"), min_size=1).map(sorted), max_size=12
)


@given(QUEUES, st.randoms())
def test_balance_leaves_no_move_that_would_help(
    members: dict[int, list[str]], chance: Random
) -> None:
    """A queue that could move to a node with two fewer than its own would have."""
    leaders = {queue: chance.choice(nodes) for queue, nodes in members.items()}
    moves = balance(leaders, members)
    after = leaders | moves
    assert all(after[queue] in members[queue] for queue in members)
    assert all(leaders[queue] != node for queue, node in moves.items())
    leads = Counter(after.values())
    for queue, nodes in members.items():
        assert all(leads[after[queue]] - leads[node] < 2 for node in nodes)
