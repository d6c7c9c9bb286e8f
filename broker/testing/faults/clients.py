"""Connections and consumers of clients: which there are, and what goes wrong with them.

A connection is named by its name, by the one that its client has given it, or by `next`: then the
next client that comes, to whichever virtual host, has it so from its first byte on.  A consumer is
named by its tag, or by the queue that it alone consumes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import ConnectionForced, NotFound, PreconditionFailed, SyntaxFailure
from fluffle.broker.core.client import (
    channel_row,
    connection_row,
    consumer_row,
    listed_channels,
)
from fluffle.broker.core.connections import close_connection
from fluffle.broker.core.consumer import Subscription
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.protocols.amqp091.channel import Channel
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import (
    Consumer,
    DeliveryBatch,
    Holder,
    Outcome,
    OverdueDeliveries,
    QueueHandle,
    Sink,
    TimedOutDeliveries,
)
from fluffle.broker.testing.faults.frames import HEADER_BYTES, START_OK, frames_of
from fluffle.broker.testing.faults.tapped_transport import (
    NEXT,
    REASON,
    FaultScope,
    TappedClient,
    TappedConnection,
)
from fluffle.protocol.methods import Connection as ConnectionMethods
from fluffle.protocol.methods import decode_method, field_table
from fluffle.protocol.spec import ProtocolError


def client_properties(data: bytes) -> dict[str, Any]:
    """Client properties of connection.start-ok, in the bytes it has sent from the protocol header
    on."""
    for frame in frames_of(data[HEADER_BYTES:]):
        if frame.method == START_OK:
            try:
                method = decode_method(frame.payload)
            except ProtocolError:
                return {}  # the connection says what is wrong with it
            assert isinstance(method, ConnectionMethods.StartOk)
            return plain(field_table(method.client_properties))
    return {}


def list_connections(scope: FaultScope) -> Row:
    """Open connections with their channels and consumers, as `fluffle` shows them."""
    return {"connections": [row_of(tap) for tap in scope.taps()]}


def channels_of(tap: TappedConnection) -> tuple[Channel, ...]:
    """Return the open channels of a connection; that of a client of MQTT has what faults need of
    one."""
    return cast("tuple[Channel, ...]", tuple(tap.connection.channels))


def row_of(tap: TappedConnection) -> Row:
    connection, node = tap.connection, tap.connection.services.owners.node
    channels, listed = channels_of(tap), listed_channels(connection)
    return {
        **connection_row(node, connection),
        "client_id": connection.handshake.client_id,
        "client_properties": client_properties(tap.introduction),
        "channels": [channel_row(node, connection, channel) for channel in listed],
        "consumers": [
            consumer_row(connection, channel, subscription.consumer)
            for channel in channels
            for subscription in channel.subscriptions.values()
        ],
        "frozen": tap.is_frozen,
    }


def show_connection(scope: FaultScope, *, connection: str) -> Row:
    """Row of a connection, found by its name, by the client's name for it, or by the client
    identifier of MQTT."""
    return row_of(scope.tap(connection))


def close(
    scope: FaultScope, *, connection: str, text: str = REASON, code: int | None = None
) -> None:
    """Close a connection like an operator: connection.close with 320 CONNECTION_FORCED and `text`.

    A client of MQTT 5.0 gets DISCONNECT, with a reason code as 0x8b, or else with 0x98.
    """
    tap = scope.tap(connection)
    if code is None:
        close_connection(tap.connection, ConnectionForced(text))
    else:
        disconnect(tap, code, text)


def disconnect(tap: TappedConnection, code: int, text: str) -> None:
    """Close a connection of MQTT with a reason code.  SyntaxFailure."""
    from fluffle.broker.protocols.mqtt.connection import Connection as MqttConnection  # noqa: PLC0415  if it is used
    from fluffle.protocol.mqtt.codes import BROKER_CODES, PacketType, ReasonCode  # noqa: PLC0415  as above

    codes = BROKER_CODES[PacketType.DISCONNECT]
    if not isinstance(tap.connection, MqttConnection) or code not in codes:
        there = ", ".join(f"{each:#x} ({each.name})" for each in sorted(codes))
        raise SyntaxFailure(f"'code' is for clients of MQTT, and one of {there}")
    tap.connection.disconnect(ReasonCode(code), text)


def reset(scope: FaultScope, *, connection: str) -> None:
    """Reset a connection: no goodbye, only TCP's reset."""
    on(scope, connection, "is reset", TappedConnection.reset)


