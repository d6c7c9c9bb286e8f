"""Origins as bytes."""

from struct import error as StructError  # noqa: N812  it is an exception

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.message import (
    ANNOTATIONS_BYTES_MAX,
    MessageAnnotations,
    Origin,
    pack_origins,
    unpack_origins,
)

NAMES = st.binary(max_size=255).map(lambda name: name.decode(errors="surrogateescape"))
BLIND = st.lists(NAMES, max_size=3).map(tuple)
ANNOTATIONS = st.one_of(
    st.just(b""),
    st.binary(max_size=600),
    st.integers(0, ANNOTATIONS_BYTES_MAX).map(lambda size: (bytes(range(256)) * 256)[:size]),
)
ORIGINS = st.lists(
    st.builds(Origin, NAMES, NAMES, st.sampled_from(MessageAnnotations), BLIND, ANNOTATIONS),
    max_size=4,
)


Plain = tuple[str, str, MessageAnnotations, tuple[str, ...], bytes]


def plain(origins: list[Origin]) -> list[Plain]:
    return [
        (each.exchange, each.routing_key, each.past, each.blind_keys, each.annotations)
        for each in origins
    ]


@given(ORIGINS, st.data())
def test_what_is_packed_is_unpacked(kinds: list[Origin], data: st.DataObject) -> None:
    origins = data.draw(st.lists(st.sampled_from(kinds), max_size=10)) if kinds else []
    runs = pack_origins(origins)
    packed = b"".join(runs)
    unpacked, end = unpack_origins(b"?" + packed, 1, len(runs), len(origins))
    assert plain(unpacked) == plain(origins)
    assert end == 1 + len(packed)


def test_who_does_not_know_of_blind_keys_passes_over_them() -> None:
    """A run of no messages gives nobody an origin, and is no end."""
    runs = pack_origins([Origin("x", "k", MessageAnnotations.NONE, ("b", "c"))])
    assert [int.from_bytes(run[:4]) for run in runs] == [0, 0, 1]


def test_who_does_not_know_of_annotations_passes_over_them() -> None:
    """Each chunk is a run of no messages that has no key."""
    runs = pack_origins([Origin("x", "k", annotations=bytes(ANNOTATIONS_BYTES_MAX))])
    assert {run[:4] + run[5:6] for run in runs[:-1]} == {bytes(5)}
    assert runs[-1] == b"\0\0\0\1\1\1xk"
    assert sum(run[4] for run in runs[:-1]) == ANNOTATIONS_BYTES_MAX


def test_without_anything_besides_an_origin_is_as_it_always_was() -> None:
    origins = [Origin("x", "k")] * 2 + [Origin("", "q", MessageAnnotations.DIED)]
    assert b"".join(pack_origins(origins)) == b"\0\0\0\2\1\1xk\x40\0\0\1\0\1q"


def test_the_origin_behind_an_annotated_one_has_no_annotations() -> None:
    origins = [Origin("x", "k", annotations=octets) for octets in (b"a", b"", b"b")]
    runs = pack_origins(origins)
    unpacked, _end = unpack_origins(b"".join(runs), 0, len(runs), 3)
    assert [each.annotations for each in unpacked] == [b"a", b"", b"b"]


@pytest.mark.parametrize("head", [b"\xc0\0\0\1\0\0", b"\0\0\0\2\0\0", b"\0\0\0\0\0\0", b"\0\0"])
def test_what_was_never_packed(head: bytes) -> None:
    """A past that is none, another number of messages, and an end too soon."""
    with pytest.raises((ValueError, StructError)):
        unpack_origins(head, 0, 1, 1)
