"""Login of a client, whatever its protocol: who it is, and what it is admitted to then.

A protocol reads a user name and a password, or takes those of its configuration for a client that
says neither, or lets a SASL mechanism read them.  A `Login` finds the user, now or later, counts,
logs and observes the outcome, and answers it.

Then it is admitted to a virtual host and to channels, or is not, in RabbitMQ's order and with its
texts; all refusals concern the connection.  What a change takes away is revoked while it is open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.access.access import (
    Access,
    LoginAnswer,
    LoginRefused,
    PasswordChecksOverloaded,
    User,
    decoded_user_name,
)
from fluffle.broker.access.limits import LimitedResource, is_reached
from fluffle.broker.base.errors import (
    BrokerError,
    CommandInvalid,
    ConnectionForced,
    NotAllowed,
    SyntaxFailure,
)
from fluffle.broker.base.logs import event
from fluffle.broker.base.traffic import Logins
from fluffle.broker.core.client import ClientConnection
from fluffle.broker.core.connections import NO_ANSWER, Deadlines, close_connection
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import Session
from fluffle.broker.process.encryption import certified_name
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.vhosts.vhost import VirtualHost

EXTERNAL = "EXTERNAL"
"""The mechanism that takes the user from the certificate of the client."""

HANDSHAKE = "handshake"
"""Name of the deadline by which a client has to log in and open a virtual host."""

logger = logging.getLogger(__name__)


class LoginClient(ClientConnection, Protocol):
    """Connection of a client that logs in."""

    deadlines: Deadlines

    @property
    def services(self) -> Services: ...

    @property
    def is_from_loopback(self) -> bool:
        """True if it comes from this machine, with a proxy or without."""

    @property
    def is_logging_in(self) -> bool:
        """True if it waits for the outcome of its login."""

    @property
    def handshake_timeout_s(self) -> float:
        """How long it may take to log in and to open a virtual host."""


class Credentials(NamedTuple):
    """A user name, with the password that has to prove it."""

    name: str
    password: bytes | None
    """None where a certificate has proved it; then a blank name is that of no user."""


# Mechanisms

Mechanism: TypeAlias = Callable[[LoginClient, bytes], Credentials]
"""Reads the response of a client.  SyntaxFailure."""


def plain_credentials(_client: LoginClient, response: bytes) -> Credentials:
    """RFC 4616: NUL, user name, NUL, password.  SyntaxFailure.

    No one acts for another, so an authorization identity in front is refused, as by RabbitMQ.
    """
    identity, *parts = response.split(b"\x00")
    if identity or len(parts) != 2:
        raise SyntaxFailure("response is not of the form NUL name NUL password")
    return Credentials(decoded_user_name(parts[0]), parts[1])


def certificate_credentials(client: LoginClient, _response: bytes = b"") -> Credentials:
    """Read the user whom the verified certificate of the client names; there is nothing to say."""
    name = certified_name(client.certificate, client.services.certificate_login)
    return Credentials(name, password=None)


MECHANISMS: Mapping[str, Mechanism] = {
    "PLAIN": plain_credentials,
    EXTERNAL: certificate_credentials,
}
"""SASL mechanisms that any protocol can offer."""


class UnknownMechanism(CommandInvalid):
    """A mechanism is not offered to the client that chose it."""

    def __init__(self, mechanism: str) -> None:
        super().__init__(f"unknown authentication mechanism '{mechanism}'")


def offered_mechanisms(client: LoginClient, mechanisms: Mapping[str, Mechanism]) -> tuple[str, ...]:
    """Return the mechanisms of a protocol that are switched on; EXTERNAL needs a certificate."""
    allowed = client.services.mechanisms
    return tuple(
        name for name in mechanisms if name in allowed and (name != EXTERNAL or client.certificate)
    )


def read_response(
    client: LoginClient, mechanisms: Mapping[str, Mechanism], mechanism: str, response: bytes
) -> Credentials:
    """Read what a client answers to a mechanism of its protocol.

    UnknownMechanism, SyntaxFailure.
    """
    if mechanism not in offered_mechanisms(client, mechanisms):
        raise UnknownMechanism(mechanism)
    return mechanisms[mechanism](client, response)


# Time


def expect_login(client: LoginClient) -> None:
    """Give the client its time to log in and to open a virtual host."""
    client.deadlines.give(HANDSHAKE, client.handshake_timeout_s, NO_ANSWER)


def ask_read_barrier(
    client: LoginClient, known: Callable[[], None], failed: Callable[[BrokerError], None]
) -> None:
    """Ask as `ReadBarrier.ask` does, for a client that is not in yet: its time begins again behind
    that."""
    client.deadlines.met(HANDSHAKE)

    def go_on() -> None:
        expect_login(client)
        known()

    client.services.read_barrier.ask(go_on, failed)


# Logins


@dataclass(slots=True, eq=False)
class Login:
    """Login of a client, under way until it is answered or the client has gone.

    A refusal is given once it is known here whether the user is another by what was answered
    elsewhere.
    """

    _client: LoginClient
    _mechanism: str
    _credentials: Credentials = field(repr=False)
    _answer: LoginAnswer
    """Called with the outcome if the client still waits for it, once it has been counted, logged
    and observed; it raises nothing but bugs."""

    def begin(self) -> None:
        """Find the user; `answer` may be called before this returns."""
        self._attempt(self._on_first_outcome)

    def _attempt(self, answer: LoginAnswer) -> None:
        client, (name, password) = self._client, self._credentials
        access, is_local = client.services.access, client.is_from_loopback
        if password is not None:
            access.login(
                name,
                password,
                answer,
                from_loopback=is_local,
                source=client.ends[0][0],
                is_there=lambda: client.is_logging_in,
            )
        elif name:
            answer(access.admit(name, from_loopback=is_local))
        else:
            answer(LoginRefused("the certificate names nobody"))

    def _on_first_outcome(self, outcome: User | LoginRefused) -> None:
        client, name = self._client, self._credentials.name
        access, read_barrier = client.services.access, client.services.read_barrier
        is_refused = isinstance(outcome, LoginRefused) and not isinstance(
            outcome, PasswordChecksOverloaded
        )
        if read_barrier.is_complete or not is_refused:
            self._end(outcome)
            return
        before = access.users.get(name)

        def known() -> None:
            if access.users.get(name) is before:
                self._end(outcome)
            else:
                self._attempt(self._end)

        ask_read_barrier(client, known, self._fail)

    def _fail(self, error: BrokerError) -> None:
        """End the login if it cannot be decided now."""
        if self._client.is_logging_in:
            self._client.fail(error)

    def _end(self, outcome: User | LoginRefused) -> None:
        if not self._client.is_logging_in:
            return
        try:
            if isinstance(outcome, LoginRefused):
                self._note_refusal(outcome)
            else:
                self._note_success(outcome)
            self._answer(outcome)
        except Exception as error:  # noqa: BLE001 - a bug ends one connection, whoever called
            self._client.give_up(error)

    @property
    def _counters(self) -> Logins:
        client = self._client
        return client.services.runtime.traffic.logins_of(client.traffic_labels)

    def _note_refusal(self, refused: LoginRefused) -> None:
        client, name = self._client, self._credentials.name
        self._counters.failed += 1
        if not isinstance(refused, PasswordChecksOverloaded):
            event(
                logger,
                logging.WARNING,
                "authentication_failed",
                connection=client.name,
                user=name,
                mechanism=self._mechanism,
                client=client.handshake.client_id or client.handshake.client_name,
                reason=str(refused),
            )
        for observer in client.services.observers:
            observer.refused(client, self._mechanism, name, str(refused))

    def _note_success(self, user: User) -> None:
        client = self._client
        self._counters.succeeded += 1
        client.handshake.user = user
        client.services.connections.logged_in(client)
        for observer in client.services.observers:
            observer.logged_in(client, self._mechanism, user.name)


class VhostNotFound(NotAllowed):
    """The virtual host is not there."""


class ConnectionLimitReached(NotAllowed):
    """Refusal beyond the connection limit of the node, the virtual host or the user."""


def check_admission(services: Services, user: User, vhost_name: str) -> VirtualHost:
    """Return the virtual host that a user wants to open.

    VhostNotFound, ConnectionLimitReached, and plain NotAllowed without the right.
    """
    usage = services.access.usage
    node_limit = services.limits.connections_max
    if node_limit is not None and is_reached(node_limit, usage.connection_count):
        raise ConnectionLimitReached(
            f"connection refused: node connection limit ({node_limit}) is reached"
        )
    vhost = services.vhosts.get(vhost_name)
    if vhost is None:
        raise VhostNotFound(f"vhost {vhost_name} not found")
    current = services.access.current(user)
    if current is None:
        raise vhost_refused(user, vhost_name)
    limit = vhost.limits.max_connections
    if limit is not None and is_reached(
        limit, usage.in_all(LimitedResource.CONNECTIONS_TO_VHOST, vhost_name)
    ):
        refused = vhost_refused(user, vhost_name)
        raise ConnectionLimitReached(
            f"{refused.explanation}: connection limit ({limit}) is reached"
        )
    limit = current.limits.max_connections
    if limit is not None and is_reached(
        limit, usage.in_all(LimitedResource.CONNECTIONS_OF_USER, user.name)
    ):
        raise ConnectionLimitReached(
            f"connection refused for user '{user.name}': user connection limit ({limit}) is reached"
        )
    if (user.name, vhost_name) not in services.access.permissions:
        raise vhost_refused(user, vhost_name)
    return vhost


def admit(client: LoginClient, vhost_name: str) -> VirtualHost | Deferred[VirtualHost]:
    """Find the virtual host that a client wants to open, for the user it has logged in as.

    NotAllowed, as of `check_admission`; if it may only be unknown here that it may, that is known
    later.
    """
    services, user = client.services, client.handshake.user
    assert user is not None, "it has logged in"
    try:
        return check_admission(services, user, vhost_name)
    except NotAllowed:
        if services.read_barrier.is_complete:
            raise
    admission: Deferred[VirtualHost] = Deferred()

    def known() -> None:
        try:
            vhost = check_admission(services, user, vhost_name)
        except NotAllowed as refused:
            admission.fail(refused)
        else:
            admission.answer(vhost)

    ask_read_barrier(client, known, admission.fail)
    return admission


def vhost_refused(user: User, vhost_name: str) -> NotAllowed:
    """The error for a user who may not open a virtual host, or is not there to open it."""
    return NotAllowed(f"access to vhost '{vhost_name}' refused for user '{user.name}'")


def check_channel_limit(access: Access, user: User) -> None:
    """NotAllowed when the user has all the channels he may have."""
    limit = user.limits.max_channels
    if limit is not None and is_reached(
        limit, access.usage.in_all(LimitedResource.CHANNELS_OF_USER, user.name)
    ):
        raise NotAllowed(
            f"number of channels opened for user '{user.name}' has reached the maximum allowed "
            f"user limit of ({limit})"
        )


def on_access_change(services: Services, connection: ClientConnection, session: Session) -> None:
    """The user of a connection, his rights or the virtual host have changed."""
    why = expulsion(services, session)
    if why is not None:
        services.forced_closes.add(partial(close_connection, connection, why))
        return
    try:
        ask_again(session)
    except Exception as error:  # noqa: BLE001 - who may have kept a right has to go
        connection.give_up(error)
        return
    if any(channel.subscriptions for channel in connection.channels):
        services.forced_closes.add(partial(check_consumers, connection, session))


def check_consumers(connection: ClientConnection, session: Session) -> None:
    """End consumers that have lost the right to read."""
    if connection.session is not session:
        return
    try:
        end_forbidden(connection, session)
    except Exception as error:  # noqa: BLE001 - who may have kept a right has to go
        connection.give_up(error)


def expulsion(services: Services, session: Session) -> ConnectionForced | None:
    """Why a connection has to go, if it has to: its user or its virtual host is gone."""
    if session.user.name not in services.access.users:
        return ConnectionForced(f"user '{session.user.name}' is deleted")
    if services.vhosts.get(session.vhost.name) is not session.vhost:
        return ConnectionForced(f"vhost '{session.vhost.name}' is deleted")
    return None


def ask_again(session: Session) -> None:
    """The user or his rights may have changed: forget what was true of them."""
    session.user = session.access.users[session.user.name]
    session.rights.forget()
    session.route_cache.clear()


def end_forbidden(connection: ClientConnection, session: Session) -> None:
    """End the consumers that may not read any more."""
    for channel in tuple(connection.channels):
        for each in tuple(channel.subscriptions.values()):
            consumer = each.consumer
            if not session.rights.may("read", consumer.queue.name):
                session.detach(consumer)
                consumer.sink.cancelled(consumer)
