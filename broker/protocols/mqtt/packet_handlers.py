"""Packets of an MQTT client: what each does on its connection, and what that costs.

Packets that take long are done in steps, or wait for definitions; nothing that came behind them is
acted on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from fluffle.broker.base.client_session import OUTGOING
from fluffle.broker.core.input_queue import EVENT_COST, TURN_COST_MAX, LongEvent
from fluffle.broker.core.pending_requests import WHOLE_CONNECTION, DeferredEvent
from fluffle.broker.core.route_lookup import LookupTooLong
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.protocols.mqtt.connect_methods import ConnectRequest
from fluffle.broker.protocols.mqtt.connection import Connection, ConnectionState
from fluffle.broker.protocols.mqtt.subscribe_methods import (
    SubscribeRequest,
    UnsubscribeRequest,
    filters_cost,
)
from fluffle.protocol.mqtt.codes import (
    MQTT_3_1_1,
    MQTT_5,
    InvalidPacket,
    PacketType,
    ReasonCode,
)
from fluffle.protocol.mqtt.hot import build_acks
from fluffle.protocol.mqtt.packets import (
    Ack,
    Auth,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Subscribe,
    Unsubscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import PropertyId
from fluffle.protocol.mqtt.reader import Acks, Event, Publishes, Violation

if TYPE_CHECKING:
    from fluffle.broker.protocols.mqtt.channel import Channel


PINGRESP = encode(Pingresp(), MQTT_5)
"""The same in all versions."""


def channel_of(connection: Connection) -> Channel:
    """The channel of a client that has been let in.  InvalidPacket if it has not been: it was asked
    for its response in a login."""
    if connection.channel is None:
        text = "a packet other than AUTH and DISCONNECT before CONNACK"
        raise InvalidPacket(ReasonCode.PROTOCOL_ERROR, text)
    return connection.channel


def on_connect(connection: Connection, packet: Connect) -> int:
    """Let the client in, now or later; what comes behind it waits."""
    connection.phase = ConnectionState.LOGIN
    terms, properties = connection.terms, packet.properties
    terms.version = packet.version
    terms.packet_bytes_max = properties.integer(PropertyId.MAXIMUM_PACKET_SIZE, 0)
    terms.wants_reasons = properties.values.get(PropertyId.REQUEST_PROBLEM_INFORMATION) != 0
    connection.handshake.mechanism = "none"
    connection.input.waiting.begin(WHOLE_CONNECTION)
    ConnectRequest(connection.server, connection, packet).begin()
    return EVENT_COST


def on_publishes(connection: Connection, batch: Publishes, mark: int = 0) -> int:
    """`mark`: of what has waited and is known to come late enough (`DeferredEvent`)."""
    channel = channel_of(connection)
    if connection.services.alarms.reason:
        connection.input.put_back([batch], mark)
        connection.read_holds.block()
        return TURN_COST_MAX
    incoming = channel.incoming
    is_certain = mark > 0 or connection.services.read_barrier.is_complete
    try:
        return incoming.take(batch, is_certain=is_certain)
    except LookupTooLong:
        steps = incoming.take_in_steps(batch, is_certain=is_certain)
        kept: Event | DeferredEvent[Event] = DeferredEvent(batch, mark) if mark else batch
        connection.input.work = LongEvent(kept, channel, steps)
        return 1


def on_deferred(connection: Connection, kept: DeferredEvent[Event]) -> int:
    """Act on what has waited; if all is known that was defined before it came, as one who
    knows."""
    waited = kept.event
    if isinstance(waited, Publishes) and connection.input.waiting.is_known(kept):
        return on_publishes(connection, waited, kept.mark)
    return PACKET_HANDLERS[type(waited)](connection, waited)


def on_acks(connection: Connection, acks: Acks) -> int:
    """A run of plain answers to messages, or of PUBREL."""
    channel = channel_of(connection)
    if acks.kind is PacketType.PUBACK:
        channel.outgoing.acknowledged(acks.packet_ids)
    elif acks.kind is PacketType.PUBREC:
        on_received(connection, channel, acks.packet_ids)
    elif acks.kind is PacketType.PUBREL:
        channel.incoming.on_pubrel(acks.packet_ids)
    else:
        channel.outgoing.on_pubcomp(acks.packet_ids)
    if any(channel.state.retained):
        channel.retained.go_on()
    return 1


def on_received(connection: Connection, channel: Channel, packet_ids: Sequence[int]) -> None:
    """PUBREC: have the client let go of what is known to have come, once that is noted.

    InvalidPacket for one of a message of QoS 1; those before it count.
    """
    outgoing, packets = channel.outgoing, channel.packets
    known, right_count = outgoing.known_of(packet_ids)
    is_wrong, packet_ids = right_count < len(packet_ids), packet_ids[:right_count]
    release = partial(send_releases, connection, channel, packet_ids)
    if not known or packets is None:
        outgoing.received(packet_ids)
        release()
    elif packets.goes_with_messages:
        outgoing.received(packet_ids)
        packets.keep(OUTGOING, known, release)  # mutant: MQ25
    else:  # noted first: the client would else hold a number for ever that is used again
        packets.keep(OUTGOING, known, partial(received_safely, channel, known, release))
    if is_wrong:
        raise InvalidPacket(ReasonCode.PROTOCOL_ERROR, "PUBREC of a message of QoS 1")


def received_safely(
    channel: Channel, packet_ids: Sequence[int], release: Callable[[], None]
) -> None:
    """Settle messages whose receipt is noted, and have the client release their identifiers."""
    if channel.is_open:
        known, _ = channel.outgoing.known_of(packet_ids)
        channel.outgoing.received(known)
        release()


def send_releases(connection: Connection, channel: Channel, packet_ids: Sequence[int]) -> None:
    """Send PUBREL for packets, of which some are unknown."""
    if not channel.is_open:
        return
    unknown = set(packet_ids).difference(channel.state.released)
    if not unknown or connection.terms.version < MQTT_5:
        connection.output.add(build_acks(PacketType.PUBREL, packet_ids))
        return
    start = 0
    for is_unknown, same in groupby(packet_ids, unknown.__contains__):
        stop = start + sum(1 for _ in same)
        code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if is_unknown else ReasonCode.SUCCESS
        connection.output.add(build_acks(PacketType.PUBREL, packet_ids[start:stop], code))
        start = stop


def on_ack(connection: Connection, ack: Ack) -> int:
    """Handle one answer to a message, with a code or properties."""
    if ack.code < ReasonCode.UNSPECIFIED_ERROR:
        return on_acks(connection, Acks(ack.kind, (ack.packet_id,)))
    channel = channel_of(connection)
    if ack.kind is PacketType.PUBACK:
        channel.outgoing.refused(ack.packet_id, 1)
    elif ack.kind is PacketType.PUBREC:
        channel.outgoing.refused(ack.packet_id, 2)
        if channel.packets is not None:
            channel.packets.forget(OUTGOING, (ack.packet_id,), ignore_done)
    elif ack.kind is PacketType.PUBREL:
        channel.incoming.on_pubrel((ack.packet_id,))
    else:
        channel.outgoing.on_pubcomp((ack.packet_id,))
    if any(channel.state.retained):
        channel.retained.go_on()
    return 1


def on_subscribe(connection: Connection, packet: Subscribe) -> int:
    channel = channel_of(connection)
    connection.input.waiting.begin(WHOLE_CONNECTION)
    done = partial(connection.go_on, packet)
    SubscribeRequest(channel, packet, connection.terms, done).begin()
    return filters_cost(packet.filters)


def on_unsubscribe(connection: Connection, packet: Unsubscribe) -> int:
    channel = channel_of(connection)
    connection.input.waiting.begin(WHOLE_CONNECTION)
    done = partial(connection.go_on, packet)
    UnsubscribeRequest(channel, packet, connection.terms, done).begin()
    return filters_cost(packet.filters)


def on_pingreq(connection: Connection, _packet: Pingreq) -> int:
    channel_of(connection)
    connection.output.add(PINGRESP)
    return 1


def on_disconnect(connection: Connection, packet: Disconnect) -> int:
    """The client leaves."""
    connection.leave(packet)
    connection.end_session()
    connection.finish()
    return EVENT_COST


def on_auth(connection: Connection, packet: Auth) -> int:
    """Take a step of an enhanced authentication, if the client has begun with one."""
    if connection.authentication is None:
        raise InvalidPacket(ReasonCode.PROTOCOL_ERROR, "AUTH without a method in CONNECT")
    connection.authentication.go_on(packet)
    return EVENT_COST


def on_violation(connection: Connection, violation: Violation) -> int:
    """Send the reason of a violation, if the client can receive one."""
    if connection.phase is not ConnectionState.CONNECT:
        raise InvalidPacket(violation.code, violation.text)
    version = connection.reader.version
    is_unknown = violation.code is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
    connection.terms.version = version or MQTT_3_1_1  # all understand the answer of this one
    has_code = version == MQTT_5 or violation.code is ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    if is_unknown or (violation.in_connect and has_code):
        connection.refuse_connect(violation.code, violation.text)
    else:
        connection.drop(violation.text)
    return EVENT_COST


PACKET_HANDLERS: Mapping[type, Callable[..., int]] = {
    Connect: on_connect,
    Publishes: on_publishes,
    Acks: on_acks,
    Ack: on_ack,
    Subscribe: on_subscribe,
    Unsubscribe: on_unsubscribe,
    Pingreq: on_pingreq,
    Disconnect: on_disconnect,
    Auth: on_auth,
    Violation: on_violation,
    DeferredEvent: on_deferred,
}
