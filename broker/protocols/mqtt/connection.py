"""MQTT connection: an asyncio protocol around the reader, the login and the channel of a client.

    CONNECT --> LOGIN --> RUNNING --> CLOSED
    any of them --> CLOSED

Input comes as batches: all packets of a read, then the acknowledgements they earned, then one write
at the end of the turn.  `connect_methods` says what CONNECT means, `subscribe_methods` what
SUBSCRIBE means, `incoming_publishes` and `outgoing_publishes` what messages do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import event
from fluffle.broker.base.traffic import TrafficLabels
from fluffle.broker.core.client import Handshake
from fluffle.broker.core.connections import NO_ANSWER
from fluffle.broker.core.login import HANDSHAKE
from fluffle.broker.core.pending_requests import WHOLE_CONNECTION, DeferredEvent, plain
from fluffle.broker.core.session import REMEMBERED_WHEN_SHORT_MAX, Session
from fluffle.broker.core.socket_connection import SocketConnection
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.process.encryption import certified_name
from fluffle.broker.protocols.mqtt.annotations import client_mark
from fluffle.broker.protocols.mqtt.authentication import Authentication
from fluffle.broker.protocols.mqtt.channel import Channel
from fluffle.broker.protocols.mqtt.connect_methods import Accepted
from fluffle.broker.protocols.mqtt.delivery_terms import DeliveryTerms
from fluffle.broker.protocols.mqtt.prepared_runs import PublishTerms
from fluffle.broker.protocols.mqtt.reasons import REFUSED_LOGIN, code_of
from fluffle.broker.protocols.mqtt.server import TRAFFIC_LABELS, encoded_connack
from fluffle.broker.protocols.mqtt.session_state import WINDOW_MAX, TopicSubscription
from fluffle.broker.protocols.mqtt.subscribe_methods import SubscribeRequest, SubscriptionTerms
from fluffle.broker.protocols.mqtt.topics import is_reserved
from fluffle.broker.protocols.mqtt.will import PendingWill
from fluffle.protocol.mqtt.codes import BROKER_CODES, MQTT_5, InvalidPacket, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    ReadPacket,
    Subscribe,
    Unsubscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId, PropertyValue
from fluffle.protocol.mqtt.reader import Acks, Event, Publishes, Reader, Violation
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.protocols.mqtt.server import MqttServer
    from fluffle.broker.queues.publish_target import BackloggedTarget
    from fluffle.protocol.mqtt.packets import Will
    from fluffle.protocol.proxy import ForwardedConnection

CLOSE_WAIT_S = 3
"""How long a client has to read why its connection ends."""

REFUSED_LOGIN_WAIT_S = 3
"""How long a client waits for the answer to a wrong password, as with RabbitMQ: one that guesses is
slow."""

SHOWN_PROTOCOLS = {0: "MQTT", 3: "MQTT 3-1", 4: "MQTT 3-1-1", 5: "MQTT 5-0"}
"""RabbitMQ's names by version; 0 is a client that has not said it."""

PACKET_BYTES = 256
"""Memory that a kept packet takes besides its content; a message in a run takes no more."""

ID_BYTES = 2
"""Memory of each identifier in a run of acknowledgements."""

TEXT_BYTES = 64
"""Memory that a filter, or the name or the value of a property, takes besides the text."""

HELD_BYTES_MAX = 1 << 14
"""A client that an alarm holds is read on until so much of it waits, which are 60 short messages,
or so much has come of it meanwhile."""

PINGREQ_BYTES = 2

DISCONNECTED = {code: f"disconnected by client: {code.name}" for code in ReasonCode}
DISCONNECTED[ReasonCode.SUCCESS] = "disconnected by client"
"""Reasons in the log for the end of a client that has left, by the code of its DISCONNECT."""

logger = logging.getLogger(__name__)


