"""Events of connections, channels and consumers that come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING

from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.event_publisher import (
    ACTOR,
    EventHeaders,
    EventPublisher,
    PublishingMetadata,
    listed,
    pid,
)
from fluffle.broker.metadata.change import Name
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.journal import Owner
from fluffle.broker.queues.queue_api import Consumer
from fluffle.protocol.terms import atom, term
from fluffle.protocol.wire import TYPE_NAMES, Field, FieldTable

if TYPE_CHECKING:
    from fluffle.broker.alarms import Alarms
    from fluffle.broker.base.clock import Clock
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.client import Client, ObservedChannel, ObservedSession
    from fluffle.broker.vhosts.vhost import VirtualHost

UNKNOWN_OF_TLS = (
    *("peer_cert_subject", "peer_cert_issuer", "peer_cert_validity"),
    *("ssl_cipher", "ssl_hash", "ssl_key_exchange", "ssl_protocol"),
)
"""Fields of events that RabbitMQ fills for connections with TLS, and which are empty here."""

DIRECT = "direct"
"""The kind of clients that have no connection of their own: requests."""

DIRECT_CLIENT: Mapping[str, object] = {
    **dict.fromkeys(("host", "port", "peer_host", "peer_port"), "unknown"),
    "client_properties": [],
}
"""Fields that all these events of RabbitMQ have."""


class ClientEvents:
    """An `Observer` of one node.  `find` gives the value of a fact that there is."""

    __slots__ = ("_closings", "_find", "announcer")

    def __init__(self, announcer: EventPublisher, find: Callable[[Name], object]) -> None:
        self.announcer = announcer
        self._find = find
        self._closings: dict[Owner, EventHeaders] = {}
        """Headers of the closing events of the connections that are open."""

    def metadata(self, inner: Metadata, by: ChangedBy) -> Metadata:
        """Definitions whose changes are announced, with the client that asks for them."""
        return PublishingMetadata(
            inner, self.announcer, self._find, actor=by.actor, settler=by.settler
        )

    # Connections

    def logged_in(self, connection: Client, mechanism: str, name: str) -> None:
        self.announcer.publish("user.authentication.success", login(connection, mechanism, name))

    def refused(self, connection: Client, mechanism: str, name: str, reason: str) -> None:
        headers = login(connection, mechanism, name)
        if connection.kind:
            headers = {**headers, "error": reason}
        self.announcer.publish("user.authentication.failure", headers)

    def opened(self, connection: Client, session: ObservedSession) -> None:
        closing = {
            "pid": pid(session.owner),
            "name": session.name,
            "node": self.announcer.node,
            **({} if connection.kind == DIRECT else said_by(connection)),
        }
        protocol = {"protocol": erlang_version(connection.protocol)}
        headers = {
            **closing,
            **(
                {**DIRECT_CLIENT, **protocol}
                if connection.kind == DIRECT
                else agreed_with(connection)
            ),
            "user": session.user.name,
            "vhost": session.vhost.name,
            **({"type": connection.kind} if connection.kind else {}),
            "connected_at": self.announcer.now_ms(),
            ACTOR: session.user.name,
        }
        self._closings[session.owner] = closing if connection.kind else headers
        self.announcer.publish("connection.created", headers)

    def closed(self, session: ObservedSession) -> None:
        self.announcer.publish("connection.closed", self._closings.pop(session.owner))

    # Channels and consumers

    def channel_opened(self, channel: ObservedChannel) -> None:
        """Announce the channel, though not its messages."""
        session, number = channel.session, channel.number
        if not number:
            return
        headers = {
            "pid": pid(session.owner, number),
            "connection": pid(session.owner),
            "name": f"{session.name} ({number})",
            "number": number,
            "user": session.user.name,
            "vhost": session.vhost.name,
            ACTOR: session.user.name,
        }
        self.announcer.publish("channel.created", headers)

    def channel_refused(self, channel: ObservedChannel, error: BrokerError) -> None:
        """Do nothing: RabbitMQ has no event for this."""

    def channel_closed(self, channel: ObservedChannel, consumer_count: int) -> None:
        session = channel.session
        if not channel.number:
            return
        headers = {
            "pid": pid(session.owner, channel.number),
            "consumer_count": consumer_count,
            ACTOR: session.user.name,
        }
        self.announcer.publish("channel.closed", headers)

    def consumer_started(
        self, channel: ObservedChannel, consumer: Consumer, arguments: FieldTable
    ) -> None:
        headers = {
            **consuming(channel, consumer),
            "exclusive": consumer.exclusive,
            "ack_required": not consumer.no_ack,
            "prefetch_count": consumer.prefetch,
            "arguments": listed(arguments),
        }
        self.announcer.publish("consumer.created", headers)

    def consumer_ended(self, channel: ObservedChannel, consumer: Consumer) -> None:
        self.announcer.publish("consumer.deleted", consuming(channel, consumer))


def begun(
    node: str,
    vhosts: Mapping[str, VirtualHost],
    clock: Clock,
    find: Callable[[Name], object],
    alarms: Alarms,
) -> ClientEvents:
    """Client events of a node, whose alarms are announced, too."""
    announcer = EventPublisher(node, vhosts, clock)
    AlarmEvents(announcer, alarms)
    return ClientEvents(announcer, find)


class AlarmEvents:
    """Announces which resources are low, and which no more."""

    __slots__ = ("_alarms", "_announced", "_announcer")

    def __init__(self, announcer: EventPublisher, alarms: Alarms) -> None:
        self._announcer = announcer
        self._alarms = alarms
        self._announced: tuple[str, ...] = ()
        alarms.listen(self._look)

    def _look(self) -> None:
        before, self._announced = self._announced, self._alarms.raised
        for what, some, others in (
            ("alarm.set", self._announced, before),
            ("alarm.cleared", before, self._announced),
        ):
            for source in some:
                if source not in others:
                    self._announcer.publish(what, {"source": source, "node": self._announcer.node})


def said_by(connection: Client) -> EventHeaders:
    """Return the headers that come from the client; the event of its closing has them too.

    RabbitMQ names the properties of a client without channels by atoms, the last one first.
    """
    handshake = connection.handshake
    if not connection.kind:
        properties = reversed(handshake.client_properties.items())
        return {"client_properties": [property_term(*each) for each in properties]}
    named = {"user_provided_name": handshake.client_name} if handshake.client_name else {}
    return {"client_properties": listed(handshake.client_properties), **named}


def property_term(name: str, value: Field) -> str:
    """Return a property of a client as the tuple that it is in Erlang."""
    tag, content = value
    return f"{{{atom(name)},{TYPE_NAMES[tag]},{term(content)}}}"


def agreed_with(connection: Client) -> EventHeaders:
    """Where a connection comes in, and what was agreed on it."""
    handshake = connection.handshake
    _peer, (_host, port) = connection.ends
    return {
        **ends(connection),
        **dict.fromkeys(UNKNOWN_OF_TLS, ""),
        "port": port,
        "auth_mechanism": handshake.mechanism,
        "timeout": connection.heartbeat_s,
        "frame_max": handshake.frame_bytes_max,
        "channel_max": handshake.channels_max,
    }


def erlang_version(protocol: str) -> str:
    """Return the name of a protocol with its version as RabbitMQ's events have it."""
    name, _, version = protocol.rpartition(" ")
    if name.endswith("MQTT") and version == "3-1":
        version = "3-1-0"  # so only here
    numbers = "{" + version.replace("-", ",") + "}"
    return numbers if name == "AMQP" else f"{{'{name}',{numbers}}}"


