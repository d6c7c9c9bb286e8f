"""Changes of definitions as bytes, for the log that the nodes of a cluster share; and all of them.

    entry      shape:1  msgpack: [proposal, ...]
    proposal   [node, boot, number, known_below, removes, puts, rests_on, room]
    removes    [kind, key, ...]      what ended had which value, all know
    puts       [kind, key, value, ...]
    rests_on   [kind, key, revision, ...]
    room       [kind, vhost, limit, ...]

    state      shape:1  msgpack: [last_revision, [kind, key, value, revision, ...], outcomes]
    outcomes   [node, boot, known_below, [number, has_held, ...], ...]

Values are those of `fact_codec`.  A state is the same bytes on all nodes that have applied the same
log: names are in the order in which they came.
Whatever is not exactly this raises `InvalidEncoding`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgpack

from fluffle.broker.durability.fact_codec import TEXT_ERRORS, decode_value, encode
from fluffle.broker.metadata.change import Change, CountLimit, Fact, Key, Kind, Name
from fluffle.broker.metadata.state import (
    MetadataState,
    Proposal,
    ProposalOutcomes,
    VersionedValue,
)
from fluffle.storage.errors import StorageError

SHAPE = b"\x01"
"""Version: raised when the above changes; the old one is still read."""

PIECE_FACTS = 256
PIECE_BYTES = 1 << 18
"""A piece of a state ends when it has so much, which takes a few milliseconds to encode."""

UNREADABLE = (ValueError, TypeError, LookupError, RecursionError, StorageError)


class InvalidEncoding(ValueError):
    """These are no changes, or no state; says why."""


def encode_proposals(proposals: Iterable[Proposal]) -> bytes:
    """Encode the payload of one entry."""
    return SHAPE + _packed([_row_of(proposal) for proposal in proposals])


def decode_proposals(payload: bytes) -> list[Proposal]:
    """Decode the proposals of an entry.  Raises `InvalidEncoding`."""
    try:
        return [_proposal_of(row) for row in _unpacked(payload)]
    except UNREADABLE as error:
        raise InvalidEncoding(f"these are no changes: {error!r}") from error


def encode_state(state: MetadataState) -> Iterator[bytes]:
    """Encode the whole state as it is now, in pieces of which each is made when it is asked for:
    changes that come meanwhile are not in them."""
    values = state.values()
    pack = msgpack.Packer(unicode_errors=TEXT_ERRORS, autoreset=False)
    outcomes = _packed(
        _flat(
            (node, of_node.boot, of_node.known_below, _numbers_of(of_node))
            for node, of_node in sorted(state.outcomes.items())
        )
    )
    pack.pack_array_header(3)
    pack.pack(state.last_revision)
    pack.pack_array_header(4 * len(values))
    return chain((SHAPE + pack.bytes(),), _pieces_of(values), (outcomes,))


def _pieces_of(values: Mapping[Name, VersionedValue]) -> Iterator[bytes]:
    pack = msgpack.Packer(unicode_errors=TEXT_ERRORS, autoreset=False)
    count = size_bytes = 0
    for (kind, key), (value, revision) in values.items():
        encoded = encode(kind, value)
        pack.pack(kind)
        pack.pack(key)
        pack.pack(encoded)
        pack.pack(revision)
        count += 1
        size_bytes += len(encoded)
        if count == PIECE_FACTS or size_bytes >= PIECE_BYTES:
            yield pack.bytes()
            pack.reset()
            count = size_bytes = 0
    yield pack.bytes()


def decode_state(content: bytes, before: MetadataState) -> MetadataState:
    """Decode a state; values that `before` has at the same revision are taken from there.

    Raises `InvalidEncoding`.
    """
    state = MetadataState()
    try:
        state.last_revision, facts, outcomes = _unpacked(content)
        _check_counts(state.last_revision)
        for kind, key, value, revision in _rows(facts, 4):
            _check_counts(revision)
            name = Kind(kind), _key_of(key)
            known = before.find(name)
            if known is None or known.revision != revision:
                found = decode_value(*name, value)
            else:
                found = known.value
            state.put(Fact(*name, found), revision)
        for node, boot, known_below, numbers in _rows(outcomes, 4):
            applied = dict(_rows(numbers, 2))
            _check_text(node)
            _check_counts(boot, known_below, *applied)
            state.outcomes[node] = ProposalOutcomes(boot, known_below, applied)
    except UNREADABLE as error:
        raise InvalidEncoding(f"this is no state of definitions: {error!r}") from error
    return state


def _row_of(proposal: Proposal) -> list[object]:
    change = proposal.change
    return [
        proposal.node,
        proposal.boot,
        proposal.number,
        proposal.known_below,
        _flat((fact.kind, fact.key) for fact in change.removes),
        _flat((fact.kind, fact.key, encode(fact.kind, fact.value)) for fact in change.puts),
        _flat(
            (kind, key, revision)
            for (kind, key), revision in zip(change.rests_on, proposal.revisions, strict=True)
        ),
        _flat(change.room),
    ]


def _proposal_of(row: Any) -> Proposal:
    node, boot, number, known_below, removes, puts, rests_on, room = row
    seen = list(_rows(rests_on, 3))
    _check_text(node)
    _check_counts(boot, number, known_below, *(revision for *_, revision in seen))
    change = Change(
        tuple(Fact(Kind(kind), _key_of(key)) for kind, key in _rows(removes, 2)),
        tuple(_fact_of(*each) for each in _rows(puts, 3)),
        tuple((Kind(kind), _key_of(key)) for kind, key, _ in seen),
        tuple(_room_of(*each) for each in _rows(room, 3)),
    )
    return Proposal(node, boot, number, known_below, change, tuple(each[2] for each in seen))


def _numbers_of(outcomes: ProposalOutcomes) -> list[object]:
    return _flat(sorted(outcomes.applied.items()))


def _fact_of(kind: str, key: Any, value: bytes) -> Fact:
    known, name = Kind(kind), _key_of(key)
    return Fact(known, name, decode_value(known, name, value))


def _room_of(kind: str, vhost: Any, limit: Any) -> CountLimit:
    _check_text(vhost)
    _check_counts(limit)
    return CountLimit(Kind(kind), vhost, limit)


def _key_of(parts: Any) -> Key:
    if not isinstance(parts, list) or not all(isinstance(part, str | bytes) for part in parts):
        raise TypeError(f"{parts} is no name")
    return tuple(parts)


def _check_text(value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")


def _check_counts(*values: object) -> None:
    for value in values:
        if type(value) is not int or value < 0:
            raise TypeError(f"{value!r} counts nothing")


def _flat(rows: Iterable[Sequence[object]]) -> list[object]:
    return list(chain.from_iterable(rows))


def _rows(flat: Any, width: int) -> Iterator[Any]:
    if not isinstance(flat, list) or len(flat) % width:
        raise TypeError(f"these are no rows of {width}")
    return zip(*[iter(flat)] * width, strict=True)


def _packed(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors=TEXT_ERRORS)
    return packed


def _unpacked(content: bytes) -> Any:
    if content[:1] != SHAPE:
        raise InvalidEncoding(f"they have shape {content[:1]!r}, which this version does not know")
    return msgpack.unpackb(content[1:], unicode_errors=TEXT_ERRORS)
