"""Configurations, the steps between them, and their majorities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.raft.config import (
    AddLearner,
    Change,
    ConfigHistory,
    Configuration,
    InvalidChange,
    Member,
    Promote,
    Remove,
    is_majority,
    with_change,
)

THREE = Configuration.initial(["c", "a", "b"])


def test_a_new_group_is_the_same_on_all_its_nodes() -> None:
    assert Configuration((Member("a", 1), Member("b", 1), Member("c", 1)), (), 1) == THREE
    assert Configuration.initial(["b", "c", "a"]) == THREE


def test_a_node_joins_as_learner_and_is_promoted() -> None:
    joined = with_change(THREE, AddLearner("d"))
    assert joined.learners == (Member("d", 2),)
    assert joined.voters == THREE.voters
    promoted = with_change(joined, Promote("d"))
    assert promoted.voters == (*THREE.voters, Member("d", 2))
    assert promoted.learners == ()


def test_who_comes_back_is_another_member() -> None:
    without = with_change(THREE, Remove("c"))
    again = with_change(without, AddLearner("c"))
    assert again.member_on("c") == Member("c", 2)
    assert not again.is_voter(Member("c", 1))


def test_an_incarnation_is_never_used_again() -> None:
    config = THREE
    for _ in range(3):
        config = with_change(with_change(config, AddLearner("d")), Remove("d"))
    assert with_change(config, AddLearner("d")).member_on("d") == Member("d", 5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (AddLearner("a"), "a is a member already"),
        (Promote("a"), "a is a voter already"),
        (Promote("d"), "d is not a member"),
        (Remove("d"), "d is not a member"),
    ],
)
def test_senseless_changes_are_refused(change: Change, why: str) -> None:
    with pytest.raises(InvalidChange, match=why):
        with_change(THREE, change)


def test_the_last_voter_stays() -> None:
    with pytest.raises(InvalidChange, match="a is the last voter"):
        with_change(with_change(Configuration.initial(["a"]), AddLearner("b")), Remove("a"))


def test_a_configuration_survives_encoding() -> None:
    config = with_change(THREE, AddLearner("d"))
    assert Configuration.decode(config.encode()) == config
    assert Configuration.decode(Configuration().encode()) == Configuration()


def test_majorities_of_neighbouring_configurations_meet() -> None:
    """Thesis §4.1: that is what one member at a time is for."""
    config = Configuration.initial(["a"])
    steps: list[Change] = [
        *[change for node in "bcde" for change in (AddLearner(node), Promote(node))],
        *[Remove(node) for node in "abcd"],
    ]
    for change in steps:
        after = with_change(config, change)
        both = set(config.voters) | set(after.voters)
        needed = len(config.voters) // 2 + 1 + len(after.voters) // 2 + 1
        assert needed > len(both)
        config = after


ONE, TWO = Configuration.initial("a"), Configuration.initial("ab")


def history() -> ConfigHistory:
    configs = ConfigHistory(0, ONE)
    configs.append(5, TWO)
    configs.append(9, THREE)
    return configs


def test_the_latest_is_active_whether_committed_or_not() -> None:
    assert history().active == THREE
    assert history().last_index == 9


def test_a_configuration_goes_with_its_entry() -> None:
    configs = history()
    configs.roll_back(9)
    assert configs.active == TWO
    configs.roll_back(3)
    assert configs.active == ONE
    configs.roll_back(0)
    assert configs.active == ONE


def test_each_index_has_its_configuration() -> None:
    assert [history().at(index) for index in (0, 4, 5, 8, 9, 20)] == [
        ONE, ONE, TWO, TWO, THREE, THREE,
    ]  # fmt: skip


def test_what_the_floor_has_passed_is_forgotten() -> None:
    configs = history()
    configs.prune(4)
    assert configs.at(0) == ONE
    configs.prune(6)
    assert configs.at(6) == TWO
    configs.prune(9)
    assert (configs.active, configs.at(9)) == (THREE, THREE)


def test_in_use_are_the_last_committed_one_and_those_behind() -> None:
    assert history().in_use(0) == [ONE, TWO, THREE]
    assert history().in_use(5) == [TWO, THREE]
    assert history().in_use(30) == [THREE]


def test_those_between_two_indexes_are_listed() -> None:
    assert history().between(-1, 30) == [(0, ONE), (5, TWO), (9, THREE)]
    assert history().between(5, 8) == []
    assert history().between(0, 5) == [(5, TWO)]
    assert history().between(9, 30) == []


VOTERS = [Member(node, 1) for node in "abcde"]


@given(st.sets(st.sampled_from(VOTERS)), st.integers(1, 5))
def test_a_majority_is_more_than_half(agreeing: set[Member], count: int) -> None:
    voters = VOTERS[:count]
    assert is_majority(agreeing, voters) == (2 * len(agreeing & set(voters)) > count)


def test_an_earlier_incarnation_is_no_voter() -> None:
    assert not is_majority({Member("a", 1), Member("b", 1)}, [Member("a", 2), Member("b", 2)])


def test_nobody_is_never_a_majority() -> None:
    assert not is_majority(set(), [])
