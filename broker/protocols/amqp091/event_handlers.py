"""Event handlers of a connection: what each event of a read does, and what that costs.

Events that take long are done in steps, so that the others have their turns in between.  Nothing
else of the connection is acted on meanwhile, so its order holds.  What has begun is given up with
the channel or the connection that wanted it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from fluffle.broker.core.publisher import oversized
from fluffle.broker.core.route_lookup import LookupTooLong
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.protocols.amqp091 import connection_methods
from fluffle.broker.protocols.amqp091.basic_methods import on_acks
from fluffle.broker.protocols.amqp091.channel import Channel, once_settled
from fluffle.broker.protocols.amqp091.channels import VOUCHING
from fluffle.broker.protocols.amqp091.pending_requests import DeferredEvent, Occurrence
from fluffle.broker.protocols.amqp091.publish_methods import (
    on_publishes,
    take_in_steps,
)
from fluffle.protocol.events import (
    Acks,
    HeaderReceived,
    MessageStarted,
    MethodReceived,
    Oversized,
    Publishes,
    Violation,
)
from fluffle.protocol.methods import Method, decode_method, decode_method_in_steps
from fluffle.protocol.properties import OUTLINED_BYTES_MAX
from fluffle.protocol.spec import PROTOCOL_HEADER
from fluffle.protocol.steps import Steps, Unfinished

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.connection import Connection

TURN_COST_MAX = 2048
METHOD_COST = 16
COST_BYTES = 512
"""What the connections that have more to do than that may do in one turn, all together: a run costs
1, and 1 for each queue it is put into, methods as many, and 1 for so many bytes of messages that
they ask for, so that a flood holds up the others for some milliseconds only."""

DECLARING = (b"\x00\x28", b"\x00\x32")
"""The classes of exchanges and queues, …"""

READING = (b"\x00\x3c\x00\x14", b"\x00\x3c\x00\x46")
"""… and basic.consume and basic.get."""


class LongEvent:
    """An event that is being acted on."""

    __slots__ = ("channel", "event", "steps")

    def __init__(self, event: Occurrence, channel: Channel | None, steps: Steps[None]) -> None:
        self.event = event
        self.channel = channel
        """The work ends with this channel, if there is one."""
        self.steps = steps

    def go_on(self) -> bool:
        """Do one step; whether there are more."""
        try:
            next(self.steps)
        except StopIteration:
            return False
        return True


def on_header(connection: Connection, occurrence: HeaderReceived) -> int:
    if occurrence.header in (PROTOCOL_HEADER, connection_methods.HEADER_0_9):
        connection_methods.start(connection)
    else:
        connection.output.add(PROTOCOL_HEADER)
        connection.close_reason = "bad protocol header"
        connection.finish()
    return METHOD_COST


def channel_on(connection: Connection, number: int) -> Channel | None:
    """The channel that something came on; None when it does not count any more.

    Raises the error that is due when there is no such channel, or cannot be yet.
    """
    if number and connection.open_channels is not None:
        return connection.open_channels.find(number)
    connection_methods.refuse_untimely(connection.phase, number)
    return None


def on_batch(connection: Connection, batch: Publishes, mark: int = 0) -> int:
    """`mark`: of what has waited and is known to come late enough (`DeferredEvent`)."""
    channel = channel_on(connection, batch.channel)
    if channel is None:
        return 1
    if connection.services.alarms.reason:
        put_back(connection, mark, [batch])
        return block(connection)
    give_back, run, cost = partial(put_back, connection, mark), batch, 0
    if channel.incoming is not None:
        contents, outline = channel.incoming.intercepted(batch.contents, batch.outline)
        run = Publishes(batch.channel, batch.methods, contents, sum(map(len, contents)), outline)
        cost = len(contents)
    publisher, is_certain = channel.publisher, channel.is_certain
    try:
        return cost + on_publishes(publisher, run, give_back, is_certain=is_certain)
    except LookupTooLong:
        steps = take_in_steps(publisher, run, give_back, is_certain=is_certain)
        connection.work = LongEvent(DeferredEvent(batch, mark) if mark else batch, channel, steps)
        return 1


def on_deferred(connection: Connection, kept: DeferredEvent) -> int:
    """Act on what has waited; if all is known that was defined before it came, as one who knows."""
    event = kept.event
    channels = connection.open_channels
    channel = channels.opened(event.channel) if channels is not None else None
    if channel is None or channel.is_certain or not is_settled(connection, kept):
        return EVENT_HANDLERS[type(event)](connection, event)
    if isinstance(event, MethodReceived) and is_long(event):
        connection.work = LongEvent(kept, channel, decode_and_act(connection, event, channel))
        return METHOD_COST
    with certain(channel):
        if isinstance(event, Publishes):
            return on_batch(connection, event, kept.mark)
        return EVENT_HANDLERS[type(event)](connection, event)


@contextmanager
def certain(channel: Channel) -> Iterator[None]:
    """Methods that a channel is asked meanwhile came before something that is known by now."""
    channel.is_certain = True
    try:
        yield
    finally:
        channel.is_certain = False


def is_settled(connection: Connection, kept: DeferredEvent) -> bool:
    """Whether all is known here that was answered anywhere before it came."""
    return connection.waiting.read_barrier.confirmed >= kept.mark


def may_be_answered_too_soon(occurrence: Occurrence) -> bool:
    """Whether it asks something of definitions, and does nothing before it is refused."""
    event = occurrence.event if isinstance(occurrence, DeferredEvent) else occurrence
    if isinstance(event, Publishes):
        return True
    return isinstance(event, MethodReceived) and (
        event.payload[:2] in DECLARING or event.payload[:4] in READING
    )


def put_back(connection: Connection, mark: int, runs: list[Publishes]) -> None:
    """Act on these next, as on what has waited if they are of that."""
    if mark:
        connection.pending.extendleft(DeferredEvent(run, mark) for run in reversed(runs))
    else:
        connection.pending.extendleft(reversed(runs))


def block(connection: Connection) -> int:
    """A resource alarm is raised and this connection publishes: neither read it nor act."""
    connection.read_holds.block()
    return TURN_COST_MAX


def on_message_started(connection: Connection, occurrence: MessageStarted) -> int:
    """The rest of it is only read if it may be published at all."""
    channel = channel_on(connection, occurrence.channel)
    if channel is not None and connection.services.alarms.reason:
        return block(connection)
    return 1


def on_settlements(connection: Connection, acks: Acks) -> int:
    channel = channel_on(connection, acks.channel)
    if channel is not None:
        try:
            on_acks(channel, acks)
        except Unfinished as rest:
            connection.work = LongEvent(acks, channel, rest.steps)
    return 1


def on_oversized(connection: Connection, occurrence: Oversized) -> int:
    if channel_on(connection, occurrence.channel) is not None:
        limit = connection.services.limits.message_bytes_max
        raise oversized(occurrence.body_bytes, limit)
    return 1


def on_violation(_connection: Connection, occurrence: Violation) -> int:
    raise occurrence.error


def on_method(connection: Connection, occurrence: MethodReceived) -> int:
    """Decode a method and give it to the connection or to its channel."""
    if is_long(occurrence):
        connection.work = LongEvent(occurrence, None, decode_and_act(connection, occurrence))
        return METHOD_COST
    return act_on(connection, occurrence, decode_method(occurrence.payload))


def is_long(occurrence: MethodReceived) -> bool:
    """Whether it is decoded in steps."""
    return len(occurrence.payload) > OUTLINED_BYTES_MAX


def decode_and_act(
    connection: Connection, occurrence: MethodReceived, channel: Channel | None = None
) -> Steps[None]:
    """Act as `on_method` does, for a long one; as one who knows enough on the `channel`, if it is
    given."""
    method = yield from decode_method_in_steps(occurrence.payload)
    with certain(channel) if channel is not None else nullcontext():
        act_on(connection, occurrence, method)


def act_on(connection: Connection, occurrence: MethodReceived, method: Method) -> int:
    """Give a method to the connection or to its channel; what that costs."""
    sent_bytes = connection.output.sent_bytes
    if occurrence.channel == 0:
        connection_methods.on_method(connection, method)
    elif connection.open_channels is not None:
        channel = connection.open_channels.opened(occurrence.channel)
        if channel is not None and channel.settlements.pending and type(method) in VOUCHING:
            act_once_settled(connection, channel, occurrence, method)
            return METHOD_COST
        try:
            connection.open_channels.on_method(occurrence.channel, method)
        except Unfinished as rest:
            connection.work = LongEvent(occurrence, channel, rest.steps)
    else:
        connection_methods.refuse_untimely(connection.phase, occurrence.channel)
    asked_bytes = connection.output.sent_bytes - sent_bytes
    connection.is_asking = asked_bytes > 0
    return METHOD_COST + asked_bytes // COST_BYTES


def act_once_settled(
    connection: Connection, channel: Channel, occurrence: MethodReceived, method: Method
) -> None:
    """Act on a method of a channel as on one that comes once all is so that was settled there."""
    once_settled(channel, method, ignore_done)
    if not connection.waiting.keeps(occurrence):
        connection.pending.appendleft(occurrence)


EVENT_HANDLERS: dict[type[Occurrence], Callable[..., int]] = {
    HeaderReceived: on_header,
    Publishes: on_batch,
    MessageStarted: on_message_started,
    Acks: on_settlements,
    MethodReceived: on_method,
    Oversized: on_oversized,
    Violation: on_violation,
    DeferredEvent: on_deferred,
}