class ConnectionState(Enum):
    """Where a connection stands; it only moves on.  The values are RabbitMQ's words for it."""

    CONNECT = "pre_init"
    LOGIN = "starting"
    RUNNING = "running"
    CLOSED = "closed"


class MqttWaitingRules:
    """Rules for packets that have to wait: the `WaitingRules` of MQTT."""

    __slots__ = ()

    def number_of(self, packet: Event) -> int | None:
        """All that came behind a CONNECT or a SUBSCRIBE waits for what becomes of that, but for
        AUTH, which a CONNECT may wait for."""
        return None if isinstance(packet, Auth) else WHOLE_CONNECTION

    def size_of(self, packet: Event) -> int:
        if isinstance(packet, Publishes):
            head_bytes = len(packet.topic) + len(packet.properties)
            return head_bytes + PACKET_BYTES * len(packet.payloads) + packet.content_bytes
        if isinstance(packet, Acks):
            return PACKET_BYTES + ID_BYTES * len(packet.packet_ids)
        return PACKET_BYTES + sum(TEXT_BYTES + getsizeof(text) for text in texts_of(packet))

    def asks_definitions(self, packet: Event) -> bool:
        return isinstance(packet, Publishes)


def texts_of(packet: ReadPacket | Violation) -> Iterator[object]:
    """Yield what a packet has of any length, or any number."""
    if isinstance(packet, Violation | Pingreq | Pingresp):
        return
    yield from packet.properties.values.values()
    for name, value in packet.properties.user:
        yield name
        yield value
    if isinstance(packet, Subscribe):
        for topic_filter, _options in packet.filters:
            yield topic_filter
    elif isinstance(packet, Unsubscribe):
        yield from packet.filters
    elif isinstance(packet, Connect):
        yield from (packet.client_id, packet.user, packet.password)
        if packet.will is not None:
            yield from (packet.will.topic, packet.will.payload, packet.will.properties)


class ResponseRules(MqttWaitingRules):
    """Waiting rules while a client is asked for its response in a login: nothing waits, for it may
    send nothing but that, or leave."""

    __slots__ = ()

    def number_of(self, _packet: Event) -> int | None:
        return None


RESPONSE_RULES = ResponseRules()


