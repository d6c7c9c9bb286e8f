"""connection.*: from the protocol header to the last close-ok.

HEADER -> START -> SECURE -> TUNE -> OPEN -> RUNNING -> CLOSED
             any of them -> CLOSING (we closed) -> CLOSED

Whoever closes waits for close-ok and then closes the socket.  So a client that has closed is CLOSED
while its socket is still there, and what was on its way is read and dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from fluffle.broker.access.access import LoginRefused, User, decoded_user_name
from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    ChannelError,
    NotAllowed,
    SyntaxFailure,
)
from fluffle.broker.base.logs import event
from fluffle.broker.core import login
from fluffle.broker.core.consumer import deliver_ready
from fluffle.broker.core.login import (
    EXTERNAL,
    Credentials,
    Login,
    LoginClient,
    Mechanism,
    admit,
    offered_mechanisms,
    read_response,
)
from fluffle.broker.core.pending_requests import WHOLE_CONNECTION, ChannelQuery
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.protocols.amqp091.channel import (
    AmqpSession,
    DecodedMethod,
    discard_answer,
    once_settled,
)
from fluffle.broker.protocols.amqp091.connection import Connection, ConnectionState
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.methods import Connection as Methods
from fluffle.protocol.methods import Method, field_table, make, octets, pamqp_table
from fluffle.protocol.spec import ProtocolError, ReplyCode
from fluffle.protocol.wire import Field, FieldTable, read_fields

HEADER_0_9 = b"AMQP\x01\x01\x00\x09"
"""The header of AMQP 0-9: RabbitMQ takes it for 0-9-1."""

logger = logging.getLogger(__name__)


def start(connection: Connection) -> None:
    """The header was right: introduce ourselves."""
    connection.phase = ConnectionState.START
    connection.send(
        make(
            Methods.Start,
            version_major=0,
            version_minor=9,
            server_properties=pamqp_table(connection.services.server_properties),
            mechanisms=" ".join(offered_mechanisms(connection, MECHANISMS)),
            locales="en_US",
        ),
    )


def on_start_ok(connection: Connection, method: Method) -> None:
    """Handle the client's properties and credentials; the limits follow after login, which may take
    time."""
    assert isinstance(method, Methods.StartOk)
    handshake, properties = connection.handshake, field_table(method.client_properties)
    handshake.capabilities = capabilities_of(properties)
    handshake.client_name = text_of(properties, "connection_name")
    credentials = read_response(connection, MECHANISMS, method.mechanism, octets(method.response))
    if connection.services.observers:
        handshake.client_properties = properties
    handshake.mechanism = method.mechanism
    connection.phase = ConnectionState.SECURE

    def on_login(outcome: User | LoginRefused) -> None:
        if isinstance(outcome, LoginRefused):
            refuse_login(connection, outcome)
        else:
            propose_limits(connection)

    Login(connection, method.mechanism, credentials, on_login).begin()


def propose_limits(connection: Connection) -> None:
    """The client has said who it is: what may it ask for?"""
    limits = connection.services.limits
    connection.phase = ConnectionState.TUNE
    connection.send(
        make(
            Methods.Tune,
            channel_max=limits.channels_max,
            frame_max=limits.frame_bytes_max,
            heartbeat=limits.heartbeat_s,
        ),
    )


def refuse_login(connection: Connection, refused: LoginRefused) -> None:
    """Refuse a login with authentication_failure_close if the client supports it, or just close."""
    handshake = connection.handshake
    if "authentication_failure_close" in handshake.capabilities:
        refusal = AccessRefused(
            f"Login was refused using authentication mechanism {handshake.mechanism}. For details "
            "see the broker logfile."
        )
        connection.close(refusal)  # about no method, as RabbitMQ puts it
        return
    connection.close_reason = str(refused)
    connection.finish()


def on_tune_ok(connection: Connection, method: Method) -> None:
    """The client's limits, which may only be lower; its heartbeat counts as it is."""
    assert isinstance(method, Methods.TuneOk)
    limits = connection.services.limits
    check_limit("channel_max", method.channel_max, 1, limits.channels_max)
    check_limit("frame_max", method.frame_max, limits.frame_bytes_min, limits.frame_bytes_max)
    connection.handshake.channels_max = method.channel_max
    connection.handshake.frame_bytes_max = method.frame_max
    connection.phase = ConnectionState.OPEN
    connection.tuned(method.frame_max, method.heartbeat)


def check_limit(name: str, value: int, lowest: int, highest: int) -> None:
    """NotAllowed, with RabbitMQ's text, for a limit out of range; 0 stands for no limit."""
    if value and value < lowest:
        raise NotAllowed(
            f"negotiated {name} = {value} is lower than the minimum allowed value ({lowest})"
        )
    if highest and not 0 < value <= highest:
        shown = value or "0 (no limit)"
        raise NotAllowed(
            f"negotiated {name} = {shown} is higher than the maximum allowed value ({highest})"
        )


def on_open(connection: Connection, method: Method) -> None:
    """Choose the virtual host; from here on channels may be opened.  NotAllowed.

    It may be known only later that it may be: then all that comes behind `method` waits.
    """
    assert isinstance(method, Methods.Open)
    admission = admit(connection, method.virtual_host)
    if not isinstance(admission, Deferred):
        open_vhost(connection, admission)
        return
    ChannelQuery(
        connection.waiting,
        connection,
        DecodedMethod(WHOLE_CONNECTION, method),
        act=partial(open_vhost, connection),
        unwanted=discard_answer,
        undo=ignore_done,
    ).wait(admission)


