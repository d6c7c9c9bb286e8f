"""Lines in and lines out, in whatever pieces they come, and what has an end."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fluffle.broker.admin import connection as module
from fluffle.broker.admin.connection import LINE_BYTES_MAX, UNREAD_WAIT_S_MAX, ControlConnection
from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows
from fluffle.broker.admin.dispatch import PAGE_ROWS, Dispatcher, verbs_of
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import raise_it
from fluffle.storage.disk import Disk, MemoryDisk
from tests.broker.admin.verb_harness import VerbHarness
from tests.storage.support import ManualWriter
from tests.support.fakes import FakeTransport
from tests.support.store import open_store


class Room:
    """Verbs to talk about, and everybody who talks."""

    def __init__(self) -> None:
        self.desk = VerbHarness()
        self.edge = self.desk.edge
        self.waiting: list[Callable[[Row | BrokerError], None]] = []
        self.taken = 0
        self.open: set[ControlConnection] = set()
        reads: Mapping[str, Callable[..., Any]] = {
            "echo": echo,
            "many": self.many,
            "asking": self.asking,
            "later": self.later,
            "fails": fails,
        }
        changes: Mapping[str, Callable[..., Any]] = {"change": echo, "long": self.later}
        self.dispatcher = Dispatcher(self.desk.context, verbs_of(reads, changes), raise_it)

    def many(self, context: NodeContext, *, count: int) -> Rows:
        """Rows that are counted when they are taken."""
        for number in range(count):
            self.taken += 1
            yield {"n": number}

    def asking(self, context: NodeContext) -> Rows:
        """A row, and another when the test wants it."""
        self.is_given_up = False
        yield {"n": 1}
        self.asked: Deferred[None] = Deferred()
        try:
            yield self.asked
        except GeneratorExit:
            self.is_given_up = True
            raise
        yield {"n": 2}

    def later(self, context: NodeContext) -> DeferredRow:
        """Answers when the test wants it."""
        return DeferredRow(self.waiting.append)

    def talk(self) -> "Talker":
        return Talker(self)


def echo(context: NodeContext, *, text: str = "") -> Row:
    """Says it again."""
    return {"text": text}


def fails(context: NodeContext) -> Rows:
    """Goes wrong on the way."""
    yield {}
    raise ValueError("a bug")


class Talker:
    """Client at the other end of the socket."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.transport = FakeTransport(room.edge.scheduler, {})
        self.conversation = ControlConnection(room.dispatcher, room.edge.services, room.open)
        self.transport.connect(self.conversation)
        self._read = 0

    def send(self, data: bytes) -> None:
        self.transport.receive(data)
        self.room.edge.run()

    def ask(self, verb: str, request_id: int = 1, **arguments: Any) -> None:
        self.send(line(verb, request_id, **arguments))

    def heard(self) -> list[dict[str, Any]]:
        """Answers since the last call."""
        new = b"".join(self.transport.writes[self._read :])
        self._read = len(self.transport.writes)
        assert new.endswith(b"\n") or not new
        return [json.loads(each) for each in new.splitlines()]


def line(verb: str, request_id: int = 1, **arguments: Any) -> bytes:
    request = {"id": request_id, "verb": verb, "arguments": arguments}
    return json.dumps(request).encode() + b"\n"


def answer(text: str, request_id: int = 1) -> dict[str, Any]:
    return {"id": request_id, "result": {"text": text}}


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_come_in_any_pieces(size: int) -> None:
    talker = Room().talk()
    data = line("echo", 1, text="a") + b"\n\n" + line("echo", 2, text="b")
    for start in range(0, len(data), size):
        talker.send(data[start : start + size])
    assert talker.heard() == [answer("a"), answer("b", 2)]


