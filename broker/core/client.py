"""Client of a node as the core knows it: a connection of any protocol, or a single request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fluffle.broker.queues.queue_api import Consumer
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    import ssl

    from fluffle.broker.access.access import User
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.base.traffic import ClientTraffic, TrafficLabels
    from fluffle.broker.core.confirms import Confirms
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.settlement import Settlements, Unacked
    from fluffle.broker.process.encryption import PeerCertificate
    from fluffle.broker.queues.journal import Owner
    from fluffle.broker.queues.publish_target import BackloggedTarget
    from fluffle.broker.queues.queue_api import SharedCredit
    from fluffle.broker.vhosts.vhost import VirtualHost
    from fluffle.protocol.proxy import Address

WITHOUT_CHANNELS = 0
"""Number of the one channel of a client whose protocol has none: it is not listed, counted or
limited."""


class Handshake:
    """Properties that a client has sent, and the limits agreed with it."""

    __slots__ = (
        "channels_max",
        "client_id",
        "client_name",
        "client_properties",
        "connected_at_ms",
        "frame_bytes_max",
        "mechanism",
        "user",
    )

    def __init__(self) -> None:
        self.client_id = ""
        """Client Identifier of an MQTT client."""
        self.client_name = ""
        self.client_properties: FieldTable = {}
        """Properties of the client, only where they are shown."""
        self.connected_at_ms = 0
        """Wall-clock time of the connection."""
        self.mechanism = ""
        self.user: User | None = None
        self.channels_max = self.frame_bytes_max = 0
        """Most channels and largest frame of the client; 0 is no limit."""


class Client(Protocol):
    """Client that has been accepted, from its first byte to its end."""

    @property
    def kind(self) -> str:
        """RabbitMQ's word: "network" for a connection with channels, "direct" for a request; empty
        for a connection without them."""

    @property
    def protocol(self) -> str:
        """Name of the protocol as RabbitMQ gives it: "AMQP 0-9-1"."""

    @property
    def traffic_labels(self) -> TrafficLabels:
        """Labels of what is counted of it."""

    @property
    def name(self) -> str:
        """Both its ends, as RabbitMQ shows them."""

    @property
    def ends(self) -> tuple[Address, Address]:
        """Where it is, and where it came in."""

    @property
    def is_encrypted(self) -> bool: ...

    @property
    def handshake(self) -> Handshake: ...

    @property
    def heartbeat_s(self) -> int:
        """Interval of its heartbeats; 0 is none."""

    @property
    def close_reason(self) -> str:
        """Why it is closed, once it is."""

    @property
    def read_bytes(self) -> int:
        """How much it has sent."""

    @property
    def written_bytes(self) -> int:
        """How much has been sent to it."""

    def on_behind(self, target: BackloggedTarget, count: int) -> None:
        """Note that the client has just put `count` messages into a queue that is behind."""

    def on_disk_behind(self) -> None:
        """Messages of it were recorded, and the disk is behind."""


class ObservedSession(Protocol):
    """Session of a client, as observers and listings see it."""

    @property
    def name(self) -> str:
        """Name of the client."""

    @property
    def owner(self) -> Owner:
        """Owner of the queues that only this client may use."""

    @property
    def user(self) -> User:
        """User of the client, as he is now."""

    @property
    def vhost(self) -> VirtualHost: ...

    @property
    def traffic(self) -> ClientTraffic:
        """Counters of the clients of its protocol."""


class ListedClient(Client, Protocol):
    """Client as far as lists show it, with its channels."""

    @property
    def certificate(self) -> PeerCertificate:
        """The client's, if it has been verified."""

    @property
    def session(self) -> ObservedSession | None:
        """Session of the client, from its login until it ends."""

    @property
    def channels(self) -> Iterable[ClientChannel]:
        """Open channels."""

    @property
    def protocol_row(self) -> Mapping[str, Any]:
        """Return the fields that only this protocol has, under RabbitMQ's names."""

    @property
    def state(self) -> str:
        """RabbitMQ's word for what it is doing, and for why it is not read."""

    @property
    def tls(self) -> ssl.SSLObject | None:
        """TLS object of an encrypted connection."""

    @property
    def reads(self) -> int:
        """How often something came from it."""

    @property
    def writes(self) -> int:
        """How often something was sent to it."""

    @property
    def unwritten_bytes(self) -> int:
        """Bytes that its socket has not taken yet."""


class ClientConnection(ListedClient, Protocol):
    """Client that stays until it or the broker ends it."""

    output: OutputBuffer

    @property
    def is_publisher(self) -> bool:
        """True if it has published."""

    @property
    def is_over(self) -> bool:
        """True if nothing more is acted on, and what is left is to close the socket."""

    def close(self, error: BrokerError) -> None:
        """Close it in order, and say why."""

    def fail(self, error: BrokerError) -> None:
        """The same, and log it as an error."""

    def finish(self) -> None:
        """Write what is collected, then close the socket."""

    def drop(self, reason: str = ...) -> None:
        """Cut it off, without a word."""

    def give_up(self, error: Exception) -> None:
        """Close it for an error of the broker's own that concerns it alone."""

    def relieve(self) -> None:
        """Have it take less memory, which is short."""


class SessionCounts(NamedTuple):
    """Numbers of sessions that may outlive their connections."""

    connected: int
    away: int
    """Without their clients."""
    taken_over: int
    """Times that a client has connected anew while it was connected."""
    shared_subscriptions: int = 0
    """Subscriptions of connected clients that these share with others."""