def freeze_connection(scope: FaultScope, *, connection: str) -> None:
    """Read and write nothing; the socket stays open, and heartbeats stop."""
    on(scope, connection, "is frozen", partial(freeze_tap, scope))


def freeze_tap(scope: FaultScope, tap: TappedConnection) -> None:
    """Until that ends, or its client is gone."""
    tap.freeze(scope)
    what = f"connection '{tap.connection.name}' is frozen"
    scope.begin(tap, what, partial(tap.thaw, scope))
    tap.when_lost.append(partial(scope.end, tap))


def thaw_connection(scope: FaultScope, *, connection: str) -> None:
    """Go on where it stopped."""
    scope.end(scope.tap(connection))


def cut_after(scope: FaultScope, *, connection: str, bytes: int, sent_by: str = "broker") -> None:
    """Cut it once so many more bytes have passed, though that is in the midst of a frame.

    Those that are counted are sent by the `broker` or by the `client`.
    """
    if sent_by not in ("broker", "client") or bytes < 0:
        raise SyntaxFailure("'sent_by' must be broker or client, and 'bytes' not negative")
    what = f"is cut after {bytes} bytes of the {sent_by}"
    on(scope, connection, what, partial(TappedConnection.cut_after, count=bytes, sent_by=sent_by))


def on(scope: FaultScope, name: str, what: str, plan: Callable[[TappedConnection], None]) -> None:
    """Do it to a connection, or to the next."""
    if name != NEXT:
        plan(scope.tap(name))
        return
    plans = scope.acceptor.plans

    def come(tap: TappedConnection) -> None:
        scope.end(come)
        plan(tap)

    def drop() -> None:
        if come in plans:
            plans.remove(come)

    plans.append(come)
    scope.begin(come, f"connection {len(plans)} from now {what}", drop)


class FoundConsumer(NamedTuple):
    """A consumer, and where it is."""

    connection: TappedClient
    channel: Channel
    subscription: Subscription

    @property
    def consumer(self) -> Consumer:
        return self.subscription.consumer

    @property
    def row(self) -> Row:
        return consumer_row(self.connection, self.channel, self.consumer)


def find_consumer(scope: FaultScope, name: str) -> FoundConsumer:
    """NotFound; PreconditionFailed if there are several."""
    consumers = [
        FoundConsumer(tap.connection, channel, subscription)
        for tap in scope.taps()
        for channel in channels_of(tap)
        for subscription in channel.subscriptions.values()
    ]
    found = [each for each in consumers if name in (each.consumer.tag, each.consumer.queue.name)]
    if not found:
        there = ", ".join(repr(each.consumer.tag) for each in consumers) or "none"
        raise NotFound(f"no consumer '{name}', but: {there}")
    if len(found) > 1:
        tags = ", ".join(repr(each.consumer.tag) for each in found)
        raise PreconditionFailed(f"'{name}' means several consumers: {tags}")
    return found[0]


