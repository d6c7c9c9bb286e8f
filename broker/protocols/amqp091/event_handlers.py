"""Event handlers of a connection: what each event of a read does, and what that costs.

Events that take long are done in steps, so that the others have their turns in between.  Nothing
else of the connection is acted on meanwhile, so its order holds.  What has begun is given up with
the channel or the connection that wanted it.

What is done with a batch of basic.publish frames is the publisher's (`core.publisher`); a hot file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import groupby, repeat
from typing import TypeAlias

from fluffle.broker.base.errors import BrokerError, NotImplementedHere
from fluffle.broker.core.input_queue import COST_BYTES, EVENT_COST, TURN_COST_MAX, LongEvent
from fluffle.broker.core.pending_requests import DeferredEvent
from fluffle.broker.core.property_facts import (
    read_facts_in_steps,
    read_lifetimes,
    remember_facts,
)
from fluffle.broker.core.publisher import (
    COPIES_MAX,
    ROUTE_COST,
    Publisher,
    messages_at_once,
    oversized,
)
from fluffle.broker.core.route_lookup import (
    LOOKUP_STOPS_MAX,
    CachedRoute,
    LookupTooLong,
    RouteCache,
)
from fluffle.broker.metadata.metadata import UnconfirmedAbsence, ignore_done
from fluffle.broker.protocols.amqp091 import connection_methods
from fluffle.broker.protocols.amqp091.basic_methods import ack_tags
from fluffle.broker.protocols.amqp091.channel import (
    Channel,
    DecodedMethod,
    InputEvent,
    once_settled,
)
from fluffle.broker.protocols.amqp091.connection import VOUCHING, Connection
from fluffle.broker.routing.router import RouteInputs
from fluffle.protocol.methods import (
    Basic,
    Method,
    decode_method,
    decode_method_in_steps,
)
from fluffle.protocol.properties import OUTLINED_BYTES_MAX, raw_properties
from fluffle.protocol.reader import (
    Acks,
    HeaderReceived,
    MessageStarted,
    MethodReceived,
    Oversized,
    Publishes,
    Violation,
)
from fluffle.protocol.spec import PROTOCOL_HEADER, ProtocolError
from fluffle.protocol.steps import Steps, Unfinished

OTHER_PROTOCOLS = {
    b"AMQP\x00\x01\x00\x00": "AMQP 1.0",
    b"AMQP\x03\x01\x00\x00": "AMQP 1.0",
    b"GET ": "HTTP",
    b"POST ": "HTTP",
}
"""Protocols by how their clients begin; AMQP 1.0 with SASL and without."""
TLS_RECORD = b"\x16\x03"
"""How clients of TLS begin, of whatever version."""
CONNECT_OCTET = 0x10
MQTT_NAMES = (b"\x00\x04MQ", b"\x00\x06MQ")
"""Begins of the names that CONNECT of MQTT has, behind a length of one to three octets."""

KINDS_MAX = 256
"""Most different basic.publish frames looked up together, for a few milliseconds."""

DRAWN_MAX = 256
"""Most messages routed at random together, for a few milliseconds."""

METHOD_AT = 7
"""Where the payload of a method frame begins."""


PutBack: TypeAlias = Callable[[list[Publishes]], None]
"""Function that puts batches back, to be taken next, one by one."""


def on_header(connection: Connection, event: HeaderReceived) -> int:
    if event.header in (PROTOCOL_HEADER, connection_methods.HEADER_0_9):
        connection_methods.start(connection)
    else:
        connection.output.add(PROTOCOL_HEADER)
        connection.close_reason = wrong_port_reason(event.header)
        connection.finish()
    return EVENT_COST


def wrong_port_reason(header: bytes) -> str:
    """Return who has come to the wrong port, by a header that is not that of AMQP 0-9-1."""
    if header.startswith(TLS_RECORD):
        return "a client of TLS at a port for AMQP 0-9-1 without TLS"
    return f"{client_of(header)} at a port for AMQP 0-9-1"


def client_of(header: bytes) -> str:
    """Return whose protocol begins with a header that is not that of AMQP 0-9-1."""
    if header[0] == CONNECT_OCTET and any(name in header for name in MQTT_NAMES):
        return "a client of MQTT"
    for greeting, protocol in OTHER_PROTOCOLS.items():
        if header.startswith(greeting):
            return f"a client of {protocol}"
    return "bad protocol header"


def channel_on(connection: Connection, number: int) -> Channel | None:
    """The channel that something came on; None when it does not count any more.

    Raises the error that is due when there is no such channel, or cannot be yet.
    """
    if number and connection.open_channels is not None:
        return connection.open_channels.find(number)
    connection_methods.refuse_untimely(connection.phase, number)
    return None


def on_publishes(connection: Connection, batch: Publishes, mark: int = 0) -> int:
    """`mark`: of what has waited and is known to come late enough (`DeferredEvent`)."""
    channel = channel_on(connection, batch.channel)
    if channel is None:
        return 1
    if connection.services.alarms.reason:
        connection.input.put_back([batch], mark)
        return block(connection)
    messages, cost, put_back = batch, 0, connection.input.put_back
    give_back = partial(put_back, mark=mark) if mark else put_back
    if channel.incoming is not None:
        contents, outline = channel.incoming.intercepted(batch.contents, batch.outline)
        messages = Publishes(
            batch.channel, batch.methods, contents, sum(map(len, contents)), outline
        )
        cost = len(contents)
    publisher, is_certain = channel.publisher, channel.is_certain
    try:
        return cost + publish_batch(publisher, messages, give_back, is_certain=is_certain)
    except LookupTooLong:
        steps = take_in_steps(publisher, messages, give_back, is_certain=is_certain)
        event = DeferredEvent[InputEvent](batch, mark) if mark else batch
        connection.input.work = LongEvent(event, channel, steps)
        return 1


def on_deferred(connection: Connection, kept: DeferredEvent[InputEvent]) -> int:
    """Act on what has waited; if all is known that was defined before it came, as a channel does
    that knows."""
    event = kept.event
    channels = connection.open_channels
    channel = channels.opened(event.channel) if channels is not None else None
    if channel is None or channel.is_certain or not connection.waiting.is_known(kept):
        return EVENT_HANDLERS[type(event)](connection, event)
    if isinstance(event, MethodReceived) and is_long(event):
        steps = decode_and_act(connection, event, channel)
        connection.input.work = LongEvent(kept, channel, steps)
        return EVENT_COST
    with certain(channel):
        if isinstance(event, Publishes):
            return on_publishes(connection, event, kept.mark)
        return EVENT_HANDLERS[type(event)](connection, event)


@contextmanager
def certain(channel: Channel) -> Iterator[None]:
    """Methods that a channel is asked meanwhile came before something that is known by now."""
    channel.is_certain = True
    try:
        yield
    finally:
        channel.is_certain = False


def block(connection: Connection) -> int:
    """A resource alarm is raised and this connection publishes: neither read it nor act."""
    connection.read_holds.block()
    return TURN_COST_MAX


def on_message_started(connection: Connection, event: MessageStarted) -> int:
    """The rest of it is only read if it may be published at all."""
    channel = channel_on(connection, event.channel)
    if channel is not None and connection.services.alarms.reason:
        return block(connection)
    return 1


def on_acks(connection: Connection, acks: Acks) -> int:
    channel = channel_on(connection, acks.channel)
    if channel is not None:
        try:
            ack_tags(channel, acks)
        except Unfinished as rest:
            connection.input.work = LongEvent(acks, channel, rest.steps)
    return 1


def on_oversized(connection: Connection, event: Oversized) -> int:
    if channel_on(connection, event.channel) is not None:
        limit = connection.services.limits.message_bytes_max
        raise oversized(event.body_bytes, limit)
    return 1


def on_violation(_connection: Connection, event: Violation) -> int:
    raise event.error


def on_method(connection: Connection, event: MethodReceived) -> int:
    """Decode a method and give it to the connection or to its channel."""
    if is_long(event):
        connection.input.work = LongEvent(event, None, decode_and_act(connection, event))
        return EVENT_COST
    return act_on(connection, event, decode_method(event.payload))


def on_decoded_method(connection: Connection, event: DecodedMethod) -> int:
    return act_on(connection, event, event.method)


def is_long(event: MethodReceived) -> bool:
    """True if it is decoded in steps."""
    return len(event.payload) > OUTLINED_BYTES_MAX


def decode_and_act(
    connection: Connection, event: MethodReceived, channel: Channel | None = None
) -> Steps[None]:
    """Act as `on_method` does, for a long one; as one who knows enough on the `channel`, if it is
    given."""
    method = yield from decode_method_in_steps(event.payload)
    with certain(channel) if channel is not None else nullcontext():
        act_on(connection, event, method)


def act_on(connection: Connection, event: MethodReceived | DecodedMethod, method: Method) -> int:
    """Give a method to the connection or to its channel; what that costs."""
    sent_bytes = connection.output.sent_bytes
    if event.channel == 0:
        connection_methods.on_method(connection, method)
    elif connection.open_channels is not None:
        channel = connection.open_channels.opened(event.channel)
        if channel is not None and channel.settlements.pending and type(method) in VOUCHING:
            act_once_settled(connection, channel, event, method)
            return EVENT_COST
        try:
            connection.open_channels.on_method(event.channel, method)
        except Unfinished as rest:
            connection.input.work = LongEvent(event, channel, rest.steps)
    else:
        connection_methods.refuse_untimely(connection.phase, event.channel)
    asked_bytes = connection.output.sent_bytes - sent_bytes
    connection.input.is_asking = asked_bytes > 0
    return EVENT_COST + asked_bytes // COST_BYTES


def act_once_settled(
    connection: Connection,
    channel: Channel,
    event: MethodReceived | DecodedMethod,
    method: Method,
) -> None:
    """Act on a method of a channel as on one that comes once all is so that was settled there."""
    once_settled(channel, method, ignore_done)
    connection.input.act_again(event)


# basic.publish


def publish_batch(
    publisher: Publisher, batch: Publishes, put_back: PutBack, *, is_certain: bool
) -> int:
    """Take a batch of messages; return its cost: for each routed batch, its queues, and new routes.

    One that cannot be sorted, or has too much in it for one turn, is put back in parts.
    `is_certain`: all is known that was defined before it came.  LookupTooLong for one that
    `take_in_steps` must take.
    """
    routes = publisher.session.route_cache
    found_count, routes.stops_left = routes.found_count, LOOKUP_STOPS_MAX
    cost = take(publisher, batch, put_back, is_certain=is_certain)
    return cost + ROUTE_COST * (routes.found_count - found_count)


def take(publisher: Publisher, batch: Publishes, put_back: PutBack, *, is_certain: bool) -> int:
    """Take a batch as `publish_batch` does, and return the cost without new routes."""
    session = publisher.session
    methods = batch.methods
    route = session.route_cache.find(methods[0], search_route)
    facts = session.facts.get(batch.outline)
    if facts is None:
        if len(batch.outline) > OUTLINED_BYTES_MAX:
            raise LookupTooLong
        facts = remember_facts(session.facts, batch.outline)
    lifetimes_ms = read_lifetimes(batch.contents) if facts.expires else None
    if isinstance(lifetimes_ms, list) and len(lifetimes_ms) < len(methods):
        put_back(parted(batch, len(lifetimes_ms)))
        return 1
    if methods.count(methods[0]) == len(methods):
        if route.needs is not None and (parts := split_for_routing(route.needs, batch)):
            put_back(parts)
            return 1
        if len(methods) * len(route.targets) > COPIES_MAX and len(methods) > 1:
            put_back(spans_of(batch, messages_at_once(route.targets)))
            return 1
        return publisher.publish_batch(route, facts, batch, lifetimes_ms, is_certain=is_certain)
    kinds = dict.fromkeys(methods)
    if len(kinds) > KINDS_MAX:
        put_back(spans_of(batch, KINDS_MAX))
        return 1
    found, refusal = find_routes(session.route_cache, kinds)
    if not is_certain and (refusal or any(each.misses for each in found.values())):
        raise UnconfirmedAbsence
    cost = publisher.publish_mixed(methods, found, facts, batch, lifetimes_ms)
    if cost is None:
        put_back(batches_alike(batch, repeat(batch.outline)))
        return 1
    if refusal is not None:
        raise refusal
    return cost


def take_in_steps(
    publisher: Publisher, batch: Publishes, put_back: PutBack, *, is_certain: bool
) -> Steps[None]:
    """Take messages as `take` does, whatever it takes to find where they go.

    Those that do not go together are put back in parts, so that nothing has been done of what turns
    out to be refused, or to be in doubt.
    """
    session = publisher.session
    if len(parts := batches_alike(batch, repeat(batch.outline))) > 1:
        put_back(parts)
        return
    route = session.route_cache.current(batch.methods[0])
    if route is None:
        route = yield from search_route(session.route_cache, batch.methods[0])
    if route.needs is not None and (parts := split_for_routing(route.needs, batch)):
        put_back(parts)
        return
    facts = session.facts.get(batch.outline)
    if facts is None:
        facts = yield from read_facts_in_steps(batch.outline)
    lifetimes_ms = read_lifetimes(batch.contents) if facts.expires else None
    if isinstance(lifetimes_ms, list) and len(lifetimes_ms) < len(batch.methods):
        put_back(parted(batch, len(lifetimes_ms)))
        return
    yield from publisher.publish_batch_in_steps(
        route, facts, batch, lifetimes_ms, is_certain=is_certain
    )


# The routes that basic.publish frames mean


def search_route(routes: RouteCache, method_frame: bytes) -> Steps[CachedRoute]:
    """Decode a basic.publish frame and find where its messages go.

    Raises NotImplementedHere for immediate, NotFound and AccessRefused for the exchange.
    """
    method = decode_method(method_frame[METHOD_AT:-1])
    assert isinstance(method, Basic.Publish)
    if method.immediate:
        raise NotImplementedHere("immediate=true")
    return (
        yield from routes.search(
            method_frame, method.exchange, method.routing_key, mandatory=method.mandatory
        )
    )


def find_routes(
    routes: RouteCache, kinds: Iterable[bytes]
) -> tuple[dict[bytes, CachedRoute], BrokerError | ProtocolError | None]:
    """Routes by basic.publish frame, up to the first that is refused, and what is said to that.

    `kinds` are the frames, each once.
    """
    found: dict[bytes, CachedRoute] = {}
    for method in kinds:
        try:
            route = routes.find(method, search_route)
            if not route.is_admitted:
                routes.admit(route)
        except (BrokerError, ProtocolError) as refusal:
            return found, refusal
        found[method] = route
    return found, None


# Parts of a batch


def split_for_routing(needs: RouteInputs, batch: Publishes) -> list[Publishes]:
    """The parts of a batch that can be routed one by one; none if the whole of it can.

    Who asks for properties wants all of them: for him they are their own outline.
    """
    if needs.property_bindings and set(map(raw_properties, batch.contents)) != {batch.outline}:
        return batches_alike(batch, map(raw_properties, batch.contents))
    if needs.is_drawn and len(batch.methods) > DRAWN_MAX:
        return spans_of(batch, DRAWN_MAX)
    return []


def spans_of(batch: Publishes, count: int) -> list[Publishes]:
    """Split a batch into parts of `count` messages."""
    starts = range(0, len(batch.methods), count)
    return [part_of(batch, start, start + count, batch.outline) for start in starts]


def batches_alike(batch: Publishes, outlines: Iterable[bytes]) -> list[Publishes]:
    """Split a batch where the basic.publish frame changes, or the outline."""
    batches, start = [], 0
    for (_method, outline), same in groupby(zip(batch.methods, outlines, strict=False)):
        stop = start + sum(1 for _ in same)
        batches.append(part_of(batch, start, stop, outline))
        start = stop
    return batches


def parted(batch: Publishes, at: int) -> list[Publishes]:
    """Split a batch in front of the message at that place, which is refused."""
    spans = (0, at), (at, len(batch.methods))
    return [part_of(batch, start, stop, batch.outline) for start, stop in spans]


def part_of(batch: Publishes, start: int, stop: int, outline: bytes) -> Publishes:
    """The messages from `start` up to `stop`, which have that outline."""
    contents = batch.contents[start:stop]
    size_bytes = sum(map(len, contents))
    return Publishes(batch.channel, batch.methods[start:stop], contents, size_bytes, outline)


EVENT_HANDLERS: dict[type, Callable[..., int]] = {
    HeaderReceived: on_header,
    Publishes: on_publishes,
    MessageStarted: on_message_started,
    Acks: on_acks,
    MethodReceived: on_method,
    DecodedMethod: on_decoded_method,
    Oversized: on_oversized,
    Violation: on_violation,
    DeferredEvent: on_deferred,
}
