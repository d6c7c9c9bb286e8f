"""Facts that end in groups: the same as if each stood there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.durability.definitions.change_codec import decode_proposals, encode_proposals
from fluffle.broker.metadata.change import Change, Fact, FactGroup, RemovedFacts, in_groups
from fluffle.broker.metadata.facts import Key, Kind
from fluffle.broker.metadata.metadata import LocalMetadata
from fluffle.broker.metadata.state import Proposal
from tests.broker.metadata.sample_facts import binding, exchange, queue
from tests.support.fact_recorder import FactRecorder

KEYS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=4)


def key_of(vhost: str, key: Any) -> Key:
    """That of a binding whose value is its routing key."""
    return vhost, "x", "queue", "q", key, b""


def never_named(vhost: str, key: Any) -> Key:
    raise AssertionError((vhost, key))


def group(*keys: str, outlives: bool = True) -> FactGroup:
    return FactGroup(Kind.BINDING, "v", keys, key_of, outlives)


def named(*keys: str, outlives: bool = True) -> tuple[Fact, ...]:
    return tuple(Fact(Kind.BINDING, key_of("v", key), key, outlives) for key in keys)


@given(KEYS, st.booleans(), KEYS, st.sampled_from([(), (exchange(),), (exchange(), queue())]))
def test_groups_are_the_facts_that_they_name(
    some: list[str],
    outlives: bool,
    more: list[str],
    others: tuple[Fact, ...],
) -> None:
    grouped = RemovedFacts((group(*some), group(*more, outlives=outlives)), others)
    facts = (*named(*some), *named(*more, outlives=outlives), *others)
    assert tuple(grouped) == facts
    assert len(grouped) == len(facts)
    assert bool(grouped) == bool(facts)
    assert tuple(grouped.outliving) == tuple(fact for fact in facts if fact.outlives)
    assert all(fact in grouped for fact in facts)
    assert binding(key="none") not in grouped
    assert Change(grouped).changes_nothing == (not facts)
    decoded = [decode_proposals(encode_proposals([proposal(each)])) for each in (grouped, facts)]
    assert decoded[0] == decoded[1]


def proposal(removes: RemovedFacts | tuple[Fact, ...]) -> Proposal:
    return Proposal("a", 1, 1, 1, Change(removes), ())


@pytest.mark.parametrize("is_grouped", [(True, False), (False, True), (True, True), (False, False)])
def test_joined_changes_remove_what_both_do(is_grouped: tuple[bool, bool]) -> None:
    changes = [
        Change(RemovedFacts((group(*keys),), (other,)) if grouped else (*named(*keys), other))
        for keys, other, grouped in zip(
            ("ab", "cd"), (exchange(), queue()), is_grouped, strict=True
        )
    ]
    removes = changes[0].joined(changes[1]).removes
    assert sorted(removes, key=str) == sorted((*named(*"abcd"), exchange(), queue()), key=str)
    assert sorted(in_groups(removes), key=str) == sorted(removes, key=str)


def test_what_is_not_recorded_is_not_named() -> None:
    applied: list[Change] = []

    def apply(change: Change) -> tuple[()]:
        applied.append(change)
        return ()

    facts = FactRecorder()
    metadata = LocalMetadata(apply, facts)
    metadata.settle(lambda: Change(puts=(*named(*"ab"), exchange(), queue())))
    unnamed = FactGroup(Kind.BINDING, "v", "cd", never_named, outlives=False)
    change = Change(RemovedFacts((group("a"), unnamed, group("b")), (exchange(),)))
    metadata.settle(lambda: change)
    assert set(facts.known) == {queue().name}
    assert applied[-1] is change