class SessionKeeper(Protocol):
    """Keeper of sessions that may outlive their connections."""

    def session_rows(self) -> Iterator[dict[str, Any]]:
        """Yield what each is, wherever its client is: `vhost`, `client_id`, `user`, and more."""

    def session_counts(self) -> SessionCounts:
        """How many there are."""


class ClientConsumer(Protocol):
    """Consumer of a client, with what it was started with."""

    consumer: Consumer
    arguments: FieldTable
    """Only where an observer may want them."""


class OpenTransaction(Protocol):
    """Transaction of a channel, as far as it is listed."""

    message_count: int
    """Messages that are to be published."""
    settled_count: int
    """Deliveries that are to be settled."""


class SessionChannel(Protocol):
    """Channel of a session, as far as events name it."""

    @property
    def number(self) -> int:
        """Number among the channels of the client, from 1 on; or `WITHOUT_CHANNELS`."""

    @property
    def session(self) -> ObservedSession: ...


class ObservedChannel(SessionChannel, Protocol):
    """Channel of a client, or of one request, as far as observers of clients see it."""

    @property
    def confirms(self) -> Confirms | None:
        """Confirms of a channel in confirm mode."""


class ClientChannel(ObservedChannel, Protocol):
    """Channel of a client that stays, which publishes for it and is given messages."""

    prefetch: int
    """Prefetch limit of consumers that start from now on; 0 means no limit."""
    shared_credit: SharedCredit

    @property
    def settlements(self) -> Settlements:
        """Settlement of what it was given."""

    @property
    def transaction(self) -> OpenTransaction | None:
        """Open transaction of a transactional channel."""

    @property
    def subscriptions(self) -> Mapping[str, ClientConsumer]:
        """Consumers by their tags."""

    @property
    def unacked(self) -> Unacked:
        """Ledger of what it was given."""


def channel_name(client: Client, channel: SessionChannel) -> str:
    """Name of a channel, as RabbitMQ shows it; or whose it is that is none."""
    return f"{client.name} ({channel.number})" if channel.number else client.name


def listed_channels(connection: ListedClient) -> Iterator[ClientChannel]:
    """The channels of a client, without one that its protocol does not have."""
    return (channel for channel in tuple(connection.channels) if channel.number)


def client_fields(connection: ListedClient) -> dict[str, str]:
    """Return the fields that a connection is searched by, far fewer than the row has."""
    session, user = connection.session, connection.handshake.user
    return {
        "name": connection.name,
        "user": user.name if user else "",
        "vhost": session.vhost.name if session else "",
    }


def connection_row(node: str, connection: ListedClient) -> dict[str, Any]:
    """Return the management row of a connection; before the login it has no user."""
    (peer_host, peer_port), (host, port) = connection.ends
    handshake = connection.handshake
    return {
        **client_fields(connection),
        "node": node,
        "user_provided_name": handshake.client_name,
        "state": connection.state,
        "peer_host": peer_host,
        "peer_port": peer_port,
        "host": host,
        "port": port,
        "ssl": connection.is_encrypted,
        "protocol": connection.protocol,
        "auth_mechanism": handshake.mechanism,
        "connected_at": handshake.connected_at_ms,
        "timeout": connection.heartbeat_s,
        "channel_max": handshake.channels_max,
        "frame_max": handshake.frame_bytes_max,
        **channels_row(connection),
    }


def channels_row(connection: ListedClient) -> dict[str, Any]:
    """Return the fields that RabbitMQ lists only for clients whose protocol has channels."""
    if not connection.kind:
        return {}
    channels = sum(1 for _channel in listed_channels(connection))
    return {"type": connection.kind, "channels": channels}


def channel_row(node: str, connection: ListedClient, channel: ClientChannel) -> dict[str, Any]:
    """Return the management row of a channel."""
    return {
        "name": channel_name(connection, channel),
        "node": node,
        "connection": connection.name,
        "number": channel.number,
        "user": channel.session.user.name,
        "vhost": channel.session.vhost.name,
        "transactional": channel.transaction is not None,
        "confirm": channel.confirms is not None,
        "consumer_count": len(channel.subscriptions),
        "messages_unacknowledged": len(channel.unacked),
        "messages_unconfirmed": channel.confirms.open_count if channel.confirms else 0,
        "prefetch_count": channel.prefetch,
        "global_prefetch_count": channel.shared_credit.limit,
    }


def consumer_row(
    connection: ListedClient, channel: ClientChannel, consumer: Consumer
) -> dict[str, Any]:
    """Return the management row of a consumer."""
    return {
        "vhost": channel.session.vhost.name,
        "queue_name": consumer.queue.name,
        "consumer_tag": consumer.tag,
        "channel": channel_name(connection, channel),
        "ack_required": not consumer.no_ack,
        "exclusive": consumer.exclusive,
        "priority": consumer.priority,
        "active": consumer.is_active,
        "activity_status": activity_of(consumer),
        "prefetch_count": consumer.prefetch,
        "messages_unacknowledged": consumer.in_flight,
    }


def activity_of(consumer: Consumer) -> str:
    """Activity of a consumer, in RabbitMQ's words."""
    if not consumer.queue.spec.single_active_consumer:
        return "up"
    return "single_active" if consumer.is_active else "waiting"
