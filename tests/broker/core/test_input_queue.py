"""Input of a client is handled in order, a share at a time, whatever its protocol.

The protocol here has lines: a number, a colon and what is asked.  It has nothing of AMQP.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.alarms import Alarms, watermarks_of
from fluffle.broker.base.errors import BrokerError, InternalError, NotFound, QueueDeleted
from fluffle.broker.config.config import Config
from fluffle.broker.core import pending_requests
from fluffle.broker.core.connections import Connections, Deadlines
from fluffle.broker.core.input_queue import (
    EVENT_COST,
    SHORT_READ_BYTES,
    TURN_COST_MAX,
    InputQueue,
    LongEvent,
    ReadControl,
    ReadHolds,
)
from fluffle.broker.core.output_buffer import BURST_BYTES, OutputBuffer
from fluffle.broker.core.pending_requests import (
    WHOLE_CONNECTION,
    ChannelQuery,
    DeferredEvent,
    PendingRequest,
    Waiter,
)
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import Session
from fluffle.broker.metadata.change import NOTHING
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER, ReadBarrier
from fluffle.broker.process.sockets import QUICK_ACK
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.runtime.turn import SHARE_S
from fluffle.protocol.steps import Steps
from tests.support.fakes import FakeTransport, Scheduler
from tests.support.read_barrier import ManualReadBarrier
from tests.support.runtime import fake_runtime

READ_AT_ONCE = 100
STEPS = 3 * EVENT_COST


@dataclass(slots=True)
class Request:
    """Line that asks for something: the one event that the protocol has."""

    number: int
    words: list[str]


class LineReader:
    """Reader of lines, so many at once."""

    def __init__(self) -> None:
        self._rest = b""
        self.is_waiting = False

    @property
    def is_amid(self) -> bool:
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Request]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        now, later = lines[:READ_AT_ONCE], lines[READ_AT_ONCE:]
        self.is_waiting = bool(later)
        self._rest = b"\n".join([*later, self._rest])
        return [self._request(line.decode()) for line in now]

    def go_on(self) -> list[Request]:
        return self.feed(b"")

    def discard(self) -> None:
        self._rest, self.is_waiting = b"", False

    def forget_beyond(self, _count: int) -> None:
        """Forget nothing: it remembers nothing."""

    def _request(self, line: str) -> Request:
        number, _, text = line.rpartition(":")
        return Request(int(number or 0), text.split())


@dataclass(slots=True)
class LineChannel:
    """Channel: requests with its number wait for each other."""

    number: int
    is_open: bool = True


@dataclass(slots=True)
class RecordedSocket:
    """Socket that keeps the options that were set."""

    options: list[tuple[int, int, int]]
    family: int = socket.AF_INET

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append((level, option, value))


class Node:
    """Node whose clients send lines."""

    def __init__(self, read_barrier: ReadBarrier = LOCAL_READ_BARRIER) -> None:
        self.scheduler = Scheduler()
        self.now_s = 0.0
        self.runtime = fake_runtime(self.scheduler, on_fatal=lambda _error: None)
        self.connections = Connections(now_s=lambda: self.now_s)
        self.alarms = Alarms(watermarks_of(Config()))
        self.read_barrier = read_barrier
        self.names: set[str] = set()
        """Names that are defined."""
        self.asked: list[PendingRequest[Request]] = []
        self.questions: list[Deferred[str]] = []
        self.services = cast(
            Services, SimpleNamespace(runtime=self.runtime, connections=self.connections)
        )

    def connect(
        self, *, has_channels: bool = True, sock: RecordedSocket | None = None
    ) -> LineConnection:
        connection = LineConnection(self)
        FakeTransport(self.scheduler, {"socket": sock}).connect(connection)
        connection.log_in(has_channels=has_channels)
        return connection


class LineRules:
    """Rules for requests that wait."""

    def number_of(self, event: Request) -> int | None:
        return None if event.words == ["end"] else event.number

    def size_of(self, event: Request) -> int:
        return sum(map(len, event.words))

    def asks_definitions(self, event: Request) -> bool:
        return event.words[0] == "find"


class LineConnection(asyncio.Protocol):
    """Connection of the protocol: an `InputHandler`, and a `Waiter` as a whole."""

    waiting_rules = LineRules()
    number = WHOLE_CONNECTION
    is_open = True
    client_errors = (BrokerError, ValueError)

    def __init__(self, node: Node) -> None:
        self.node = node
        self.event_handlers: Mapping[type, Callable[[Any, Any], int]] = HANDLERS
        self.channels: dict[int, LineChannel] = {}
        self.done: list[str] = []
        """Lines that were handled, in order."""
        self.is_certain = False
        self.reads_ended: list[bool] = []
        self.held_counts: list[int] = []
        """Requests that waited, each time those that an alarm holds could be answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(FakeTransport, transport)
        runtime = self.node.runtime
        self.output = OutputBuffer(self.transport, touch=runtime.turn.touch_output_buffer)
        read_control = ReadControl(self.transport)
        self._deadlines = Deadlines(runtime.clients_call_later, self)
        self.read_holds = ReadHolds(
            read_control,
            self._deadlines,
            alarms=self.node.alarms,
            commits=runtime.commits,
            call_later=runtime.clients_call_later,
            on_blocked=lambda reason: None if reason else self.input.act_later(),
        )
        self.input: InputQueue[Request] = InputQueue(
            self,
            LineReader(),
            self.node.services,
            transport=self.transport,
            output=self.output,
            read_control=read_control,
            read_holds=self.read_holds,
        )

    def log_in(self, *, has_channels: bool) -> None:
        session = SimpleNamespace(
            read_barrier=self.node.read_barrier, has_put=True, wants_confirms=False,
            confirming={}, confirm=self.confirm,
        )  # fmt: skip
        self.session = session
        self.input.begin(cast(Session, session), self if has_channels else None)
        self.read_holds.listen()

    def confirm(self) -> None:
        self.done.append("confirms")
        self.session.confirming.clear()

    def end_read(self, *, is_amid: bool) -> None:
        self.reads_ended.append(is_amid)

    def answer_held(self) -> None:
        self.held_counts.append(len(self.input.events))

    def send(self, *lines: str) -> None:
        """Send lines in one read."""
        self.transport.receive("".join(f"{line}\n" for line in lines).encode())

    def talk(self, *lines: str) -> list[str]:
        """Send lines in one read and run all turns that follow; returns what was handled."""
        self.send(*lines)
        self.node.scheduler.run()
        return self.take()

    def take(self) -> list[str]:
        done, self.done = self.done, []
        return done

    def data_received(self, data: bytes) -> None:
        self.input.act(data)

    def pause_writing(self) -> None:
        self.output.is_draining = True

    def resume_writing(self) -> None:
        self.output.drained()
        self.input.act_later()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc, self.session
        self._deadlines.end()
        self.read_holds.end()
        self.input.end_session()
        self.input.end()
        self.node.connections.discard(cast(Any, self))

    # An `InputHandler`

    def waiter(self, event: Request) -> Waiter:
        return self.opened(event.number)

    def opened(self, number: int) -> Waiter:
        """Channel for `InputChannels`; it needs not be opened."""
        return self.channels.setdefault(number, LineChannel(number)) if number else self

    def refuse(self, error: Exception, event: Request) -> None:
        self.done.append(f"refused {' '.join(event.words)}: {type(error).__name__}")

    def give_up(self, error: Exception, event: Request) -> None:
        self.done.append(f"bug at {' '.join(event.words)}: {error}")
        self.input.stop()

    def drop(self, reason: str) -> None:
        self.done.append(reason)
        self.input.stop()


