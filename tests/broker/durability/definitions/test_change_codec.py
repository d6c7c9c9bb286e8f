"""Changes and states as bytes, and back; whatever else comes is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.durability.definitions.change_codec import (
    SHAPE,
    InvalidEncoding,
    decode_proposals,
    decode_state,
    encode_proposals,
    encode_state,
)
from fluffle.broker.metadata.change import Change, CountLimit, Fact, Key, Kind
from fluffle.broker.metadata.state import MetadataState, Proposal, ProposalOutcomes
from tests.broker.durability.definitions.test_fact_codec import NAMES, facts
from tests.support.definition_digest import digest_of

COUNTS = st.integers(0, 2**63)


def fact_of(found: tuple[Kind, Key, object]) -> Fact:
    return Fact(*found)


def without_value(found: tuple[Kind, Key, object]) -> Fact:
    kind, key, _ = found
    return Fact(kind, key)


@st.composite
def proposals(draw: st.DrawFn) -> Proposal:
    some = st.lists(facts(), max_size=2)
    seen = draw(some)
    change = Change(
        tuple(map(without_value, draw(some))),
        tuple(map(fact_of, draw(some))),
        tuple((kind, key) for kind, key, _ in seen),
        tuple(
            draw(st.lists(st.builds(CountLimit, st.just(Kind.QUEUE), NAMES, COUNTS), max_size=1))
        ),
    )
    revisions = tuple(draw(COUNTS) for _ in seen)
    return Proposal(draw(NAMES), draw(COUNTS), draw(COUNTS), draw(COUNTS), change, revisions)


@st.composite
def states(draw: st.DrawFn) -> MetadataState:
    state = MetadataState()
    for found in draw(st.lists(facts(), max_size=4)):
        state.last_revision += draw(st.integers(1, 3))
        state.put(fact_of(found), state.last_revision)
    for node in draw(st.lists(NAMES, max_size=2, unique=True)):
        applied = draw(st.dictionaries(COUNTS, st.booleans(), max_size=3))
        state.outcomes[node] = ProposalOutcomes(draw(COUNTS), draw(COUNTS), applied)
    return state


def contents(state: MetadataState) -> object:
    return state.last_revision, {name: state.find(name) for name in state}, state.outcomes


@given(st.lists(proposals(), max_size=3))
def test_proposals_come_back_as_they_were(sent: list[Proposal]) -> None:
    assert decode_proposals(encode_proposals(sent)) == sent


@given(states())
def test_a_state_comes_back_as_it_was_and_counts_as_before(state: MetadataState) -> None:
    again = decode_state(encode_state(state))
    assert contents(again) == contents(state)
    assert again._counts == state._counts
    assert again._standing == state._standing


@given(states(), st.randoms(use_true_random=False))
def test_equal_states_are_the_same_bytes(state: MetadataState, random: st.DrawFn) -> None:
    names = list(state)
    random.shuffle(names)  # type: ignore[attr-defined]
    again = MetadataState()
    again.last_revision = state.last_revision
    for name in names:
        known = state.find(name)
        assert known is not None
        again.put(Fact(*name, known.value), known.revision)
    again.outcomes = dict(reversed(state.outcomes.items()))
    assert encode_state(again) == encode_state(state)
    assert digest_of(again) == digest_of(state)
    again.last_revision += 1
    assert digest_of(again) != digest_of(state)


@given(proposals(), states(), st.integers(0, 200), st.binary(max_size=8))
def test_whatever_the_bytes_they_are_read_or_refused(
    proposal: Proposal, state: MetadataState, keep: int, rest: bytes
) -> None:
    with contextlib.suppress(InvalidEncoding):
        decode_proposals(encode_proposals([proposal])[:keep] + rest)
    with contextlib.suppress(InvalidEncoding):
        decode_state(encode_state(state)[:keep] + rest)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x02\x90",
        SHAPE + b"\xc1",
        SHAPE + b"\x01",
        SHAPE + b"\x91\x90",
        SHAPE + b"\x91\x98\x01\x01\x01\x01\x90\x90\x90\x90",
        SHAPE + b"\x91\x98\xa1a\xff\x01\x01\x90\x90\x90\x90",
        SHAPE + b"\x91\x98\xa1a\x01\x01\x01\x91\xa4user\x90\x90\x90",
        SHAPE + b"\x91\x98\xa1a\x01\x01\x01\x92\xa4user\x91\x05\x90\x90\x90",
        SHAPE + b"\x91\x98\xa1a\x01\x01\x01\x92\xa4what\x91\xa1u\x90\x90\x90",
    ],
)
def test_what_is_no_change_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        decode_proposals(payload)
