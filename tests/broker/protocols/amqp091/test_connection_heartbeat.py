"""When a heartbeat leaves, and when a silent peer is given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from pamqp import frame, heartbeat

from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.protocols.amqp091.connection import HEARTBEAT_FRAME, HeartbeatTimer

NOTHING, SEND, GIVE_UP = "nothing", "send", "give up"


class Line:
    """A connection of which a test says what was heard and written, with its heartbeats."""

    def __init__(self) -> None:
        self.reads = 0
        self.is_listening = True
        self.written: list[bytes] = []
        self.output = SimpleNamespace(writes=0, written_bytes=0)
        output = cast(OutputBuffer, self.output)
        self.timer = HeartbeatTimer(self, output, lambda: self.reads)

    def is_reading(self) -> bool:
        return self.is_listening

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def beats(self, *heard: bool, listening: bool = True) -> list[str]:
        """Outcomes of half intervals, each with or without input."""
        self.is_listening = listening
        outcomes = []
        for was_heard in heard:
            self.reads += was_heard
            self.written.clear()
            is_alive = self.timer.beat()
            assert self.written in ([], [HEARTBEAT_FRAME])
            outcomes.append(GIVE_UP if not is_alive else SEND if self.written else NOTHING)
        return outcomes


def test_a_heartbeat_leaves_unless_something_else_did() -> None:
    line = Line()
    assert line.beats(True) == [SEND]
    assert (line.output.writes, line.output.written_bytes) == (1, len(HEARTBEAT_FRAME))
    line.output.writes += 1
    assert line.beats(True, True) == [NOTHING, SEND]


def test_two_silent_intervals_are_too_many() -> None:
    assert Line().beats(False, False, False, False) == [SEND, SEND, SEND, GIVE_UP]


def test_one_sign_of_life_an_interval_is_enough() -> None:
    assert GIVE_UP not in Line().beats(*[True, False, False, True] * 10)


def test_an_interval_of_silence_is_forgiven() -> None:
    line = Line()
    assert GIVE_UP not in line.beats(False, False, True, False, False, False)
    assert line.beats(False, False) == [SEND, GIVE_UP]


def test_silence_does_not_count_while_nobody_listens() -> None:
    line = Line()
    assert GIVE_UP not in line.beats(*[False] * 20, listening=False)
    assert line.beats(*[False] * 4) == [SEND, SEND, SEND, GIVE_UP]


def test_the_frame_is_that_of_pamqp() -> None:
    assert frame.marshal(heartbeat.Heartbeat(), 0) == HEARTBEAT_FRAME
