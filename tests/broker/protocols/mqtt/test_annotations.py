"""Annotations of MQTT's messages, as bytes."""

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.message import KEY_BYTES, with_key
from fluffle.broker.protocols.mqtt.annotations import Annotations, client_mark, pack, unpack

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
FACTS = st.builds(
    Annotations,
    st.integers(0, 2),
    st.booleans(),
    TEXTS.map(client_mark),
    st.none() | TEXTS,
    st.none() | st.binary(max_size=300),
    st.none(),
) | st.builds(
    Annotations, st.integers(0, 2), st.booleans(), TEXTS.map(client_mark), TEXTS, st.none(),
    st.none() | st.integers(0, 1),
)  # fmt: skip


def test_golden_bytes() -> None:
    facts = Annotations(1, True, client_mark("m7"), "a.b", b"\x03\x00\x01t")
    assert pack(facts).hex(" ") == "01 2d 00 03 61 2e 62 02 6d 37 03 00 01 74"
    assert pack(Annotations(0, False, client_mark(""))).hex(" ") == "01 00 00"
    assert pack(Annotations(2, False, client_mark(""), payload_format=1)).hex(" ") == "01 c2 00"


@given(FACTS)
def test_they_come_back(facts: Annotations) -> None:
    assert unpack(pack(facts)) == facts
    assert unpack(with_key(pack(facts), b"k" * KEY_BYTES)) == facts


def test_those_of_a_newer_version_are_passed_over() -> None:
    assert unpack(b"") is None
    assert unpack(b"\x02" + pack(Annotations(0, False, client_mark("x")))[1:]) is None


def test_a_long_client_identifier_takes_little_room() -> None:
    assert len(client_mark("x" * 64)) == 65
    assert len(client_mark("x" * 65)) == 17
    assert client_mark("x" * 65) != client_mark("x" * 66)


def test_no_client_is_called_like_the_digest_of_another() -> None:
    octets = client_mark("x" * 100)[1:]
    assert all(client_mark(octets.decode("latin-1")) != client_mark("x" * 100) for _ in "1")
    facts = Annotations(1, False, client_mark("x" * 100))
    assert unpack(pack(facts)) == facts