def on_request(connection: LineConnection, event: Request) -> int:
    """Do what a line asks for."""
    verb, *arguments = event.words
    return VERBS[verb](connection, event, *arguments)


def on_deferred(connection: LineConnection, kept: DeferredEvent[Request]) -> int:
    connection.is_certain = connection.input.waiting.is_known(kept)
    try:
        return on_request(connection, kept.event)
    finally:
        connection.is_certain = False


HANDLERS: Mapping[type, Callable[[Any, Any], int]] = {
    Request: on_request,
    DeferredEvent: on_deferred,
}


def say(connection: LineConnection, _event: Request, word: str) -> int:
    connection.done.append(word)
    return EVENT_COST


def spend(connection: LineConnection, _event: Request, seconds: str) -> int:
    connection.node.now_s += float(seconds)
    return 1


def publish(connection: LineConnection, event: Request, word: str) -> int:
    """Put a message into a queue, which is confirmed at the end of the batch."""
    if connection.node.alarms.reason:
        connection.input.put_back([event])
        connection.read_holds.block()
        return TURN_COST_MAX
    connection.session.confirming[None] = None
    connection.session.has_put = connection.session.wants_confirms = True
    return say(connection, event, word)


def get(connection: LineConnection, event: Request, size: str) -> int:
    """Answer with a message."""
    connection.output.add(b"x" * int(size))
    connection.output.sent(int(size))
    connection.input.is_asking = True
    return say(connection, event, "got")


