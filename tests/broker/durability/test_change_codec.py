"""Changes and states as bytes, and back; whatever else comes is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.message import RetainedMessage
from fluffle.broker.durability.change_codec import (
    PIECE_BYTES,
    PIECE_FACTS,
    SHAPE,
    InvalidEncoding,
    decode_proposals,
    decode_state,
    encode_proposals,
    encode_state,
)
from fluffle.broker.metadata.change import Change, CountLimit, Fact, Key, Kind
from fluffle.broker.metadata.state import MetadataState, Proposal, ProposalOutcomes
from tests.broker.durability.test_fact_codec import NAMES, facts
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


def whole(state: MetadataState) -> bytes:
    return b"".join(encode_state(state))


def contents(state: MetadataState) -> object:
    return state.last_revision, {name: state.find(name) for name in state}, state.outcomes


@given(st.lists(proposals(), max_size=3))
def test_proposals_come_back_as_they_were(sent: list[Proposal]) -> None:
    assert decode_proposals(encode_proposals(sent)) == sent


@given(states())
def test_a_state_comes_back_as_it_was_and_counts_as_before(state: MetadataState) -> None:
    again = decode_state(whole(state), MetadataState())
    assert contents(again) == contents(state)
    assert again._counts == state._counts
    assert again._standing == state._standing


@given(states(), st.randoms(use_true_random=False))
def test_equal_states_have_the_same_digest(state: MetadataState, random: st.DrawFn) -> None:
    names = list(state)
    random.shuffle(names)  # type: ignore[attr-defined]
    again = MetadataState()
    again.last_revision = state.last_revision
    for name in names:
        known = state.find(name)
        assert known is not None
        again.put(Fact(*name, known.value), known.revision)
    again.outcomes = dict(reversed(state.outcomes.items()))
    assert digest_of(again) == digest_of(state)
    assert whole(decode_state(whole(state), again)) == whole(state)
    again.last_revision += 1
    assert digest_of(again) != digest_of(state)


def test_a_state_comes_in_pieces_and_is_that_of_the_call() -> None:
    state = MetadataState()
    for number in range(3_000):
        message = RetainedMessage(b"x" * (number % 7 * 1_000), b"", "guest", 1)
        state.put(Fact(Kind.RETAINED, ("/", f"t/{number}"), message), number)
    expected = whole(state)
    pieces = encode_state(state)
    taken = [next(pieces)]
    state.put(Fact(Kind.RETAINED, ("/", "t/7"), RetainedMessage(b"", b"", "guest", 1)), 4_000)
    state.put(Fact(Kind.RETAINED, ("/", "new"), RetainedMessage(b"", b"", "guest", 1)), 4_001)
    taken += pieces
    assert b"".join(taken) == expected
    assert max(map(len, taken)) < 2 * PIECE_BYTES
    assert len(taken) > 3_000 / PIECE_FACTS


def test_what_is_known_at_the_same_revision_is_not_decoded_again() -> None:
    before, after = MetadataState(), MetadataState()
    for number in range(10):
        message = RetainedMessage(b"x", b"", "guest", number)
        before.put(Fact(Kind.RETAINED, ("/", f"t/{number}"), message), number + 1)
        newer = message._replace(content=b"newer") if number == 3 else message
        after.put(Fact(Kind.RETAINED, ("/", f"t/{number}"), newer), number + 1 + 20 * (number == 3))
    read = decode_state(whole(after), before)
    assert contents(read) == contents(after)
    kept = [name for name in read if read.find(name) == before.find(name)]
    assert len(kept) == 9
    for name in kept:
        was, found = before.find(name), read.find(name)
        assert was is not None
        assert found is not None
        assert found.value is was.value


@given(proposals(), states(), st.integers(0, 200), st.binary(max_size=8))
def test_whatever_the_bytes_they_are_read_or_refused(
    proposal: Proposal, state: MetadataState, keep: int, rest: bytes
) -> None:
    with contextlib.suppress(InvalidEncoding):
        decode_proposals(encode_proposals([proposal])[:keep] + rest)
    with contextlib.suppress(InvalidEncoding):
        decode_state(whole(state)[:keep] + rest, MetadataState())


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