def test_requests_are_answered_in_order_a_list_in_the_middle() -> None:
    room = Room()
    talker = room.talk()
    talker.send(line("echo") + line("many", 2, count=PAGE_ROWS + 1) + line("echo", 3))
    first, page, rest, last = talker.heard()
    assert (first["id"], last["id"]) == (1, 3)
    assert (page["id"], len(page["rows"]), page["more"]) == (2, PAGE_ROWS, True)
    assert rest == {"id": 2, "rows": [{"n": PAGE_ROWS}], "more": False}


def test_a_list_of_just_one_page_ends_with_an_empty_one() -> None:
    talker = Room().talk()
    talker.ask("many", count=PAGE_ROWS)
    assert [(len(each["rows"]), each["more"]) for each in talker.heard()] == [
        (PAGE_ROWS, True),
        (0, False),
    ]
    talker.ask("many", count=0)
    assert talker.heard() == [{"id": 1, "rows": [], "more": False}]


def test_a_list_waits_for_what_it_has_asked() -> None:
    room = Room()
    talker = room.talk()
    talker.send(line("asking") + line("echo", 2))
    assert talker.heard() == [{"id": 1, "rows": [{"n": 1}], "more": True}]
    room.asked.answer(None)
    room.edge.run()
    rest, behind = talker.heard()
    assert rest == {"id": 1, "rows": [{"n": 2}], "more": False}
    assert behind["id"] == 2


def test_what_a_list_has_asked_for_whoever_is_gone_is_let_go() -> None:
    room = Room()
    talker = room.talk()
    talker.send(line("asking"))
    talker.transport.lose()
    room.asked.answer(None)
    room.edge.run()
    assert not room.open


def test_a_turn_sees_one_page() -> None:
    room = Room()
    talker = room.talk()
    talker.transport.receive(line("many", count=5 * PAGE_ROWS))
    room.edge.scheduler.turn()
    before = room.taken
    for _ in range(3):
        room.edge.scheduler.turn()
        assert room.taken - before <= PAGE_ROWS
        before = room.taken
    room.edge.run()
    assert room.taken == 5 * PAGE_ROWS


def test_nothing_is_made_for_who_does_not_read() -> None:
    room = Room()
    talker = room.talk()
    talker.transport.is_stuck = True
    talker.transport.receive(line("many", count=100_000) + line("echo", 2))
    room.edge.run()
    taken = room.taken
    assert taken < 100_000
    assert not talker.transport.is_reading()
    room.edge.advance(UNREAD_WAIT_S_MAX - 1)
    assert room.taken == taken
    talker.transport.drain()
    room.edge.run()
    assert room.taken == 100_000
    assert talker.heard()[-1]["id"] == 2
    assert talker.transport.is_reading()
    assert room.edge.scheduler.timer_count == 0


def test_who_reads_nothing_for_long_is_hung_up_on() -> None:
    room = Room()
    talker = room.talk()
    talker.transport.is_stuck = True
    talker.ask("many", count=100_000)
    room.edge.advance(UNREAD_WAIT_S_MAX)
    assert talker.transport.was_aborted
    assert room.open == set()


def test_a_line_without_an_end_is_refused() -> None:
    room = Room()
    talker = room.talk()
    talker.send(b" " * LINE_BYTES_MAX)
    assert talker.heard() == []
    talker.send(b" ")
    (refusal,) = talker.heard()
    assert refusal["error"]["text"] == f"a request is longer than {LINE_BYTES_MAX} bytes"
    assert talker.transport.is_lost
    assert room.open == set()


def test_there_is_an_end_to_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 2)
    room = Room()
    first, second, third = (room.talk() for _ in range(3))
    room.edge.run()
    (refusal,) = third.heard()
    assert refusal["error"]["text"] == "there are 2 connections already"
    assert third.transport.is_lost
    first.ask("echo", text="a")
    second.ask("echo", text="b")
    assert (first.heard(), second.heard()) == ([answer("a")], [answer("b")])


def test_answers_that_come_later() -> None:
    room = Room()
    talker = room.talk()
    talker.send(line("later", 1) + line("echo", 2))
    assert talker.heard() == [answer("", 2)]
    talker.conversation.eof_received()
    room.edge.run()
    assert not talker.transport.is_closing()
    room.waiting.pop()({"done": True})
    room.edge.run()
    assert talker.heard() == [{"id": 1, "result": {"done": True}}]
    assert talker.transport.is_lost


