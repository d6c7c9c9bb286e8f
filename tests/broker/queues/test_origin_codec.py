"""Origins as bytes."""

from struct import error as StructError  # noqa: N812  it is an exception

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.queues.origin_codec import pack_origins, unpack_origins

NAMES = st.binary(max_size=255).map(lambda name: name.decode(errors="surrogateescape"))
BLIND = st.lists(NAMES, max_size=3).map(tuple)
ORIGINS = st.lists(
    st.builds(Origin, NAMES, NAMES, st.sampled_from(MessageAnnotations), BLIND), max_size=4
)


Plain = tuple[str, str, MessageAnnotations, tuple[str, ...]]


def plain(origins: list[Origin]) -> list[Plain]:
    return [(each.exchange, each.routing_key, each.past, each.blind_keys) for each in origins]


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


@pytest.mark.parametrize("head", [b"\xc0\0\0\1\0\0", b"\0\0\0\2\0\0", b"\0\0\0\0\0\0", b"\0\0"])
def test_what_was_never_packed(head: bytes) -> None:
    """A past that is none, another number of messages, and an end too soon."""
    with pytest.raises((ValueError, StructError)):
        unpack_origins(head, 0, 1, 1)
