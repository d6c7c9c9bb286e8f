"""Lives of nodes: which may follow which."""

import pytest

from fluffle.broker.cluster.links.identity import (
    ADVICE,
    BOOTS_KEPT,
    Boot,
    Boots,
    HelloRefusal,
    LinkRefused,
    PeerBoots,
    are_same_cluster,
    mark_of,
    marked,
)

FIRST, OTHER = b"1" * 16, b"2" * 16


def refusal(boots: PeerBoots, boot: Boot) -> HelloRefusal:
    with pytest.raises(LinkRefused) as caught:
        boots.admit("b", boot)
    return caught.value.reason


def test_the_same_life_may_come_again_and_a_later_one_may_follow() -> None:
    boots = PeerBoots()
    for boot in (Boot(3, FIRST), Boot(3, FIRST), Boot(4, OTHER), Boot(9, FIRST)):
        boots.admit("b", boot)


def test_a_wiped_or_rolled_back_disk_is_refused() -> None:
    boots = PeerBoots({"b": Boot(3, FIRST)})
    assert refusal(boots, Boot(2, OTHER)) is HelloRefusal.OLD_BOOT
    assert refusal(boots, Boot(2, FIRST)) is HelloRefusal.OLD_BOOT


def test_two_processes_with_copies_of_one_disk_are_not_both_let_in() -> None:
    boots = PeerBoots()
    boots.admit("b", Boot(3, FIRST))
    assert refusal(boots, Boot(3, OTHER)) is HelloRefusal.SECOND_PROCESS


def test_who_is_refused_is_not_remembered() -> None:
    boots = PeerBoots({"b": Boot(3, FIRST)})
    refusal(boots, Boot(3, OTHER))
    boots.admit("b", Boot(3, FIRST))


def test_a_node_that_was_removed_begins_anew() -> None:
    boots = PeerBoots({"b": Boot(3, FIRST), "c": Boot(1, FIRST)})
    boots.forget("b")
    boots.admit("b", Boot(1, OTHER))
    assert refusal(boots, Boot(0, OTHER)) is HelloRefusal.OLD_BOOT


def test_a_disk_remembers_the_last_of_its_lives() -> None:
    lives = Boots(0, ())
    for count in range(1, BOOTS_KEPT + 3):
        lives = lives.followed_by(count.to_bytes(16), began=10 * count)
        assert lives.remember(Boot(count, count.to_bytes(16)))
        assert not lives.remember(Boot(count, OTHER))
        assert not lives.remember(Boot(count + 1, OTHER))
    assert lives.count == BOOTS_KEPT + 2
    assert len(lives.nonces) == BOOTS_KEPT
    assert not lives.remember(Boot(3, OTHER))
    assert lives.remember(Boot(2, OTHER))  # too long ago: by its counter alone


def test_there_is_advice_for_each_reason() -> None:
    assert set(ADVICE) == set(HelloRefusal)


def test_a_cluster_is_known_by_its_name_and_by_its_mark_once_it_has_one() -> None:
    one = marked("c", "abc")
    assert mark_of(one) == "abc"
    assert mark_of(marked("c", "")) == ""
    assert are_same_cluster(one, marked("c", "abc"))
    assert are_same_cluster(one, marked("c", ""))
    assert are_same_cluster("c", one)
    for another in (marked("c", "ab"), marked("d", "abc"), "d"):
        assert not are_same_cluster(one, another)
        assert not are_same_cluster(another, one)
