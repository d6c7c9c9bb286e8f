"""The broker's edge without sockets: a node's services, a clock to move, clients to talk with.

A test reads like a conversation: `edge.connect()` gives a `Client` whose `send` is one read of a
real `Connection`, `expect` takes the next method it has got, and `advance` lets time pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from random import Random
from typing import Any, TypeVar

from fluffle.broker.access.access import Access
from fluffle.broker.alarms import Alarms, watermarks_of
from fluffle.broker.config.config import Config, Limits
from fluffle.broker.core.client_events import ClientEvents
from fluffle.broker.core.connections import Connections, ForcedCloses, Owners, delete_late
from fluffle.broker.core.direct_reply_to import ReplyTargets
from fluffle.broker.core.services import Services, server_properties
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.retained import RetainedLimits, RetainedStore
from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.event_publisher import EVENT_EXCHANGE, EventPublisher
from fluffle.broker.metadata.change import Facts, Kind
from fluffle.broker.metadata.metadata import Apply, LocalMetadata, Metadata
from fluffle.broker.policies.policies import Policies
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.protocols.amqp091.event_handlers import EVENT_HANDLERS
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.routing.changes import have_own
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.runtime.timers import LocalQueueClock
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.statistics.statistics import SampleTimer, Statistics
from fluffle.broker.transfer.dead_letters import DeadLetters
from fluffle.broker.vhosts.queue_changes import delete_disused
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Exchange,
    Method,
    Queue,
    decode_method,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.methods import Connection as ConnectionMethods
from fluffle.protocol.properties import Properties, build_content, encode_properties, split_content
from fluffle.protocol.spec import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    PROTOCOL_HEADER,
)
from fluffle.protocol.wire import to_table
from fluffle.storage.store import Store
from tests.support.definitions import Editor
from tests.support.fakes import FakeTransport, ScheduledClock, Scheduler
from tests.support.manual_clock import ManualClock
from tests.support.runtime import fake_runtime
from tests.support.store import open_store

M = TypeVar("M", bound=Method)

WALL_MS = 7_999
"""Time of day when a node starts."""

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
CAPABILITIES = ("consumer_cancel_notify", "connection.blocked", "authentication_failure_close")


@dataclass(slots=True)
class Arrival:
    """A method that a client has got, with the frames of its content."""

    channel: int
    method: Method
    header: bytes = b""
    body_frames: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.body_frames)

    def __str__(self) -> str:
        return f"{self.method.name} on channel {self.channel}: {dict(self.method)}"


class Edge:
    """The services of a node, and the connections to it."""

    statistics: Statistics
    clockwork: SampleTimer
    """Has them sampled, once it is started.  Both from `count` on."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        store: Store | None = None,
        make_metadata: Callable[[Apply, Facts], Metadata] = LocalMetadata,
        announces: bool = False,
        wall_ms: int = WALL_MS,
    ) -> None:
        """`store` is what durable things are written to, and what is there in "/" is built again;
        by default in memory, and at once.  `announces`: events go to `amq.rabbitmq.event`."""
        self.scheduler = Scheduler()
        self.turn = Turn(self.scheduler.call_soon)
        self.durability = durability = Durability(store or open_store(), self.turn)
        policies = Policies()
        clock = ScheduledClock(self.scheduler, wall_ms=wall_ms)
        runtime = fake_runtime(
            self.scheduler, clock=clock, turn=self.turn, commits=durability.commits
        )
        self.vhost = VirtualHost(
            "/",
            self._maker(runtime, durability, policies),
            image=durability.image.vhosts.get("/"),
            policies=policies,
            on_new_queue=lambda spec, vhost: self.new_queues.append((spec.name, vhost)),
            pick=Random(1).randrange,
            later=runtime.background_tasks.finish,
        )
        self.facts: Facts = durability.facts
        self.new_queues: list[tuple[str, str]] = []
        """Queue and virtual host, as the node heard of it."""
        self.access = Access()
        maker = LocalQueues(self.turn)
        self.catalogue = Catalogue(
            self.access, {"/": self.vhost}, lambda name: VirtualHost(name, maker), policies=policies
        )
        self.editor = Editor(self.catalogue)
        """Changes what nobody remembers."""
        for name, password in {"guest": b"guest", "alice": b"wonder"}.items():
            self.editor.grant_everything(name, password, ["/"])
        metadata, names = make_metadata(self.catalogue.apply, self.facts), count(1)
        self.services = Services(
            runtime=runtime,
            limits=limits or Limits(),
            server_properties=server_properties(Config(node_name="fluffle@test")),
            access=self.access,
            vhosts=self.catalogue.vhosts,
            metadata=metadata,
            retained=self._retaining(runtime, metadata),
            replies=ReplyTargets(),
            alarms=Alarms(watermarks_of(Config())),
            random_name=lambda: f"{next(names):022}",
            connections=Connections(now_s=lambda: self.scheduler.now_s),
            owners=Owners("a"),
            forced_closes=ForcedCloses(runtime.background_tasks),
            global_parameters=self.catalogue.kept.entries[Kind.GLOBAL_PARAMETER],
            observers=(self.announcing(),) if announces else (),
        )
        late = partial(delete_late, self.services.owners, metadata)
        self.catalogue.transient_listeners.append(late)

    def announcing(self) -> ClientEvents:
        self.editor.have(partial(have_own, self.vhost.topology, EVENT_EXCHANGE))
        announcer = EventPublisher("node", self.catalogue.vhosts, ManualClock(wall_ms=WALL_MS))
        return ClientEvents(announcer, self.catalogue.known)

    def count(self) -> None:
        """Count by object what clients do that connect from now on."""
        services, runtime = self.services, self.services.runtime
        clock = ScheduledClock(self.scheduler)
        statistics = Statistics(services.vhosts, runtime.traffic, clock=clock)
        self.statistics = statistics
        self.clockwork = statistics.sample_timer(runtime.background_tasks, runtime.call_later)
        observers = *services.observers, statistics.observer
        self.services = replace(services, observers=observers)

    def _retaining(self, runtime: Runtime, metadata: Metadata) -> RetainedStore:
        limits = RetainedLimits(messages_max=100, size_bytes_max=1 << 20)
        return RetainedStore(
            self.catalogue,
            metadata,
            limits,
            runtime,
            now_ms=runtime.clock.wall_ms,
            is_leader=lambda: True,
        )

    def _maker(self, runtime: Runtime, durability: Durability, policies: Policies) -> LocalQueues:
        deaths = runtime.traffic.deaths
        return LocalQueues(
            self.turn,
            durability.journals,
            DeadLetters(lambda _name: self.vhost, runtime.clock, deaths).publish,
            time=LocalQueueClock(runtime.clock, runtime.timers, self.turn.touch_queue),
            queue_expired=self._delete_disused,
            settings=policies.settings_of,
        )

    def _delete_disused(
        self, _vhost: str, definition: QueueDefinition, is_queue_expired: Callable[[], bool]
    ) -> None:
        decide = partial(delete_disused, self.vhost, definition, is_queue_expired)
        self.services.metadata.ensure(decide)

    def accept(self, peer: tuple[str, int] = ("127.0.0.1", 40_000)) -> Client:
        """A socket on which nothing has been said."""
        return self.accept_from(peername=peer)

    def accept_from(self, **ends: object) -> Client:
        """Accept a client as `accept` does, with further facts about its socket."""
        return Client(self, {"sockname": ("127.0.0.1", 5672), **ends})

    def connect(self, **tuning: Any) -> Client:
        """A client that has opened a connection and channel 1; `tuning` as `Client.log_in`."""
        client = self.accept()
        client.log_in(**tuning)
        client.open_channel()
        return client

    def run(self) -> None:
        self.scheduler.run()

    def advance(self, seconds: float) -> None:
        self.scheduler.advance(seconds)


