"""However the bytes are cut, the same is heard; what is no frame is said to be none."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.client_reader import ClientReader, InvalidFrames, ReceivedMethod
from fluffle.protocol.methods import Basic, Queue, encode_method, make
from fluffle.protocol.properties import (
    Properties,
    build_content,
    encode_properties,
    split_content,
)

HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"
PROPERTIES = encode_properties(Properties(delivery_mode=2))


def delivery(body: bytes) -> bytes:
    deliver = make(Basic.Deliver, "tag", 7, False, "", "key")
    content = split_content(build_content(PROPERTIES, body), 1, 4096)
    return encode_method(1, deliver) + content


BYTES = (
    encode_method(1, make(Queue.DeclareOk, "q", 1, 2))
    + HEARTBEAT
    + delivery(b"")
    + HEARTBEAT
    + delivery(b"x" * 10_000)
)


@given(st.lists(st.integers(0, len(BYTES)), max_size=6))
def test_it_hears_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    hearing = ClientReader()
    received: list[ReceivedMethod] = []
    places = [0, *sorted(cuts), len(BYTES)]
    for start, stop in pairwise(places):
        received += hearing.feed(BYTES[start:stop])
    assert [each.method.name for each in received] == [
        "Queue.DeclareOk",
        "Basic.Deliver",
        "Basic.Deliver",
    ]
    assert [each.body for each in received] == [b"", b"", b"x" * 10_000]
    assert [each.properties for each in received] == [b"", PROPERTIES, PROPERTIES]


METHOD = encode_method(1, make(Basic.QosOk))


@pytest.mark.parametrize(
    "data",
    [METHOD[:-1] + b"\0", delivery(b"x")[-9:], delivery(b"")[:-30] + METHOD, delivery(b"x") * 2],
    ids=["no end", "a body without a method", "cut short", "none"],
)
def test_nonsense_is_named(data: bytes, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.id == "none":
        assert len([*ClientReader().feed(data)]) == 2
        return
    with pytest.raises(InvalidFrames):
        [*ClientReader().feed(data)]
