"""Cost of a run at the edge besides its messages: taking it from a publisher, sending it.

Everything around it is real but the socket; runs of one message show what a lone message costs.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.micro.hot import content, ns_per_message, publish_method, with_priority
from benchmarks.micro.queue import ALL as ALL_LIMITS
from fluffle.broker.access.access import Access, User
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.config.config import Limits, QuorumConfig
from fluffle.broker.core.connections import DeferredBytes, Owners
from fluffle.broker.core.direct_reply_to import ReplyTargets
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.pending_requests import WaitingRequests, no_continuation
from fluffle.broker.core.services import Services
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER
from fluffle.broker.protocols.amqp091.basic_methods import Envelopes
from fluffle.broker.protocols.amqp091.channel import AmqpSession, Channel, ChannelTable
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.protocols.amqp091.event_handlers import publish_batch
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import DeliveryBatch, Holder
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import outline, raw_properties
from fluffle.protocol.reader import Publishes
from tests.support.definitions import EVERYTHING

QUEUE = "measurements"
BODY_BYTES = 16
PLAIN = QueueSpec(QUEUE)
RUNS = 100
"""Between two times that the queue, or the outlet, is emptied."""


class Nowhere:
    """A socket that takes everything."""

    def write(self, data: bytes) -> None: ...

    def writelines(self, list_of_data: list[bytes]) -> None: ...


def never(_runs: list[Publishes]) -> None:
    raise AssertionError("one run was put back")


def open_channel(spec: QueueSpec = PLAIN) -> Channel:
    """A channel of a connection to nowhere, on a virtual host with one queue."""
    turn = Turn(lambda _act: None)
    vhost = VirtualHost("/", LocalQueues(turn))
    vhost.put_queue(QueueDefinition(spec))
    access = Access()
    access.put_user(User("guest"))
    access.permissions["guest", "/"] = EVERYTHING
    services = SimpleNamespace(
        runtime=SimpleNamespace(commits=None, background_tasks=None, traffic=Traffic()),
        access=access,
        vhosts={"/": vhost},
        replies=ReplyTargets(),
        metadata_of=lambda _user: None,
        interceptors=None,
        owners=Owners("a"),
        random_name=lambda: "",
        read_barrier=LOCAL_READ_BARRIER,
        limits=Limits(),
        quorum=QuorumConfig(),
        nodes={},
        observers=(),
        retained=None,
    )
    connection = SimpleNamespace(
        name="",
        traffic_labels=Connection.traffic_labels,
        output=OutputBuffer(Nowhere(), touch=turn.touch_output_buffer),
        waiting=WaitingRequests(cast(Any, None), no_continuation, DeferredBytes()),
        handshake=SimpleNamespace(frame_bytes_max=131_072),
    )
    session = AmqpSession(
        cast(Connection, connection),
        access.users["guest"],
        vhost,
        cast(Services, services),
        notify_cancel=True,
    )
    return Channel(1, session, cast(ChannelTable, None))


def publishes(
    *,
    confirmed: bool,
    spec: QueueSpec = PLAIN,
    varied: Callable[[int], dict[str, Any]] = lambda _number: {},
) -> Callable[[int], float]:
    """Runs into one queue, from the look-up of their route on, with properties of its own for each
    message."""

    def measure(run_messages: int) -> float:
        channel = open_channel(spec)
        if confirmed:
            channel.publisher.confirm()
        queue = channel.session.vhost.queues[QUEUE]
        contents = [content(1, BODY_BYTES, **varied(number)) for number in range(run_messages)]
        methods = [publish_method(1)] * run_messages
        likeness, _free = outline(raw_properties(contents[0]))
        batch = Publishes(1, methods, contents, sum(map(len, contents)), likeness)

        def call() -> int:
            for _ in range(RUNS):
                publish_batch(channel.publisher, batch, never, is_certain=True)
            if queue.purge() != RUNS * run_messages:
                raise AssertionError("messages are missing")
            return RUNS * run_messages

        return ns_per_message(call)

    return measure


def with_expiration(number: int) -> dict[str, Any]:
    """Expiration with one of ten values."""
    return {"expiration": str(60_000 + number % 10)}


def deliveries(run_messages: int) -> float:
    """Runs to one consumer, from handout to frames."""
    channel = open_channel()
    output = channel.session.output
    queue = channel.session.vhost.queues[QUEUE]
    holder = cast(Holder, SimpleNamespace(no_ack=True, queue=queue))
    envelopes = Envelopes(channel, "c0", channel.session.traffic.from_queues)
    origins = [channel.session.vhost.origin("", QUEUE)] * run_messages
    contents = [content(1, BODY_BYTES)] * run_messages

    def call() -> int:
        for _ in range(RUNS):
            sequences = range(1, run_messages + 1)
            envelopes.send(DeliveryBatch(holder, origins, contents, sequences, redelivered=False))
        if not output.pieces:
            raise AssertionError("nothing was sent")
        output.pieces.clear()
        return RUNS * run_messages

    return ns_per_message(call)


BENCHES: dict[str, Callable[[int], float]] = {
    "publish_batch": publishes(confirmed=False),
    "publish_batch, confirmed": publishes(confirmed=True),
    "publish_batch, ten expirations": publishes(confirmed=False, varied=with_expiration),
    "publish_batch, ten priorities": publishes(confirmed=False, varied=with_priority),
    "the same, x-max-priority 9": publishes(
        confirmed=False, varied=with_priority, spec=QueueSpec(QUEUE, max_priority=9)
    ),
    "the same, with TTL and both limits": publishes(
        confirmed=False,
        varied=with_priority,
        spec=QueueSpec(QUEUE, max_priority=9, arguments=ALL_LIMITS),
    ),
    "Envelopes.send": deliveries,
}
RUN_MESSAGES = (1, 10, 100, 1_000)