def login(connection: Client, mechanism: str, name: str) -> EventHeaders:
    """Headers of a login event: few for a client whose protocol has no channels, as with
    RabbitMQ."""
    if connection.kind == DIRECT:
        return {"name": name, "connection_type": DIRECT}
    if not connection.kind:
        said = {"connection_name": connection.name, "connection_type": "network"}
        return {"name": name, **said}
    return {
        "name": name,
        "auth_mechanism": mechanism,
        "connection_name": connection.name,
        "connection_type": connection.kind,
        **ends(connection),
    }


def ends(connection: Client) -> EventHeaders:
    """The two of a socket."""
    (peer_host, peer_port), (host, _port) = connection.ends
    return {
        "host": octets(host),
        "peer_host": octets(peer_host),
        "peer_port": peer_port,
        "protocol": erlang_version(connection.protocol),
        "ssl": connection.is_encrypted,
    }


def octets(host: str) -> str:
    """An address as the numbers it is made of; what is none stays as it is."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    packed, width = address.packed, 1 if address.version == 4 else 2
    numbers = (packed[at : at + width] for at in range(0, len(packed), width))
    return "{" + ",".join(str(int.from_bytes(each, "big")) for each in numbers) + "}"


def consuming(channel: ObservedChannel, consumer: Consumer) -> EventHeaders:
    session = channel.session
    return {
        "consumer_tag": consumer.tag,
        "channel": pid(session.owner, channel.number),
        "queue": consumer.queue.name,
        "vhost": session.vhost.name,
        ACTOR: session.user.name,
    }
