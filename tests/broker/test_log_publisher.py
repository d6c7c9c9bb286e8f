"""Log lines of a node in amq.rabbitmq.log: as messages, and a limited number."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator

import aio_pika
import pytest

from fluffle.broker import event_publisher as module
from fluffle.broker.base.logs import LOGGED_BY, event, set_level
from fluffle.broker.composition.observers import own_exchanges
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.event_publisher import LINES_MAX, LOG_EXCHANGE, PAUSE_S, LogPublisher
from fluffle.broker.queues.engine import Queue
from fluffle.broker.routing.changes import have_own
from fluffle.broker.testing.broker import Broker
from fluffle.protocol.methods import Basic, encode_method
from fluffle.protocol.properties import Properties, decode_properties
from tests.support.deadlines import DEADLINE_S
from tests.support.edge import Arrival, Edge

logger = logging.getLogger("fluffle.tests")


class Scene:
    """A node whose lines a client hears, in the queue `lines`."""

    def __init__(self, format_name: str = "text") -> None:
        self.edge = Edge()
        self.edge.editor.have(lambda: have_own(self.edge.vhost.topology, LOG_EXCHANGE))
        self.client = self.edge.connect()
        self.client.declare("lines")
        scheduler = self.edge.scheduler
        self.lines = LogPublisher(
            "a@b",
            format_name,
            lambda: self.edge.vhost,
            scheduler.call_soon,
            scheduler.call_later,
        )

    def listen(self, key: str = "#") -> None:
        self.client.bind("lines", LOG_EXCHANGE.name, key)

    def heard(self) -> list[Arrival]:
        """All that has been reported since the last time."""
        self.edge.advance(PAUSE_S)
        arrivals: list[Arrival] = []
        while True:
            self.client.send(encode_method(1, Basic.Get(queue="lines", no_ack=True)))
            arrival = self.client.take()
            if not isinstance(arrival.method, Basic.GetOk):
                return arrivals
            arrivals.append(arrival)

    def words(self) -> list[str]:
        """Event names of the published lines."""
        return [arrival.body.decode().split()[2] for arrival in self.heard()]


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    scene.lines.begin(logging.INFO)
    yield scene
    scene.lines.end()


def test_a_line_is_a_message_under_its_level(scene: Scene) -> None:
    scene.listen("warning")
    event(logger, logging.WARNING, "odd", what="a b")
    event(logger, logging.INFO, "even")
    [arrival] = scene.heard()
    assert arrival.method["routing_key"] == "warning"
    properties = decode_properties(arrival.header[12:])
    time_s, properties.timestamp = properties.timestamp, None
    assert properties == Properties(content_type="text/plain", headers={"node": ("S", b"a@b")})
    assert time_s
    assert arrival.body.endswith(b'Z warning odd what="a b"\n')


def test_lines_may_be_json() -> None:
    scene = Scene("json")
    scene.lines.begin(logging.INFO)
    try:
        scene.listen()
        event(logger, logging.ERROR, "odd", what="\udcff")
        [arrival] = scene.heard()
    finally:
        scene.lines.end()
    assert decode_properties(arrival.header[12:]).content_type == "application/json"
    assert arrival.body.endswith(b'"level": "error", "event": "odd", "what": "\\udcff"}\n')


def test_any_thread_may_log(scene: Scene) -> None:
    scene.listen()
    thread = threading.Thread(target=lambda: event(logger, logging.INFO, "elsewhere"))
    thread.start()
    thread.join()
    event(logger, logging.INFO, "here")
    assert scene.words() == ["elsewhere", "here"]


def test_what_nobody_hears_is_not_kept(scene: Scene) -> None:
    for _ in range(2 * LINES_MAX):
        event(logger, logging.INFO, "unheard")
    assert scene.words() == []
    scene.listen()
    event(logger, logging.INFO, "heard")
    assert scene.words() == ["heard"]


def test_beyond_so_many_lines_are_dropped_and_that_is_reported(scene: Scene) -> None:
    scene.listen()
    for number in range(LINES_MAX + 7):
        event(logger, logging.INFO, str(number))
    *reported, last = scene.heard()
    assert [int(arrival.body.split()[2]) for arrival in reported] == [*range(LINES_MAX)]
    assert last.body.endswith(b"warning lines_dropped count=7\n")
    event(logger, logging.INFO, "more")
    assert scene.words() == ["more"]


Messages = Iterable[tuple[str, Properties, bytes]]


def echo(scene: Scene, monkeypatch: pytest.MonkeyPatch, say: Callable[[], None]) -> list[int]:
    """Have something said for each line that is reported; how many were, each time."""
    reported: list[int] = []

    def publish(_vhost: object, _exchange: str, messages: Messages, _is_given: object) -> None:
        count = len(list(messages))
        reported.append(count)
        for _ in range(count):
            say()

    monkeypatch.setattr(module, "publish_own", publish)
    scene.listen()
    event(logger, logging.INFO, "first")
    return reported


def test_what_is_logged_while_lines_are_reported_is_not_reported(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = echo(scene, monkeypatch, lambda: event(logger, logging.INFO, "echo"))
    scene.edge.advance(10)
    assert reported == [1]


def test_what_comes_of_lines_later_never_becomes_more_than_so_much(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say() -> None:
        for _ in range(3):
            scene.edge.scheduler.call_soon(lambda: event(logger, logging.INFO, "echo"))

    reported = echo(scene, monkeypatch, say)
    scene.edge.advance(10 * PAUSE_S)
    assert reported[:3] == [1, 3, 9]
    assert max(reported) == LINES_MAX + 1
    assert len(reported) <= 11


def test_a_queue_that_cannot_take_lines_now_misses_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quorum queue without a majority would have them wait in memory, for as long as that is."""
    scene.listen()
    with monkeypatch.context() as without_majority:
        without_majority.setattr(Queue, "is_full", True)
        event(logger, logging.INFO, "missed")
        scene.edge.advance(PAUSE_S)
    event(logger, logging.INFO, "heard")
    assert scene.words() == ["heard"]