def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    room = Room()
    talker = room.talk()
    talker.ask("later")
    talker.transport.lose()
    room.waiting.pop()({})
    room.edge.run()
    assert talker.heard() == []


def test_nothing_is_begun_before_a_change_that_takes_long_is_done() -> None:
    """Later requests may depend on the change: a virtual host is deleted, and made again."""
    room = Room()
    talker, other = room.talk(), room.talk()
    talker.send(line("later", 1) + line("long", 2) + line("long", 3) + line("echo", 4))
    other.ask("echo", 5)
    assert len(room.waiting) == 2
    assert [each["id"] for each in other.heard()] == [5]
    for expected in ([2], [3, 4], [1]):
        room.waiting.pop()({})
        room.edge.run()
        assert [each["id"] for each in talker.heard()] == expected


def test_so_many_may_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNANSWERED_MAX", 2)
    room = Room()
    talker = room.talk()
    talker.send(b"".join(line("later", number) for number in range(5)))
    assert len(room.waiting) == 2
    while room.waiting:
        room.waiting.pop(0)({})
        room.edge.run()
    assert [each["id"] for each in talker.heard()] == [0, 1, 2, 3, 4]


def test_the_end_of_input_ends_it_once_all_is_answered() -> None:
    talker = Room().talk()
    talker.transport.receive(line("many", count=3 * PAGE_ROWS) + line("echo", 2) + b"half a li")
    talker.conversation.eof_received()
    talker.room.edge.run()
    assert [each["id"] for each in talker.heard()] == [1, 1, 1, 1, 2]
    assert talker.transport.is_lost


def test_a_list_that_fails_ends_with_an_error() -> None:
    talker = Room().talk()
    talker.send(line("fails") + line("echo", 2))
    error, after = talker.heard()
    assert error["error"]["name"] == "INTERNAL_ERROR"
    assert after == answer("", 2)


@pytest.fixture
def held() -> tuple[Room, ManualWriter]:
    """A room in which commits are done by hand."""
    room = Room()
    writers: list[ManualWriter] = []

    def make_writer(disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        writers.append(ManualWriter(disk, wake))
        return writers[0]

    services = room.edge.services
    commits = Commits(open_store(MemoryDisk(), make_writer), room.edge.turn)
    object.__setattr__(services.runtime, "commits", commits)
    return room, writers[0]


def test_a_change_is_answered_once_it_is_on_disk(held: tuple[Room, ManualWriter]) -> None:
    room, writer = held
    room.edge.services.runtime.commits.put("kind", b"name", b"value")
    talker, other = room.talk(), room.talk()
    talker.ask("change", text="a")
    other.ask("echo", text="b")  # it may speak of what was declared
    assert (talker.heard(), other.heard()) == ([], [])
    writer.step()
    room.edge.run()
    assert (talker.heard(), other.heard()) == ([answer("a")], [answer("b")])
    other.ask("echo", text="c")
    assert other.heard() == [answer("c")]


def test_so_many_answers_may_wait_for_the_disk(
    held: tuple[Room, ManualWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNANSWERED_MAX", 3)
    room, writer = held
    room.edge.services.runtime.commits.put("kind", b"name", b"value")
    talker = room.talk()
    talker.send(b"".join(line("echo", number) for number in range(7)))
    talker.conversation.eof_received()
    room.edge.run()
    assert not talker.transport.is_reading()
    writer.step()
    room.edge.run()
    assert [each["id"] for each in talker.heard()] == list(range(7))
    assert talker.transport.is_lost


def test_what_is_done_for_who_hangs_up_ends_at_once() -> None:
    room = Room()
    talker = room.talk()
    talker.ask("asking")
    assert not room.is_given_up
    talker.transport.abort()
    room.edge.run()
    assert room.is_given_up
