"""Histories written into a file can be read again."""

from random import Random

import pytest

from fluffle.broker.torture.history import (
    KINDS,
    Abandoned,
    Complained,
    Confirmed,
    Event,
    Fault,
    Homed,
    Joined,
    Joining,
    MessageId,
    PutBack,
    Strange,
    TurnedAway,
    from_line,
    to_line,
)
from tests.broker.torture.faulty_broker import FaultyBroker


def test_every_event_comes_back() -> None:
    history: list[Event] = [
        *FaultyBroker(Random(1)).live(2_000),
        Homed("q"),
        Abandoned("a", "q"),
        Complained("a", "541"),
        Fault("kill", is_over=True),
        Strange("„ä“\n"),
        PutBack("a"),
        TurnedAway("a"),
        Joining("d"),
        Joined("d"),
    ]
    assert {type(event).__name__ for event in history} == {*KINDS}
    for at_ns, event in enumerate(history):
        read = from_line(to_line(at_ns, event))
        assert read == (at_ns, event)
        assert type(read[1]) is type(event)


def test_messages_are_messages_again() -> None:
    _at, event = from_line('[1, "Confirmed", ["p", 7]]')
    assert isinstance(event, Confirmed)
    assert isinstance(event.message, MessageId)


@pytest.mark.parametrize("line", ["", "[]", '[1, "Nothing", 2]', '[1, "Published"]', "{}"])
def test_nonsense_is_refused(line: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_line(line)