def test_nothing_is_reported_behind_the_end(scene: Scene) -> None:
    scene.listen()
    event(logger, logging.INFO, "waits")
    scene.lines.end()
    event(logger, logging.INFO, "late")
    scene.lines.handle(logging.LogRecord("x", logging.INFO, "", 0, "later", None, None))
    assert scene.words() == []


def test_what_a_user_wants_reported_is_logged_while_he_does() -> None:
    ours, scenes = logging.getLogger(LOGGED_BY), (Scene(), Scene())
    assert ours.level == logging.NOTSET
    scenes[0].lines.begin(logging.DEBUG)
    scenes[1].lines.begin(logging.CRITICAL)
    assert ours.level == logging.DEBUG
    scenes[0].lines.end()
    assert ours.level == logging.NOTSET
    scenes[1].lines.end()


def test_the_level_that_a_running_node_is_given_counts(scene: Scene) -> None:
    """The level applies to both output and exchange, as with RabbitMQ."""
    before = logging.getLogger().level
    scene.listen()
    try:
        for level, reported in (
            (logging.ERROR, ["bad"]),
            (logging.DEBUG, ["odd", "even", "bad"]),
            (logging.INFO, ["even", "bad"]),
        ):
            set_level(level)
            for each, name in ((10, "odd"), (20, "even"), (40, "bad")):
                event(logger, each, name)
            assert scene.words() == reported
    finally:
        set_level(before)


async def test_a_node_tells_what_it_logs() -> None:
    config = Config(listen=ListenAddress("127.0.0.1", 0), log_exchange="error")
    async with Broker(config) as broker, await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("lines", exclusive=True)
        await queue.bind("amq.rabbitmq.log", "error")
        other = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await other.get_exchange("nowhere")
        async with queue.iterator(no_ack=True, timeout=DEADLINE_S) as messages:
            message = await anext(aiter(messages))
        assert b" error channel_error " in message.body
        assert b"nowhere" in message.body


async def test_it_is_reported_in_the_first_virtual_host() -> None:
    """RabbitMQ does so: mostly one is named because `/` does not exist."""
    config = Config(listen=ListenAddress("127.0.0.1", 0), log_exchange="info")
    async with Broker(config, vhosts=["first", "/"]) as broker:
        for name, vhost in broker.node.catalogue.vhosts.items():
            assert (vhost.topology.find(LOG_EXCHANGE.name) is not None) == (name == "first")
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("lines", exclusive=True)
            await queue.bind("amq.rabbitmq.log", "#")
            event(logger, logging.INFO, "even")
            async with queue.iterator(no_ack=True, timeout=DEADLINE_S) as messages:
                while b" info even\n" not in (await anext(aiter(messages))).body:
                    pass


def test_where_it_is_not_there_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    vhosts = {"/": Edge().vhost}
    assert [*own_exchanges(Config(log_exchange="info"), vhosts)] == [(vhosts["/"], LOG_EXCHANGE)]
    assert not caplog.records
    assert not [*own_exchanges(Config(log_exchange="info", default_vhost="gone"), vhosts)]
    [record] = caplog.records
    assert record.message == "exchange_missing"


async def test_without_the_option_there_is_no_such_exchange() -> None:
    async with Broker() as broker:
        topology = broker.node.catalogue.vhosts["/"].topology
        assert topology.find(LOG_EXCHANGE.name) is None
        handlers = logging.getLogger(LOGGED_BY).handlers
        assert not [each for each in handlers if isinstance(each, LogPublisher)]