def steps(connection: LineConnection, event: Request, count: str, *end: str) -> int:
    def work() -> Steps[None]:
        for _ in range(int(count)):
            yield
        on_request(connection, Request(event.number, list(end)))

    waiter = connection.waiter(event) if event.number else None
    connection.input.work = LongEvent(event, waiter, work())
    return 1


def find(connection: LineConnection, event: Request, name: str) -> int:
    """Ask for a definition."""
    if name not in connection.node.names:
        raise NotFound(f"no {name}")
    return say(connection, event, f"{name}!" if connection.is_certain else name)


def declare(connection: LineConnection, event: Request, name: str) -> int:
    """Have something defined, which takes its time."""
    request = PendingRequest(
        connection.input.waiting,
        connection.waiter(event),
        event,
        decide=lambda: NOTHING,
        done=lambda: connection.done.append(f"declared {name}"),
    )
    connection.node.asked.append(request)
    request.wait()
    return EVENT_COST


def count(connection: LineConnection, event: Request) -> int:
    """Ask a queue that is led elsewhere."""
    answer: Deferred[str] = Deferred()
    connection.node.questions.append(answer)
    query: ChannelQuery[Request, str] = ChannelQuery(
        connection.input.waiting,
        connection.waiter(event),
        event,
        act=lambda word: connection.done.append(f"{word}!"),
        unwanted=lambda word: connection.done.append(f"unwanted {word}"),
        undo=lambda: connection.done.append("undone"),
    )
    query.wait(answer)
    return EVENT_COST


def fail(_connection: LineConnection, _event: Request, kind: str) -> int:
    raise {"client": ValueError, "bug": RuntimeError}[kind](kind)


def end(connection: LineConnection, event: Request) -> int:
    return say(connection, event, "end")


VERBS: Mapping[str, Callable[..., int]] = {
    function.__name__: function
    for function in (say, spend, publish, get, steps, find, declare, count, fail, end)
}


def says(number: int) -> list[str]:
    return [f"say {each}" for each in range(number)]


def words(number: int) -> list[str]:
    return [str(each) for each in range(number)]


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_read_is_acted_on_in_order_and_then_confirmed(node: Node) -> None:
    client = node.connect()
    client.send("publish a", "say b", "publish c")
    assert client.done == ["a", "b", "c", "confirms"]
    client.send("say d")
    assert not client.session.has_put, "the batch has begun a turn"


def test_short_reads_of_a_publisher_are_acknowledged_unless_a_confirm_comes(node: Node) -> None:
    """A publisher may wait for the confirm before it sends the next message."""
    sock = RecordedSocket([])
    client = node.connect(sock=sock)
    client.talk("say a")
    client.talk("publish b")
    assert not sock.options
    client.talk(f"say {'c' * SHORT_READ_BYTES}")
    assert not sock.options
    client.talk("say d")
    assert sock.options == [(socket.IPPROTO_TCP, QUICK_ACK, 1)] * (QUICK_ACK is not None)


def test_the_end_of_a_read_is_reported_once_all_of_it_is_done(node: Node) -> None:
    client = node.connect()
    client.transport.receive(b"say a\nsay")
    assert client.reads_ended == [True]
    client.transport.receive(b" b\n")
    assert (client.take(), client.reads_ended) == (["a", "b"], [True, False])


def test_a_flood_is_cut_into_turns_and_not_read_meanwhile(node: Node) -> None:
    flooder, other = node.connect(), node.connect()
    flooder.send(*says(300))
    in_first_turn = TURN_COST_MAX // EVENT_COST
    assert flooder.done == words(in_first_turn)
    assert not flooder.transport.is_reading()
    other.send("say mine")
    assert other.done == ["mine"]
    assert node.connections.busy == {flooder}
    node.scheduler.run()
    assert flooder.done == words(300)
    assert flooder.transport.is_reading()
    assert not node.connections.busy


def test_who_takes_long_waits_for_the_others(node: Node) -> None:
    slow = node.connect()
    slow.send("spend 0.001", "say a", f"spend {SHARE_S}", "say b")
    assert (slow.done, slow.transport.is_reading()) == (["a"], False)
    node.scheduler.run()
    assert (slow.done, slow.transport.is_reading()) == (["a", "b"], True)


def test_what_takes_long_is_done_in_steps_before_all_behind_it(node: Node) -> None:
    client, other = node.connect(), node.connect()
    node.connections.busy.add(other)  # so that a turn is short
    client.send(f"steps {100 * TURN_COST_MAX} say a", "say b")
    assert (client.done, client.transport.is_reading()) == ([], False)
    assert client.input.work is not None
    node.scheduler.run()
    assert client.done == ["a", "b"]


