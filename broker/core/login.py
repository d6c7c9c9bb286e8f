"""Login of a client, whatever its protocol: what it shows of itself, and who it is then.

A protocol reads a user name and a password, or takes those of its configuration for a client that
says neither, or lets a SASL mechanism read them.  A `Login` finds the user, now or later, counts,
logs and observes the outcome, and answers it.  `admission` knows which virtual hosts he may open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from fluffle.broker.access.access import (
    LoginAnswer,
    LoginRefused,
    PasswordChecksOverloaded,
    User,
    decoded_user_name,
)
from fluffle.broker.base.errors import BrokerError, CommandInvalid, SyntaxFailure
from fluffle.broker.base.logs import event
from fluffle.broker.base.traffic import Logins
from fluffle.broker.core.client import ClientConnection
from fluffle.broker.core.connections import NO_ANSWER
from fluffle.broker.process.encryption import certified_name

if TYPE_CHECKING:
    from fluffle.broker.core.connections import Deadlines
    from fluffle.broker.core.services import Services

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
