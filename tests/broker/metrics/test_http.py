"""The web server: whole requests, pieces of them, too many at once, and what is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.metrics.http import (
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    IDLE_S_MAX,
    HttpConnection,
    MetricsPage,
)
from fluffle.broker.runtime.background import BackgroundTasks
from fluffle.broker.runtime.turn import Turn, raise_it
from tests.support.fakes import FakeTransport, Scheduler
from tests.support.store import commits_in_memory


def broken() -> Iterator[bytes]:
    yield b"so far"
    raise RuntimeError("a bug")


class Visit:
    """A connection to a server with one page, which shows the Accept header in three pieces."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        turn = Turn(self.scheduler.call_soon)
        self.background_tasks = BackgroundTasks(turn, commits_in_memory(turn), raise_it)
        self.made = 0
        """Pieces."""
        self.open: dict[HttpConnection, None] = {}
        self.transport = self.connect()

    def connect(self) -> FakeTransport:
        transport = FakeTransport(self.scheduler, {"peername": ("127.0.0.1", 40_000)})
        pages = {
            "/here": lambda request: MetricsPage("text/x", self.pieces(request.accept)),
            "/broken": lambda _request: MetricsPage("text/x", broken()),
        }
        transport.connect(
            HttpConnection(pages, self.open, self.scheduler.call_later, self.background_tasks)
        )
        return transport

    def pieces(self, accept: str) -> Iterator[bytes]:
        for piece in ("<", accept, ">"):
            self.made += 1
            yield piece.encode()

    def send(self, data: bytes) -> bytes:
        """Answer to the bytes."""
        before = len(self.transport.writes)
        self.transport.receive(data)
        self.scheduler.run()
        return b"".join(self.transport.writes[before:])


def request(line: str, *headers: str) -> bytes:
    return "".join(f"{text}\r\n" for text in (line, *headers, "")).encode()


GET = request("GET /here HTTP/1.1", "Host: x", "ACCEPT:  text/x ")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 8\r\n\r\n<text/x>"


def test_a_page_is_answered_and_the_connection_kept() -> None:
    visit = Visit()
    assert visit.send(GET) == ANSWER
    assert visit.send(GET) == ANSWER
    assert not visit.transport.is_closing()


@given(st.lists(st.integers(0, len(GET))))
def test_it_does_not_matter_how_requests_are_cut(cuts: list[int]) -> None:
    visit = Visit()
    ends = [*sorted(cuts), len(GET)]
    starts = [0, *ends]
    for _ in range(3):
        pieces = [GET[a:b] for a, b in zip(starts, ends, strict=False)]
        assert b"".join(map(visit.send, pieces)) == ANSWER


def test_a_turn_sees_one_piece_however_many_ask() -> None:
    visit = Visit()
    transports = [visit.transport, visit.connect()]
    for transport in transports:
        transport.receive(GET)
    for made in range(1, 7):
        visit.scheduler.turn()
        assert visit.made == made
    visit.scheduler.run()
    assert [b"".join(transport.writes) for transport in transports] == [ANSWER] * 2


def test_who_has_gone_keeps_nobody_busy() -> None:
    visit = Visit()
    visit.transport.receive(GET)
    visit.scheduler.turn()
    visit.transport.lose()
    visit.scheduler.run()
    assert visit.made == 1
    assert visit.transport.writes == []


def test_the_next_request_waits_until_the_page_is_made() -> None:
    visit = Visit()
    visit.transport.receive(GET)
    visit.transport.receive(GET)
    assert not visit.transport.is_reading()
    visit.scheduler.run()
    assert b"".join(visit.transport.writes) == ANSWER * 2


def test_a_page_that_cannot_be_made_is_the_end_of_its_connection() -> None:
    visit = Visit()
    assert visit.send(request("GET /broken HTTP/1.1")) == b""
    assert visit.transport.was_aborted