class Connection(SocketConnection[Event]):
    """A socket and everything that lives and dies with it: a `ClientConnection`."""

    __slots__ = (
        "_counted_bytes",
        "_held_at_bytes",
        "authentication",
        "came_at_ms",
        "channel",
        "event_handlers",
        "phase",
        "server",
        "terms",
        "user_properties",
        "will",
        "will_key",
    )
    kind = ""
    """RabbitMQ names none."""
    client_errors = (BrokerError, InvalidPacket)
    reader: Reader
    end_unasked = "closed without DISCONNECT"
    waiting_rules = MqttWaitingRules()

    def __init__(
        self,
        server: MqttServer,
        event_handlers: Mapping[type, Callable[..., int]],
        forwarded: ForwardedConnection | None = None,
    ) -> None:
        """`event_handlers`: those of `packet_handlers`, which stand above this file."""
        reader = Reader(server.config.unauthenticated_packet_bytes_max, server.sys.packets)
        super().__init__(server.services, reader, Handshake(), forwarded)
        self.event_handlers = event_handlers
        self.server = server
        self.phase = ConnectionState.CONNECT
        self.came_at_ms = 0
        self.channel: Channel | None = None
        """Invariant: there in phase RUNNING."""
        self.user_properties: Sequence[tuple[str, str]] = ()
        """User properties of CONNECT."""
        self.authentication: Authentication | None = None
        """Its enhanced authentication, if it has chosen a method."""
        self.will: Will | None = None
        """Published when the connection ends, unless the client says otherwise before."""
        self.will_key = b""
        """Key of its message."""
        config = server.config
        self.terms = SubscriptionTerms(0, config, server.durable_queue_type)
        self._counted_bytes = 0, 0
        """How much of what came and went is in the counts of the node."""
        self._held_at_bytes = 0
        """How much had come when an alarm began to hold it, and of PINGREQ since."""

    # Calls of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.server.sys.sockets += 1

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.count_bytes()

    def _go_on_writing(self) -> None:
        if self.channel is not None and any(self.channel.state.retained):
            self.channel.retained.go_on()

    # The input queue

    def _on_blocked(self, reason: str) -> None:
        self._held_at_bytes = self.read_bytes
        super()._on_blocked(reason)

    def answer_held(self) -> None:
        """Answer each PINGREQ among what an alarm holds, and read on for more of them: a client
        that gets no PINGRESP gives its connection up, and comes again.

        What would be too much in memory is not read, and nothing behind DISCONNECT: then the end of
        the socket would be seen before the messages in front of it are taken.
        """
        held = self.input.events
        pings_count = sum(isinstance(plain(each), Pingreq) for each in held)
        if pings_count:
            held[:] = (each for each in held if not isinstance(plain(each), Pingreq))
            self.output.add(encode(Pingresp(), MQTT_5) * pings_count)
            self._held_at_bytes += pings_count * PINGREQ_BYTES
        if self.reader.is_waiting or self.output.is_draining or not self._may_be_read_on(held):
            self.read_control.read_no_further()
        else:
            self.read_control.read_ahead()

    def _may_be_read_on(self, held: Sequence[Event | DeferredEvent[Event]]) -> bool:
        if isinstance(self.input.last_waiting, Disconnect | Violation):
            return False
        came_bytes = self.read_bytes - self._held_at_bytes
        packets = (each.event if isinstance(each, DeferredEvent) else each for each in held)
        waiting_bytes = self.reader.begun_bytes + sum(map(self.waiting_rules.size_of, packets))
        return max(came_bytes, waiting_bytes) < HELD_BYTES_MAX

    @property
    def is_open(self) -> bool:
        """True if what it has asked for is still wanted."""
        return self.phase is not ConnectionState.CLOSED

    # Letting a client in

    @property
    def is_logging_in(self) -> bool:
        """True if it waits for the outcome of its login."""
        if self.phase is ConnectionState.RUNNING:
            return self.authentication is not None and self.authentication.is_repeated
        return self.phase is ConnectionState.LOGIN

    @property
    def handshake_timeout_s(self) -> float:
        """How long it may take from its first byte to the answer to CONNECT."""
        return self.server.config.login_timeout_ms / 1000

    def go_on(self, packet: Event) -> None:
        """Act on what came behind a packet that is answered."""
        self.input.waiting.over(self, packet, ignore_done)

    def accept(self, accepted: Accepted) -> None:
        """Let the client in, answer it, and go on with what it has sent meanwhile."""
        packet, session, state = accepted.packet, accepted.session, accepted.state
        config, properties = self.server.config, accepted.packet.properties
        self.deadlines.met(HANDSHAKE)
        mark = client_mark(state.client_id)
        receive_max = properties.integer(PropertyId.RECEIVE_MAXIMUM, 0xFFFF)
        channel = self.channel = Channel(
            self,
            session,
            state,
            self.server,
            publish_terms=PublishTerms(
                packet.version,
                config.exchange,
                mark,
                config.receive_max,
                disconnects=config.disconnect_on_unauthorized,
                warnings=self.server.warnings,
            ),
            delivery_terms=DeliveryTerms(
                packet.version,
                mark,
                self.terms.packet_bytes_max,
                self.services.runtime.clock.wall_ms,
                min(config.topic_alias_max, properties.integer(PropertyId.TOPIC_ALIAS_MAXIMUM, 0)),
            ),
            window=min(config.prefetch or WINDOW_MAX, WINDOW_MAX, receive_max),  # mutant: MQ16
        )
        self.user_properties = properties.user
        self.handshake.client_properties = client_properties(state.client_id, properties.user)
        self.heartbeat_s = self._agreed_keep_alive_s(packet.keep_alive_s)
        session.listen(self._on_access)
        session.open()
        channel.open()
        self.will, self.will_key = packet.will, accepted.will_key
        self.server.attach(state, self)
        self.phase = ConnectionState.RUNNING
        self.input.begin(session)
        self.read_holds.listen()
        self.reader.packet_bytes_max = config.packet_bytes_max
        self.reader.topic_alias_max = config.topic_alias_max
        self.reader.open()
        channel.vouch()
        self.output.add(self._connack(accepted))
        self.server.keep_alives.add(self, self.heartbeat_s)
        if accepted.is_present:
            self._resume(channel)
        event(
            logger,
            logging.INFO,
            "connection_opened",
            connection=self.name,
            user=session.user.name,
            vhost=session.vhost.name,
            client=state.client_id,
        )
        self.go_on(packet)

    def _resume(self, channel: Channel) -> None:
        """Go on with what the session has from before: its deliveries and subscriptions."""
        if any(map(is_reserved, channel.state.subscriptions)):
            self.server.sys.watch(channel)
        channel.outgoing.resume()
        channel.retained.go_on()
        channel.groups.resume()

    def _connack(self, accepted: Accepted) -> bytes:
        """CONNACK for a client that is let in; version 5 gets the limits."""
        config, packet = self.server.config, accepted.packet
        # No other client is sent a CONNACK that assigns an identifier.
        make = encoded_connack if accepted.is_assigned else self.server.cached_connack
        encoded = partial(make, packet.version, is_session_present=accepted.is_present)
        if packet.version < MQTT_5:
            return encoded(())
        asked = packet.properties
        offered: list[tuple[PropertyId, PropertyValue]] = [
            (PropertyId.RECEIVE_MAXIMUM, config.receive_max),
            (PropertyId.MAXIMUM_PACKET_SIZE, config.packet_bytes_max),
            (PropertyId.TOPIC_ALIAS_MAXIMUM, config.topic_alias_max),
        ]
        if accepted.is_assigned:
            offered.append((PropertyId.ASSIGNED_CLIENT_IDENTIFIER, accepted.state.client_id))
        if accepted.state.expiry_s != asked.integer(PropertyId.SESSION_EXPIRY_INTERVAL, 0):
            offered.append((PropertyId.SESSION_EXPIRY_INTERVAL, accepted.state.expiry_s))
        longest_s = config.keep_alive_s_max
        if longest_s is not None and not 0 < packet.keep_alive_s <= longest_s:
            offered.append((PropertyId.SERVER_KEEP_ALIVE, longest_s))
        if config.response_information is not None and asked.integer(
            PropertyId.REQUEST_RESPONSE_INFORMATION, 0
        ):
            offered.append((PropertyId.RESPONSE_INFORMATION, config.response_information))
        if not config.retained:
            offered.append((PropertyId.RETAIN_AVAILABLE, 0))
        required: list[tuple[PropertyId, PropertyValue]] = []
        if self.authentication is not None:
            required.append((PropertyId.AUTHENTICATION_METHOD, self.authentication.method))
        largest_bytes = asked.integer(PropertyId.MAXIMUM_PACKET_SIZE, 0)
        connack = encoded((*offered, *required))
        if 0 < largest_bytes < len(connack):
            return encoded(tuple(required))
        return connack

    def refuse_connect(self, code: ReasonCode, text: str, answer: str | None = None) -> None:
        """Answer that the client is not let in, and close.  The log gets the text; so does the
        client, if there is no other answer."""
        self.close_reason = self.close_reason or text
        self.phase = ConnectionState.CLOSED
        self.input.stop()
        if code is not ReasonCode.BAD_USER_NAME_OR_PASSWORD:
            self._answer_refusal(code, text if answer is None else answer)
            return
        self.services.runtime.clients_call_later(
            REFUSED_LOGIN_WAIT_S, partial(self._answer_refusal, code, REFUSED_LOGIN)
        )

    def _answer_refusal(self, code: ReasonCode, reason: str) -> None:
        if not self._transport.is_closing():
            connack = Connack(code, properties=self._reference_with(code))
            self.send(self.terms.explained(connack, reason))
            self.finish()

    def _agreed_keep_alive_s(self, asked_s: int) -> int:
        """Return the keep alive interval: the one asked for, if it is not too long."""
        longest_s = self.server.config.keep_alive_s_max
        if longest_s is None or self.terms.version < MQTT_5:
            return asked_s
        return min(asked_s or longest_s, longest_s)

    @property
    def is_read(self) -> bool:
        """True if what it says is read now."""
        return self._transport.is_reading()

    def on_silence(self) -> None:
        """End a connection that has been silent for one and a half keep alive intervals."""
        self.end(ReasonCode.KEEP_ALIVE_TIMEOUT, "keep alive timeout")

    # The end

    def leave(self, packet: Disconnect) -> None:
        """Note that the client leaves, how long its session lasts then, and whether its will is
        published: only if it says so.  InvalidPacket."""
        self.close_reason = DISCONNECTED[packet.code]
        if self.channel is None:  # it does not answer what it is asked in a login
            return
        state, longest_s = self.channel.state, self.server.config.session_expiry_s_max
        asked_s = packet.properties.integer(PropertyId.SESSION_EXPIRY_INTERVAL, -1)
        if asked_s > 0 and not state.is_lasting:
            raise InvalidPacket(ReasonCode.PROTOCOL_ERROR, "the session does not outlive this")
        if asked_s >= 0:
            state.expiry_s = asked_s if longest_s is None else min(asked_s, longest_s)
        if packet.code is ReasonCode.SUCCESS:
            self.will = None  # mutant: MQ30

    def refuse(self, error: Exception, _packet: Event | None = None) -> None:
        """End the connection for what its client did wrong."""
        if isinstance(error, InvalidPacket):
            self.disconnect(error.code, error.text)
        else:
            assert isinstance(error, BrokerError), "the client's errors are these two"
            self.disconnect(code_of(error), error.explanation)

    def end(self, code: ReasonCode, text: str) -> None:
        """End the connection for an error that no packet of its client has made: if DISCONNECT is
        behind what waits, the client has left."""
        if self.phase is not ConnectionState.CLOSED:
            self._heed_disconnect()
            self.disconnect(code, text)

    def disconnect(self, code: ReasonCode, text: str) -> None:
        """End the connection for an error of its client, which is logged."""
        if self.phase is not ConnectionState.CLOSED:
            event(
                logger,
                logging.WARNING,
                "connection_error",
                connection=self.name,
                client=self.handshake.client_id or None,
                error=text,
            )
            self._end_with(code, text)

    def _end_with(self, code: ReasonCode, text: str) -> None:
        """End the connection; a client of version 5 gets the reason code, and the text."""
        self.close_reason = text
        self.end_session()
        if self.phase is ConnectionState.LOGIN:
            is_answer = code in BROKER_CODES[PacketType.CONNACK]
            self.refuse_connect(code if is_answer else ReasonCode.SERVER_UNAVAILABLE, text)
            return
        if self.terms.version == MQTT_5:
            packet = Disconnect(code, self._reference_with(code))
            self.send(self.terms.explained(packet, text))
        if code is ReasonCode.PACKET_TOO_LARGE:
            self.finish_unread()
        else:
            self.finish()

    @property
    def _takes_reference(self) -> bool:
        """True if there are other servers, and the client takes a packet that names them."""
        if self.server.config.server_reference is None:
            return False
        limit_bytes = self.terms.packet_bytes_max
        packet = Disconnect(properties=self._reference_with(ReasonCode.USE_ANOTHER_SERVER))
        return not 0 < limit_bytes < len(encode(packet, MQTT_5))

    def _reference_with(self, code: ReasonCode) -> Properties:
        """Properties for a reason code: the server to which the client may go instead."""
        reference = self.server.config.server_reference
        if code is not ReasonCode.USE_ANOTHER_SERVER or reference is None:
            return Properties()
        return Properties({PropertyId.SERVER_REFERENCE: reference})

    def give_up(self, error: Exception, _packet: Event | None = None) -> None:
        """The broker itself is at fault: say so here, and keep the other connections."""
        self._log_bug(error)
        self.end(ReasonCode.UNSPECIFIED_ERROR, "the broker failed, see its log")

    def _log_bug(self, error: Exception) -> None:
        """Log it; if what the broker believes is wrong, it must end before it says so to
        others."""
        if isinstance(error, AssertionError):
            self.services.runtime.on_fatal(error)
        logger.error(
            "a handler failed on %s of client '%s'",
            self.name,
            self.handshake.client_id,
            exc_info=error,
        )

    def fail(self, error: BrokerError) -> None:
        """End it, for its user or its virtual host is gone, an operator closes it, or the node
        stops: nothing is wrong with it, and what is logged at its end says why."""
        if self.phase is ConnectionState.CLOSED:
            return
        code = code_of(error)
        if code is ReasonCode.SERVER_SHUTTING_DOWN and self._takes_reference:
            code = ReasonCode.USE_ANOTHER_SERVER
        self._heed_disconnect()
        self._end_with(code, error.explanation)

    close = fail

    def subscribe_again(self, subscription: TopicSubscription) -> None:
        """Make a subscription anew whose queue has been deleted; if that cannot be, end."""
        assert self.channel is not None, "it has subscriptions"
        identifiers = [subscription.identifier] if subscription.identifier else []
        wanted = [(subscription.full_filter, subscription.options)]
        packet = Subscribe(0, wanted, Properties(subscription_ids=identifiers))
        SubscribeRequest(self.channel, packet, self.terms, ignore_done).begin()

    def take_over(self, done: Callable[[], None]) -> None:
        """End, for the same client has connected anew, and call `done` when the session is free."""
        self._heed_disconnect()
        self.close_reason = "session taken over"
        if self.channel is not None:
            self.server.takeovers.note(self.channel.state.key)
        self.end_session(done)
        if self.terms.version == MQTT_5:
            packet = Disconnect(ReasonCode.SESSION_TAKEN_OVER)
            self.send(self.terms.explained(packet, self.close_reason))
        self.finish()

    def end_session(self, done: Callable[[], None] | None = None) -> None:
        """Stop what the client publishes and is given; call `done` once its session is free."""
        channel, self.channel = self.channel, None
        if channel is None:
            if done is not None:
                done()
            return
        self.server.keep_alives.discard(self)
        self.input.end_session()
        try:
            channel.close()
        except Exception as error:  # noqa: BLE001 - the session must be free for the next client
            self._log_bug(error)
        state, session, will = channel.state, channel.session, self.will
        user, pending = session.user.name, None
        if will is not None:
            self.will = None
            pending = PendingWill(state.key, user, will, self.ends, self.name, self.will_key)
        self.server.detach(state, self, user, pending)
        session.end(done or ignore_done)  # last of all: `done` takes the session over

    def _heed_disconnect(self) -> None:
        """Note that the client has left, though its DISCONNECT was not acted on: what it sent
        before that is lost."""
        last = self.input.read_to_last()
        if isinstance(last, Disconnect):
            try:
                self.leave(last)
            except InvalidPacket as error:
                self.close_reason = error.text

    def _end_input(self) -> None:
        """Act on nothing more."""
        if self.channel is not None:
            self._heed_disconnect()
        self.phase = ConnectionState.CLOSED
        self.input.stop()

    def _give_time_to_close(self) -> None:
        self.deadlines.give("close", CLOSE_WAIT_S, NO_ANSWER)

    def drop(self, reason: str = NO_ANSWER) -> None:
        """Close the socket without a word, unless it is the broker that owes an answer: to CONNECT,
        which it could not give in time."""
        is_owed = self.input.waiting.rules is not RESPONSE_RULES
        if reason == NO_ANSWER and self.phase is ConnectionState.LOGIN and is_owed:
            self.refuse_connect(ReasonCode.SERVER_UNAVAILABLE, "CONNECT was not answered in time")
        else:
            super().drop(reason)

    # What others ask

    def expect_response(self, *, is_expected: bool) -> None:
        """Take a response, or DISCONNECT, before the answer to CONNECT, or no more."""
        self.input.waiting.rules = RESPONSE_RULES if is_expected else self.waiting_rules

    def send(self, packet: Connack | Ack | Pingresp | Disconnect | Auth) -> None:
        """Send a packet at the end of this turn."""
        self.output.add(encode(packet, self.terms.version))

    def on_behind(self, target: BackloggedTarget, count: int) -> None:
        """Messages went to a queue that is behind: pause."""
        if self.channel is None:
            return
        if target.is_full:
            self.read_holds.wait_for_room(target)
        elif not self.channel.subscriptions:
            self.read_holds.owe(target, count)

    def relieve(self) -> None:
        super().relieve()
        if self.channel is not None:
            self.channel.state.forget_beyond(REMEMBERED_WHEN_SHORT_MAX)
            for writer in self.channel.writers.values():
                writer.forget_beyond(REMEMBERED_WHEN_SHORT_MAX)

    @property
    def protocol(self) -> str:
        """RabbitMQ's name of it."""
        name = SHOWN_PROTOCOLS[self.terms.version]
        return f"Web {name}" if self._transport.get_extra_info("websocket") else name

    @property
    def traffic_labels(self) -> TrafficLabels:
        return TRAFFIC_LABELS[self.terms.version]

    @property
    def channels(self) -> Iterable[Channel]:
        return () if self.channel is None else (self.channel,)

    @property
    def session(self) -> Session | None:
        return None if self.channel is None else self.channel.session

    @property
    def protocol_row(self) -> Mapping[str, Any]:
        """Return the fields of a connection that only MQTT has, under RabbitMQ's names."""
        channel, will = self.channel, self.will
        if channel is None:
            return {}
        return {
            "client_id": channel.state.client_id,
            "user_property": [list(pair) for pair in self.user_properties],
            "ssl_login_name": self._certified_name or "none",
            "clean_sess": not channel.state.is_lasting,
            "will_msg": "undefined" if will is None else will.topic.decode(),
            "exchange": self.server.config.exchange,
            "prefetch": channel.prefetch,
            "messages_unconfirmed": channel.confirms.open_count if channel.confirms else 0,
            "messages_unacknowledged": len(channel.unacked),
        }

    @property
    def _certified_name(self) -> str:
        """The user that its certificate stands for, whether or not it has logged in by that."""
        if not self.certificate:
            return ""
        return certified_name(self.certificate, self.services.certificate_login)

    @property
    def state(self) -> str:
        """RabbitMQ's word for what it is doing, and for why it is not read."""
        if self.phase is not ConnectionState.RUNNING:
            return str(self.phase.value)
        if self.read_control.holds("alarm"):
            return "blocked"
        return "flow" if self.read_control.is_slowed else "running"

    def count_bytes(self) -> None:
        """Add what has come and gone since the last time to the counts of the node."""
        sys, (read, written) = self.server.sys, self._counted_bytes
        self._counted_bytes = self.read_bytes, self.output.written_bytes
        sys.read_bytes += self.read_bytes - read
        sys.written_bytes += self.output.written_bytes - written


def client_properties(client_id: str, user: Sequence[tuple[str, str]]) -> FieldTable:
    """Return what a client says of itself, as RabbitMQ lists it: of equal names the last one."""
    found: FieldTable = {"client_id": ("S", client_id.encode())}
    if user:
        found["user_property"] = "F", {name: ("S", value.encode()) for name, value in user}
    return found