def test_what_takes_long_ends_with_its_channel(node: Node) -> None:
    client = node.connect()
    client.send(f"1:steps {100 * TURN_COST_MAX} say a", "say b")
    client.channels[1].is_open = False
    node.scheduler.run()
    assert client.done == ["b"]


def test_an_error_is_refused_and_the_rest_is_done(node: Node) -> None:
    client = node.connect()
    assert client.talk("fail client", f"steps {STEPS} fail client", "say a") == [
        "refused fail client: ValueError",
        f"refused steps {STEPS} fail client: ValueError",
        "a",
    ]


@pytest.mark.parametrize("line", ["fail bug", f"steps {STEPS} fail bug"])
def test_a_bug_ends_one_connection(node: Node, line: str) -> None:
    client, other = node.connect(), node.connect()
    assert client.talk(line, "say a") == [f"bug at {line}: bug"]
    assert other.talk("say b") == ["b"]


# What has to wait


def confirmed(read_barrier: ManualReadBarrier, node: Node) -> None:
    read_barrier.confirm()
    node.scheduler.run()


def test_a_negative_answer_waits_until_more_is_known() -> None:
    read_barrier = ManualReadBarrier()
    node = Node(read_barrier)
    client = node.connect()
    assert client.talk("1:find q", "1:say a", "2:say b") == ["b"]
    node.names.add("q")
    confirmed(read_barrier, node)
    assert client.take() == ["q!", "a"]


def test_a_negative_answer_that_stays_one_is_given() -> None:
    read_barrier = ManualReadBarrier()
    node = Node(read_barrier)
    client = node.connect()
    assert client.talk("find q", "say a") == []
    confirmed(read_barrier, node)
    assert client.take() == ["refused find q: NotFound", "a"]
    assert client.talk("find q") == []
    read_barrier.fail()
    node.scheduler.run()
    assert client.take()[0] == "refused find q: InternalError"


def test_it_is_given_at_once_where_all_is_known_or_it_asks_nothing(node: Node) -> None:
    assert node.connect().talk("find q") == ["refused find q: NotFound"]
    elsewhere = Node(ManualReadBarrier()).connect()
    assert elsewhere.talk("fail client") == ["refused fail client: ValueError"]


def test_what_comes_behind_a_change_waits_for_it_and_others_go_on(node: Node) -> None:
    client, other = node.connect(), node.connect()
    assert client.talk("1:declare q", "1:say a", "2:say b") == ["b"]
    assert client.talk("1:say c") == []
    assert other.talk("say d") == ["d"]
    node.asked.pop().done()
    node.scheduler.run()
    assert client.take() == ["declared q", "a", "c"]


def test_what_concerns_the_whole_connection_waits_for_all(node: Node) -> None:
    client = node.connect()
    assert client.talk("1:declare q", "say a", "2:say b") == []
    assert not client.transport.is_reading()
    node.asked.pop().done()
    node.scheduler.run()
    assert client.take() == ["declared q", "a", "b"]
    assert client.transport.is_reading()


def test_a_protocol_without_channels_doubts_as_a_whole() -> None:
    read_barrier = ManualReadBarrier()
    node = Node(read_barrier)
    client = node.connect(has_channels=False)
    assert client.talk("find q", "say a") == []
    node.names.add("q")
    confirmed(read_barrier, node)
    assert (client.take(), client.reads_ended) == (["q!", "a"], [])


def test_a_protocol_without_channels_waits_as_a_whole(node: Node) -> None:
    client = node.connect(has_channels=False)
    assert client.talk("declare q", "say a", "declare r", "say b") == []
    for name, word in {"q": "a", "r": "b"}.items():
        node.asked.pop(0).done()
        node.scheduler.run()
        assert client.take() == [f"declared {name}", word]


def test_all_wait_for_what_concerns_the_whole_connection(node: Node) -> None:
    client = node.connect()
    assert client.talk("declare q", "1:say a") == []
    assert client.transport.is_reading()
    assert client.talk("say b", "1:say c") == []
    node.asked.pop().done()
    node.scheduler.run()
    assert client.take() == ["declared q", "a", "b", "c"]