def test_who_does_not_wait_for_the_answer_gets_one_and_is_hung_up_on() -> None:
    visit = Visit()
    assert visit.send(GET * 10_000) == ANSWER
    assert visit.transport.is_closing()
    assert visit.send(GET) == b""


def test_who_does_not_read_is_not_read() -> None:
    visit = Visit()
    visit.transport.set_write_buffer_limits(high=2 * len(ANSWER))
    visit.transport.is_stuck = True
    assert [visit.send(GET) for _ in range(5)] == [ANSWER] * 3 + [b""] * 2
    visit.transport.drain()
    visit.scheduler.run()
    assert len(visit.transport.writes) == 5


def test_beyond_the_most_whoever_asked_for_nothing_for_longest_makes_room() -> None:
    visit = Visit()
    others = [visit.connect() for _ in range(CONNECTIONS_MAX - 1)]
    assert visit.send(GET) == ANSWER
    newcomers = [visit.connect(), visit.connect()]
    visit.scheduler.run()
    assert [each.was_aborted for each in others] == [True] * 2 + [False] * (len(others) - 2)
    assert not visit.transport.was_aborted, "it has asked since"
    assert not any(each.was_aborted for each in newcomers)
    assert len(visit.open) == visit.scheduler.timer_count == CONNECTIONS_MAX
    others[2].lose()
    assert len(visit.open) == CONNECTIONS_MAX - 1


def test_a_head_has_no_body() -> None:
    answer = Visit().send(request("HEAD /here?query HTTP/1.1"))
    assert answer.endswith(b"Content-Length: 2\r\n\r\n")


@pytest.mark.parametrize(
    ("line", "headers", "stays"),
    [
        ("GET /here HTTP/1.1", [], True),
        ("GET /here HTTP/1.1", ["Connection: Close"], False),
        ("GET /here HTTP/1.0", [], False),
        ("GET /here HTTP/1.0", ["Connection: keep-alive"], True),
    ],
)
def test_who_wants_to_be_hung_up_on_is(line: str, headers: list[str], stays: bool) -> None:
    visit = Visit()
    assert visit.send(request(line, *headers)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert visit.transport.is_closing() is not stays


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("GET / HTTP/1.1"), "404 Not Found"),
        (request("POST /here HTTP/1.1"), "405 Method Not Allowed"),
        (request("GET /here HTTP/2.0"), "400 Bad Request"),
        (request("GET /here HTTP/1.1", "Content-Length: 5"), "400 Bad Request"),
        (request("GET /here HTTP/1.1", "Transfer-Encoding: chunked"), "400 Bad Request"),
        (request("nonsense"), "400 Bad Request"),
        (b"\r\n\r\n", "400 Bad Request"),
        (b"AMQP\x00\x00\x09\x01\xff\r\n\r\n", "400 Bad Request"),
        (b"x" * (HEAD_BYTES_MAX + 1), "431 Request Header Fields Too Large"),
    ],
)
def test_anything_else_is_refused_and_hung_up_on(data: bytes, status: str) -> None:
    visit = Visit()
    answer = visit.send(data + GET if data.endswith(b"\r\n\r\n") else data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert b"\r\nConnection: close" in head
    assert (b"\r\nAllow: GET, HEAD\r\n" in head) is status.startswith("405")
    assert body == f"{status[4:]}\n".encode()
    visit.scheduler.run()
    assert visit.transport.is_lost


def test_who_says_nothing_for_long_is_hung_up_on() -> None:
    visit = Visit()
    for _ in range(3):
        visit.scheduler.advance(IDLE_S_MAX - 1)
        assert visit.send(GET) == ANSWER
    assert len(visit.open) == 1
    visit.send(b"GET /here")  # a request that never ends does not count
    visit.scheduler.advance(IDLE_S_MAX)
    assert visit.transport.was_aborted
    assert visit.open == {}
    assert visit.scheduler.timer_count == 0