class FrozenSink:
    """A `Sink` that takes nothing: what has been handed out before goes on to the other."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def room(self, _consumer: Consumer) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sink, name)


def show_consumer(scope: FaultScope, *, consumer: str) -> Row:
    """Where it is and what it holds, as `fluffle` shows it."""
    return find_consumer(scope, consumer).row


def cancel_consumer(scope: FaultScope, *, consumer: str) -> None:
    """End it as if its queue had moved: a client that understands that hears basic.cancel.

    What it holds stays unacknowledged.
    """
    found = find_consumer(scope, consumer)
    end_consumer(found.channel, found.subscription)


def end_consumer(channel: Channel, subscription: Subscription) -> None:
    channel.session.detach(subscription.consumer)
    subscription.cancelled(subscription.consumer)


def freeze_consumer(scope: FaultScope, *, consumer: str) -> None:
    """Deliver nothing more to it."""
    consumer_ = find_consumer(scope, consumer).consumer
    sink = consumer_.sink
    if isinstance(sink, FrozenSink):
        return
    consumer_.sink = cast(Sink, FrozenSink(sink))
    if not isinstance(consumer_.queue, Queue):
        consumer_.parked = True  # else it need not be woken, and its leader must know
        consumer_.queue.wake(consumer_)

    def end() -> None:
        consumer_.sink = sink
        if consumer_.parked:
            consumer_.queue.wake(consumer_)

    what = f"consumer '{consumer_.tag}' of queue '{consumer_.queue.name}' is frozen"
    scope.begin(consumer_, what, end)


def thaw_consumer(scope: FaultScope, *, consumer: str) -> None:
    """Deliver to it again."""
    scope.end(find_consumer(scope, consumer).consumer)


def redeliver_consumer(scope: FaultScope, *, consumer: str) -> Row:
    """Deliver again what it holds; how many messages that are.

    So a quorum queue of a cluster does when it has not heard for a while of the node where the
    consumer is.  That client does not know of it: what it still acknowledges counts for nothing.
    """
    found = find_consumer(scope, consumer)
    if not isinstance(found.connection, Connection):
        raise PreconditionFailed(
            "a client of MQTT gets a message again by 'packets.duplicate_next'"
        )
    count = give_back(found.channel, lambda delivery_batch: delivery_batch.holder is found.consumer)
    return {"messages": count}


class FormerHolder:
    """Holds what its queue has given to others: a `Holder`, and of the queue what settles."""

    no_ack = False
    timeout_ms = None

    def __init__(self, name: str) -> None:
        self.name = name
        """Name of the queue: the timeline shows where an acknowledgement was in vain."""

    @property
    def queue(self) -> QueueHandle:
        return cast(QueueHandle, self)

    def deliver_ready(self) -> None:
        """Do nothing: this consumer is sent nothing new."""

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> None:
        """Do nothing: the outcome does not matter any more."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("this consumer is sent nothing")

    def took(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("this consumer is sent nothing")

    def settled(self, count: int) -> None:
        """Do nothing: no delivery waits for room."""

    def overdue(self, late: OverdueDeliveries) -> None:
        raise AssertionError("it holds nothing")

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        raise AssertionError("it holds nothing")


def give_back(channel: Channel, is_meant: Callable[[DeliveryBatch], bool]) -> int:
    """Have queues hand out again what is unacknowledged on a channel; how many messages.

    `is_meant` is asked of each run, which goes back whole; its tags stay known to the channel.
    """
    runs = channel.unacked.open_runs()
    meant = [run for run in runs if not isinstance(run.holder, FormerHolder) and is_meant(run)]
    count = 0
    for delivery_batch in meant:
        for start, stop in tuple(delivery_batch.unsettled()):
            delivery_batch.holder.queue.settle(delivery_batch, start, stop, Outcome.SUSPECTED)
            count += stop - start
        delivery_batch.holder = cast(Holder, FormerHolder(delivery_batch.holder.queue.name))
    return count


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "connections.list": list_connections,
    "connections.show": show_connection,
    "connections.close": close,
    "connections.reset": reset,
    "connections.freeze": freeze_connection,
    "connections.thaw": thaw_connection,
    "connections.cut_after": cut_after,
    "consumers.show": show_consumer,
    "consumers.cancel": cancel_consumer,
    "consumers.freeze": freeze_consumer,
    "consumers.thaw": thaw_consumer,
    "consumers.redeliver": redeliver_consumer,
}