def open_vhost(connection: Connection, vhost: VirtualHost) -> None:
    """Begin the session of a client that was admitted there."""
    services, handshake = connection.services, connection.handshake
    assert handshake.user is not None
    notify_cancel = "consumer_cancel_notify" in handshake.capabilities
    user = services.access.users[handshake.user.name]  # as he is by now
    session = AmqpSession(connection, user, vhost, services, notify_cancel=notify_cancel)
    connection.begin(session)
    session.open()
    connection.send(make(Methods.OpenOk, known_hosts=""))
    event(
        logger,
        logging.INFO,
        "connection_opened",
        connection=connection.name,
        user=user.name,
        vhost=vhost.name,
        client=handshake.client_name,
    )


def on_close(connection: Connection, method: Method) -> None:
    """The client is done: everything of its own goes before it hears close-ok, and what it has
    settled is so."""
    assert isinstance(method, Methods.Close)
    for channel in connection.channels:
        if channel.settlements.pending:
            once_settled(channel, method, partial(on_close, connection, method))
            return
    for channel in connection.channels:
        deliver_ready(channel)  # mutant: CO6
    connection.close_reason = f"closed by client: {method.reply_code} {method.reply_text}"
    connection.phase = ConnectionState.CLOSING

    def answer() -> None:
        if connection.phase is not ConnectionState.CLOSED:  # it has not hung up meanwhile
            connection.send(make(Methods.CloseOk))
            connection.finish(is_client_to_close=True)

    def late(error: BrokerError) -> None:
        """Close the connection: its queues may still exist, and the client must not believe that
        they do not."""
        if connection.phase is not ConnectionState.CLOSED:
            connection.close(error, DecodedMethod(0, method).ids)

    connection.end_session(answer, late)


def on_close_ok(connection: Connection, _method: Method) -> None:
    connection.finish()


def on_close_while_closing(connection: Connection, _method: Method) -> None:
    """Both sides closed at once: answer, and wait for the answer to ours."""
    connection.send(make(Methods.CloseOk))


def on_update_secret(connection: Connection, method: Method) -> None:
    """A new secret for the user who is logged in: passwords do not expire, so it is not needed.

    RabbitMQ looks at the rights again then; here every change of them is noticed when it is made.
    """
    assert isinstance(method, Methods.UpdateSecret)
    connection.send(make(Methods.UpdateSecretOk))


PHASES: dict[ConnectionState, dict[type[Method], Callable[[Connection, Method], None]]] = {
    ConnectionState.START: {Methods.StartOk: on_start_ok},
    ConnectionState.TUNE: {Methods.TuneOk: on_tune_ok},
    ConnectionState.OPEN: {Methods.Open: on_open},
    ConnectionState.RUNNING: {Methods.Close: on_close, Methods.UpdateSecret: on_update_secret},
    ConnectionState.CLOSING: {Methods.CloseOk: on_close_ok, Methods.Close: on_close_while_closing},
}
"""Handlers of methods on channel 0 by state; while CLOSING, others are ignored."""


def on_method(connection: Connection, method: Method) -> None:
    """A method on channel 0."""
    handler = PHASES.get(connection.phase, {}).get(type(method))
    if handler is not None:
        handler(connection, method)
    else:
        refuse_untimely(connection.phase, 0)


def refuse_untimely(phase: ConnectionState, channel: int) -> None:
    """Raise the error for what cannot come now; say nothing if it is only too late.

    On a channel that is UNEXPECTED_FRAME, since there is no channel yet, on channel 0 ChannelError.
    """
    if phase in (ConnectionState.CLOSING, ConnectionState.CLOSED):
        return
    if channel:
        raise ProtocolError(
            ReplyCode.UNEXPECTED_FRAME, f"channels have to wait in connection state {phase.value}"
        )
    raise ChannelError(f"unexpected method in connection state {phase.value}")


def capabilities_of(client_properties: FieldTable) -> frozenset[str]:
    """The capabilities that a client says it has."""
    _tag, table = client_properties.get("capabilities", ("V", None))
    if not isinstance(table, dict):
        return frozenset()
    return frozenset(name for name, (_tag, value) in table.items() if value is True)


def text_of(table: FieldTable, name: str) -> str:
    value = table.get(name, ("V", None))[1]
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def amqplain_credentials(_client: LoginClient, response: bytes) -> Credentials:
    """A field table without its length, with LOGIN and PASSWORD.  SyntaxFailure.

    One that is no string is blank, and so is refused like a wrong one.
    """
    try:
        table = read_fields(response, 0, len(response))
    except ProtocolError as error:
        raise SyntaxFailure("AMQPLAIN response is no field table") from error
    name, password = table.get("LOGIN"), table.get("PASSWORD")
    if name is None or password is None:
        raise SyntaxFailure("AMQPLAIN auth info does not contain LOGIN and PASSWORD fields")
    return Credentials(
        decoded_user_name(long_string_or_blank(name)), long_string_or_blank(password)
    )


def long_string_or_blank(field: Field) -> bytes:
    """A long string; blank for a value of another type."""
    value = field[1]
    return value if isinstance(value, bytes) else b""


MECHANISMS: Mapping[str, Mechanism] = {
    "PLAIN": login.MECHANISMS["PLAIN"],
    "AMQPLAIN": amqplain_credentials,
    EXTERNAL: login.MECHANISMS[EXTERNAL],
}
"""In the order in which they are offered."""
