"""Origins are one object each, as far as the table goes."""

from fluffle.broker.base.message import ORIGINS_MAX, MessageAnnotations, Origins


def test_equal_origins_are_one_object() -> None:
    origins = Origins()
    assert origins.of("x", "k") is origins.of("x", "k")
    assert origins.of("x", "k") is not origins.of("x", "l")
    assert origins.of("x", "k") is not Origins().of("x", "k")
    assert origins.of("x", "k") is not origins.of("x", "k", MessageAnnotations.DIED)


def test_origins_are_bounded() -> None:
    origins = Origins()
    first = origins.of("x", "0")
    for number in range(1, ORIGINS_MAX + 1):
        origins.of("x", str(number))
    assert origins.of("x", "0") is not first
    assert len(origins._origins) == 2
