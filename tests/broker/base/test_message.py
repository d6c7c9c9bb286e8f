"""Origins are one object each, as far as the table goes."""

from fluffle.broker.base.message import (
    ORIGINS_MAX,
    REMEMBERED_BYTES_MAX,
    MessageAnnotations,
    Origins,
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


def test_origins_are_bounded() -> None:
    origins = Origins()
    first = origins.of("x", "0")
    for number in range(1, ORIGINS_MAX + 1):
        origins.of("x", str(number))
    assert origins.of("x", "0") is not first
    assert len(origins._origins) == 2