@given(
    requests=st.lists(
        st.tuples(st.sampled_from((0, 1, 2)), st.sampled_from(("say", "declare", "steps 40 say"))),
        max_size=15,
    ),
    kept_bytes_max=st.sampled_from((0, 20, 1 << 20)),
    chance=st.randoms(use_true_random=False),
)
def test_order_holds_whatever_waits_however_long(
    requests: list[tuple[int, str]], kept_bytes_max: int, chance: Random
) -> None:
    """On each channel, and between them and what concerns the whole connection."""
    node = Node()
    client = node.connect()
    lines = (f"{channel}:{verb} {at}\n" for at, (channel, verb) in enumerate(requests))
    unread = "".join(lines).encode()
    with patch.object(pending_requests, "KEPT_BYTES_MAX", kept_bytes_max):
        while unread or node.asked or node.scheduler.is_busy:
            if unread and chance.random() < 0.3:
                size = chance.randint(1, len(unread))
                client.transport.receive(unread[:size])
                unread = unread[size:]
            if node.asked and chance.random() < 0.3:
                node.asked.pop(chance.randrange(len(node.asked))).done()
            if chance.random() < 0.5:
                node.scheduler.turn()
    done = [int(word.removeprefix("declared ")) for word in client.done]
    assert sorted(done) == list(range(len(requests)))
    for at, (channel, _verb) in enumerate(requests):
        before = done[: done.index(at)]
        for other, (its_channel, _its_verb) in enumerate(requests[:at]):
            if 0 in (channel, its_channel) or channel == its_channel:
                assert other in before, (requests, done)
    assert (node.connections.deferred.total, client.transport.is_reading()) == (0, True)


def test_the_last_event_waits_for_nothing(node: Node) -> None:
    client = node.connect()
    assert client.talk("declare q", "say a", "end") == ["end"]


def test_a_change_that_cannot_be_is_refused(node: Node) -> None:
    client = node.connect()
    client.talk("1:declare q", "1:say a")
    node.asked.pop().failed(InternalError("no majority"))
    node.scheduler.run()
    assert client.take() == ["refused declare q: InternalError", "a"]


def test_what_is_answered_after_its_channel_has_ended_is_unwanted(node: Node) -> None:
    client = node.connect()
    client.talk("1:count", "1:say a")
    client.channels[1].is_open = False
    node.questions.pop().answer("5")
    node.scheduler.run()
    assert client.take() == ["unwanted 5", "a"]


def test_who_asks_a_queue_that_is_deleted_asks_anew(node: Node) -> None:
    client = node.connect()
    client.talk("1:count", "1:say a")
    node.questions.pop().fail(QueueDeleted("q"))
    node.scheduler.run()
    assert client.take() == ["undone"]
    node.questions.pop().answer("5")
    node.scheduler.run()
    assert client.take() == ["5!", "a"]


def test_who_sends_much_behind_a_change_is_not_read(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_requests, "KEPT_BYTES_MAX", 100)
    client = node.connect()
    client.talk("1:declare q", *(f"1:{line}" for line in says(40)))
    assert not client.transport.is_reading()
    assert client.talk("2:say b") == []
    node.asked.pop().done()
    node.scheduler.run()
    assert client.take() == ["declared q", *words(40), "b"]
    assert client.transport.is_reading()
    assert node.connections.deferred.total == 0


# What holds it


def test_who_asks_for_much_waits_until_it_is_out(node: Node) -> None:
    client = node.connect()
    client.transport.is_stuck = True
    assert client.talk(f"get {BURST_BYTES}") == ["got"]
    assert client.talk(f"get {BURST_BYTES}", "say a") == []
    assert not client.transport.is_reading()
    client.transport.drain()
    node.scheduler.run()
    assert client.take() == ["got", "a"]


def test_who_publishes_under_an_alarm_waits_until_it_is_over(node: Node) -> None:
    client = node.connect()
    node.alarms.set("memory", low=True)
    assert client.talk("say a", "publish b", "say c") == ["a"]
    assert client.talk("say d") == []
    assert client.held_counts[-1] == 2
    node.alarms.set("memory", low=False)
    node.scheduler.run()
    assert client.take() == ["b", "c", "confirms", "d"]


# Its end


def test_nothing_is_acted_on_after_the_end(node: Node) -> None:
    client = node.connect()
    client.send("1:declare q", *says(300), "1:say z")
    client.take()
    client.transport.lose()
    node.asked.pop().done()
    node.scheduler.run()
    assert (client.done, list(client.input.events)) == ([], [])
    assert (node.connections.deferred.total, node.connections.busy) == (0, set())


def test_nothing_keeps_a_connection_alive_that_has_ended(node: Node) -> None:
    client = node.connect()
    client.send("1:declare q", "1:say a", "2:count", "steps 10 say b")
    client.transport.lose()
    node.scheduler.run()
    left = ref(client)
    node.asked.clear()
    node.questions.clear()
    gc.disable()
    try:
        del client
        assert left() is None
    finally:
        gc.enable()
