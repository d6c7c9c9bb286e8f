"""Origins are one object each, as far as the table goes."""

from fluffle.broker.base.message import (
    KEY_BYTES,
    ORIGINS_MAX,
    REMEMBERED_BYTES_MAX,
    MessageAnnotations,
    Origins,
    key_in,
    with_key,
    without_key,
)


def test_equal_origins_are_one_object() -> None:
    origins = Origins()
    assert origins.of("x", "k") is origins.of("x", "k")
    assert origins.of("x", "k") is not origins.of("x", "l")
    assert origins.of("x", "k") is not Origins().of("x", "k")
    assert origins.of("x", "k") is not origins.of("x", "k", MessageAnnotations.DIED)


def test_origins_with_equal_short_annotations_are_one_object() -> None:
    origins = Origins()
    short, long = bytes(REMEMBERED_BYTES_MAX), bytes(REMEMBERED_BYTES_MAX + 1)
    assert origins.of("x", "k", annotations=short) is origins.of("x", "k", annotations=short)
    assert origins.of("x", "k", annotations=short) is not origins.of("x", "k")
    assert origins.of("x", "k").annotations == b""
    assert origins.of("x", "k", annotations=long) is not origins.of("x", "k", annotations=long)
    assert len(origins._origins) == 2
    for annotations in (short, long):
        assert origins.of("x", "k", annotations=annotations).annotations == annotations


def test_a_key_goes_with_annotations_and_is_in_no_table() -> None:
    key, annotations = b"k" * KEY_BYTES, b"\x01abc"
    keyed = with_key(annotations, key)
    assert (key_in(keyed), without_key(keyed)) == (key, annotations)
    assert (key_in(annotations), without_key(annotations), key_in(b"")) == (b"", annotations, b"")
    origins = Origins()
    assert origins.of("x", "k", annotations=keyed).key == key
    assert origins.of("x", "k", annotations=keyed) is not origins.of("x", "k", annotations=keyed)
    assert origins.of("x", "k", annotations=keyed).may_be_long
    assert not origins.of("x", "k", annotations=annotations).may_be_long


def test_origins_are_bounded() -> None:
    origins = Origins()
    first = origins.of("x", "0")
    for number in range(1, ORIGINS_MAX + 1):
        origins.of("x", str(number))
    assert origins.of("x", "0") is not first
    assert len(origins._origins) == 2