class Client:
    """The other end of one connection."""

    def __init__(self, edge: Edge, ends: Mapping[str, object]) -> None:
        self.edge = edge
        self.transport = FakeTransport(edge.scheduler, ends)
        self.connection = Connection(edge.services, EVENT_HANDLERS)
        self.heartbeat_count = 0
        self._arrivals: deque[Arrival] = deque()
        self._parsed_writes = 0
        self._frame_bytes_max = 0
        self.transport.connect(self.connection)

    # Bytes and frames

    def feed(self, *frames: bytes) -> None:
        """Read frames in one go, without ending the turn."""
        self.transport.receive(b"".join(frames))

    def send(self, *frames: bytes) -> None:
        """Read frames in one go, and run all turns that follow."""
        self.feed(*frames)
        self.edge.run()

    def call(self, method: Method, reply: type[M], channel: int = 1) -> M:
        """Send a method and take its answer."""
        self.send(encode_method(channel, method))
        return self.expect(reply, channel)

    # What has come

    def arrivals(self) -> list[Arrival]:
        """Take everything that has come."""
        self._parse()
        arrived, self._arrivals = list(self._arrivals), deque()
        return arrived

    def names(self) -> list[str]:
        """Take everything, as the names of methods."""
        return [arrival.method.name for arrival in self.arrivals()]

    def bodies(self, cls: type[Method] = Basic.Deliver) -> list[bytes]:
        """Take everything, which must be messages that came with `cls`; their bodies."""
        arrived = self.arrivals()
        assert {type(arrival.method) for arrival in arrived} <= {cls}
        return [arrival.body for arrival in arrived]

    def take(self, channel: int = 1) -> Arrival:
        """Take the next that has come, which must be on `channel`."""
        self._parse()
        assert self._arrivals, "nothing has come"
        arrival = self._arrivals.popleft()
        assert arrival.channel == channel, str(arrival)
        return arrival

    def expect(self, cls: type[M], channel: int = 1) -> M:
        """Take the next method, which must be a `cls` on `channel`."""
        arrival = self.take(channel)
        assert isinstance(arrival.method, cls), str(arrival)
        return arrival.method

    def expect_closed(self, code: int, text: str = "", ids: tuple[int, int] | None = None) -> None:
        """Take the connection.close that comes next, and leave it without an answer."""
        close = self.expect(ConnectionMethods.Close, channel=0)
        assert (close.reply_code, text in close.reply_text) == (code, True), close.reply_text
        assert ids in (None, (close.class_id, close.method_id))

    def expect_channel_closed(self, code: int, text: str = "", channel: int = 1) -> Channel.Close:
        """Take the channel.close that comes next, and leave it without an answer."""
        close = self.expect(Channel.Close, channel)
        assert (close.reply_code, text in close.reply_text) == (code, True), close.reply_text
        return close

    def expect_nothing(self) -> None:
        assert self.names() == []

    def _parse(self) -> None:
        fresh = b"".join(self.transport.writes[self._parsed_writes :])
        self._parsed_writes = len(self.transport.writes)
        position = 0
        while position < len(fresh):
            kind, channel = fresh[position], int.from_bytes(fresh[position + 1 : position + 3])
            end = position + 8 + int.from_bytes(fresh[position + 3 : position + 7])
            payload = fresh[position + 7 : end - 1]
            assert fresh[end - 1] == FRAME_END
            assert not self._frame_bytes_max or end - position <= self._frame_bytes_max
            self._take_frame(kind, channel, payload)
            position = end

    def _take_frame(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == FRAME_HEARTBEAT:
            self.heartbeat_count += 1
        elif kind == FRAME_METHOD:
            self._arrivals.append(Arrival(channel, decode_method(payload)))
        else:
            last = self._arrivals[-1]
            assert last.channel == channel, "content of another channel came in between"
            if kind == FRAME_HEADER:
                last.header = payload
            else:
                assert kind == FRAME_BODY
                assert payload, "an empty body frame"
                last.body_frames.append(payload)

    # Conversations

    def log_in(
        self,
        *,
        user: str = "guest",
        password: str = "guest",
        heartbeat_s: int = 0,
        channels_max: int = 2047,
        frame_bytes_max: int = 131_072,
        capabilities: Sequence[str] = CAPABILITIES,
        name: str = "",
    ) -> None:
        """From the protocol header to connection.open-ok."""
        self.send(PROTOCOL_HEADER)
        self.expect(ConnectionMethods.Start, channel=0)
        self.call(
            start_ok(f"\0{user}\0{password}", capabilities=capabilities, name=name),
            ConnectionMethods.Tune,
            channel=0,
        )
        tune_ok = ConnectionMethods.TuneOk(channels_max, frame_bytes_max, heartbeat_s)
        self._frame_bytes_max = frame_bytes_max
        self.send(encode_method(0, tune_ok))
        self.call(ConnectionMethods.Open("/"), ConnectionMethods.OpenOk, channel=0)

    def open_channel(self, channel: int = 1) -> None:
        self.call(Channel.Open(), Channel.OpenOk, channel)

    def declare(self, name: str = "q", channel: int = 1, **flags: Any) -> Queue.DeclareOk:
        return self.call(make(Queue.Declare, queue=name, **flags), Queue.DeclareOk, channel)

    def delete(self, name: str = "q", channel: int = 1) -> Queue.DeleteOk:
        return self.call(make(Queue.Delete, queue=name), Queue.DeleteOk, channel)

    def declare_exchange(self, name: str, kind: str = "fanout") -> None:
        self.call(make(Exchange.Declare, exchange=name, exchange_type=kind), Exchange.DeclareOk)

    def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        bind = make(Queue.Bind, queue=queue, exchange=exchange, routing_key=routing_key)
        self.call(bind, Queue.BindOk)

    def confirm_select(self, channel: int = 1) -> None:
        self.call(Confirm.Select(), Confirm.SelectOk, channel)

    def consume(
        self,
        queue: str = "q",
        tag: str = "c",
        channel: int = 1,
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
    ) -> None:
        """Start a consumer; what it is delivered waits to be taken."""
        if prefetch:
            self.call(Basic.Qos(prefetch_count=prefetch), Basic.QosOk, channel)
        consume = make(
            Basic.Consume, queue=queue, consumer_tag=tag, no_ack=no_ack, exclusive=exclusive
        )
        assert self.call(consume, Basic.ConsumeOk, channel).consumer_tag == tag

    def publish(self, *bodies: bytes, **where: Any) -> None:
        """Publish in one read; `where` as `publish_frames`."""
        self.send(*(publish_frames(body, **where) for body in bodies))

    def ack(self, tag: int, channel: int = 1, *, multiple: bool = False) -> None:
        self.send(encode_method(channel, Basic.Ack(tag, multiple)))

    def ready_count(self, queue: str = "q", channel: int = 1) -> int:
        """How many messages wait in a queue, as a passive declare tells."""
        return self.declare(queue, channel, passive=True).message_count or 0

    def close(self) -> None:
        """Close the connection in order, and the socket then."""
        self.call(ConnectionMethods.Close(200, "bye", 0, 0), ConnectionMethods.CloseOk, channel=0)
        self.transport.lose()


def start_ok(
    response: str,
    *,
    mechanism: str = "PLAIN",
    capabilities: Sequence[str] = CAPABILITIES,
    name: str = "",
) -> ConnectionMethods.StartOk:
    properties = to_table(
        {"capabilities": dict.fromkeys(capabilities, True), "connection_name": name}
    )
    return make(
        ConnectionMethods.StartOk,
        client_properties=pamqp_table(properties),
        mechanism=mechanism,
        response=response,
        locale="en_US",
    )


def publish_frames(
    body: bytes = b"",
    queue: str = "q",
    channel: int = 1,
    *,
    exchange: str = "",
    properties: Properties | None = None,
    mandatory: bool = False,
    immediate: bool = False,
    frame_bytes_max: int = 131_072,
) -> bytes:
    """A basic.publish with its content; `queue` is the routing key."""
    publish = make(
        Basic.Publish,
        exchange=exchange,
        routing_key=queue,
        mandatory=mandatory,
        immediate=immediate,
    )
    content = build_content(encode_properties(properties or Properties()), body)
    return encode_method(channel, publish) + split_content(content, channel, frame_bytes_max)
