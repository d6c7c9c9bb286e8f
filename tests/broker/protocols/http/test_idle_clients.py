"""Clients that do nothing: who sends no head, who does not read, and who are too many."""

import asyncio
from collections.abc import Callable

from fluffle.broker.protocols.http.server import (
    ClientLimits,
    ConnectionGuard,
    GuardedConnection,
)

Act = Callable[[], None]


class Timer:
    def __init__(self, timers: list["Timer"], act: Act) -> None:
        self.act = act
        self._timers = timers
        timers.append(self)

    def cancel(self) -> None:
        self._timers.remove(self)


class Pipe(asyncio.Transport):
    """A socket as far as it is asked for anything here."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True
        self.waiting_bytes = 0

    def abort(self) -> None:
        self.is_open = False

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes


class Answering(asyncio.Protocol):
    """Protocol that is watched."""

    def __init__(self) -> None:
        self.reported: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.reported.append("made")

    def data_received(self, data: bytes) -> None:
        self.reported.append(data.decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.reported.append("lost")

    def pause_writing(self) -> None:
        self.reported.append("pause")

    def resume_writing(self) -> None:
        self.reported.append("resume")


class Scene:
    """Connections whose time passes on request."""

    def __init__(self, connections_max: int = 2) -> None:
        self.timers: list[Timer] = []
        patience = ClientLimits(connections_max=connections_max)
        self._watch = ConnectionGuard(lambda _seconds, act: Timer(self.timers, act), patience)

    def connect(self) -> tuple[GuardedConnection, Pipe, Answering]:
        answering, pipe = Answering(), Pipe()
        watched = self._watch.over(answering)
        watched.connection_made(pipe)
        return watched, pipe, answering

    def log_in(self, pipe: Pipe) -> None:
        self._watch.logged_in(pipe)

    def pass_time(self) -> None:
        """All that has been waiting is too late by now."""
        for timer in tuple(self.timers):
            self.timers.remove(timer)
            timer.act()


def test_who_sends_half_a_head_is_hung_up_on() -> None:
    scene = Scene()
    watched, pipe, _ = scene.connect()
    watched.data_received(b"GET / HTTP/1.1\r\n")
    scene.pass_time()
    assert not pipe.is_open


def test_a_head_may_come_in_pieces() -> None:
    scene = Scene()
    watched, pipe, answering = scene.connect()
    head = "GET / HTTP/1.1\r\n\r\n"
    for letter in head:
        watched.data_received(letter.encode())
    assert scene.timers == []
    scene.pass_time()
    assert pipe.is_open
    assert "".join(answering.reported) == f"made{head}"


def test_who_does_not_read_is_hung_up_on() -> None:
    scene = Scene()
    watched, pipe, _ = scene.connect()
    watched.data_received(b"\r\n\r\n")
    pipe.waiting_bytes = 100
    watched.pause_writing()
    pipe.waiting_bytes = 99  # slow, but not standing still
    scene.pass_time()
    assert pipe.is_open
    scene.pass_time()
    assert not pipe.is_open


def test_who_has_read_may_go_on() -> None:
    scene = Scene()
    watched, pipe, answering = scene.connect()
    watched.data_received(b"\r\n\r\n")
    watched.pause_writing()
    watched.resume_writing()
    scene.pass_time()
    assert pipe.is_open
    assert answering.reported[-2:] == ["pause", "resume"]


def test_the_oldest_without_a_login_makes_room() -> None:
    scene = Scene()
    (idle, idle_pipe, _), (_, newer, _) = scene.connect(), scene.connect()
    _, taken, _ = scene.connect()
    assert (idle_pipe.is_open, newer.is_open, taken.is_open) == (False, True, True)
    idle.connection_lost(None)  # which its socket says a turn later
    scene.log_in(newer)
    _, another, _ = scene.connect()
    assert (newer.is_open, taken.is_open, another.is_open) == (True, False, True)


def test_who_has_logged_in_is_not_driven_out() -> None:
    scene = Scene()
    first, pipe, _ = scene.connect()
    _, second, _ = scene.connect()
    for each in (pipe, second):
        scene.log_in(each)
    _, refused, _ = scene.connect()
    assert (pipe.is_open, second.is_open, refused.is_open) == (True, True, False)
    first.connection_lost(None)
    assert len(scene.timers) == 1
    _, taken, _ = scene.connect()
    assert taken.is_open
