"""Enhanced authentication of MQTT 5.0: a SASL mechanism by CONNECT, AUTH and CONNACK.  S5 4.12.

    CONNECT(method, data) --------------------------------------> CONNACK(method)
    CONNECT(method) --> AUTH 0x18 --> AUTH 0x18(method, data) --> CONNACK(method)
    AUTH 0x19(method, data) --> AUTH 0x00(method)    whenever the client shows again who it is

The mechanisms are those that any protocol may offer: none asks for more than one response.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.access.access import LoginRefused, PasswordChecksOverloaded
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.core.login import (
    EXTERNAL,
    HANDSHAKE,
    MECHANISMS,
    Credentials,
    Login,
    LoginClient,
    expect_login,
    read_response,
)
from fluffle.protocol.mqtt.codes import ReasonCode, protocol_error
from fluffle.protocol.mqtt.packets import Auth
from fluffle.protocol.mqtt.properties import Properties, PropertyId

if TYPE_CHECKING:
    from fluffle.broker.access.access import User


class AuthenticatedClient(LoginClient, Protocol):
    """Connection of a client that has named a method in its CONNECT."""

    def expect_response(self, *, is_expected: bool) -> None:
        """Take a response, or DISCONNECT, before the answer to CONNECT, or no more."""

    def send(self, packet: Auth) -> None:
        """Send a packet at the end of this turn."""

    def disconnect(self, code: ReasonCode, text: str) -> None:
        """End the connection, with the reason for the client."""


class Authentication:
    """Authentication of one client by one method, at CONNECT and whenever it asks again."""

    __slots__ = ("_client", "_name", "_take_response", "is_repeated", "method")

    def __init__(self, client: AuthenticatedClient, method: str) -> None:
        self._client = client
        self.method = method
        self._take_response: Callable[[bytes], None] | None = None
        """Takes the response that the client has been asked for, if it has."""
        self._name: str | None = None
        """Name that the client has logged in by, maybe with a virtual host before it."""
        self.is_repeated = False
        """True while the client logs in again."""

    def ask(self, response: bytes | None, take: Callable[[bytes], None]) -> None:
        """Have `take` called with the response of the client: the one that came with the method,
        or else one that it is asked for, if the mechanism has any."""
        if response is None and self.method != EXTERNAL:
            self._take_response = take
            if self._client.is_logging_in:
                self._client.expect_response(is_expected=True)
            self._send(ReasonCode.CONTINUE_AUTHENTICATION)
        else:
            take(response or b"")

    def credentials(self, response: bytes) -> Credentials:
        """Read a response.  SyntaxFailure; UnknownMechanism if it is not offered any more."""
        credentials = read_response(self._client, MECHANISMS, self.method, response)
        if self._name is None:
            self._name = credentials.name
        return credentials

    def go_on(self, packet: Auth) -> None:
        """Take an AUTH of the client.  InvalidPacket."""
        if packet.properties.text(PropertyId.AUTHENTICATION_METHOD) != self.method:
            raise protocol_error("AUTH with another method than CONNECT")
        response = packet.properties.binary(PropertyId.AUTHENTICATION_DATA)
        if packet.code is ReasonCode.CONTINUE_AUTHENTICATION:
            take, self._take_response = self._take_response, None
            if take is None:
                raise protocol_error("AUTH that the broker has not asked for")
            self._client.expect_response(is_expected=False)
            take(response or b"")
            return
        if self._client.is_logging_in or self._take_response is not None:
            raise protocol_error("AUTH while an authentication is under way")
        self.ask(response, self._log_in_again)

    def _log_in_again(self, response: bytes) -> None:
        """Check that the client has the same user as before."""
        client = self._client
        try:
            credentials = self.credentials(response)
        except BrokerError as refused:
            client.disconnect(ReasonCode.NOT_AUTHORIZED, refused.explanation)
            return
        user = client.handshake.user
        if user is None or credentials.name != self._name:
            client.disconnect(ReasonCode.NOT_AUTHORIZED, "authentication as another user")
            return
        self.is_repeated = True
        expect_login(client)
        own = credentials._replace(name=user.name)
        Login(client, self.method, own, self._on_login).begin()

    def _on_login(self, outcome: User | LoginRefused) -> None:
        client, self.is_repeated = self._client, False
        client.deadlines.met(HANDSHAKE)
        if isinstance(outcome, PasswordChecksOverloaded):
            client.disconnect(ReasonCode.SERVER_BUSY, str(outcome))
        elif isinstance(outcome, LoginRefused):
            client.disconnect(ReasonCode.NOT_AUTHORIZED, str(outcome))
        else:
            self._send(ReasonCode.SUCCESS)

    def _send(self, code: ReasonCode) -> None:
        properties = Properties({PropertyId.AUTHENTICATION_METHOD: self.method})
        self._client.send(Auth(code, properties))
