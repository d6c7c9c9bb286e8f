"""SASL mechanisms: from the response of connection.start-ok to a name and a password."""

from collections.abc import Callable

from fluffle.broker.errors import SyntaxFailure
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.wire import read_fields

Credentials = tuple[str, bytes]
"""A user name and a password."""


def plain(response: bytes) -> Credentials:
    """RFC 4616: authorization identity, NUL, user name, NUL, password.  SyntaxFailure."""
    parts = response.split(b"\x00")
    if len(parts) != 3:
        raise SyntaxFailure("response is not of the form [identity] NUL name NUL password")
    return text(parts[1]), parts[2]


def amqplain(response: bytes) -> Credentials:
    """A field table without its length, with LOGIN and PASSWORD.  SyntaxFailure."""
    try:
        table = read_fields(response, 0, len(response))
    except ProtocolError as error:
        raise SyntaxFailure("AMQPLAIN response is no field table") from error
    login, password = table.get("LOGIN"), table.get("PASSWORD")
    if login is None or password is None:
        raise SyntaxFailure("AMQPLAIN auth info does not contain LOGIN and PASSWORD fields")
    if not isinstance(login[1], bytes) or not isinstance(password[1], bytes):
        raise SyntaxFailure("AMQPLAIN auth info has LOGIN or PASSWORD that is no long string")
    return text(login[1]), password[1]


def text(name: bytes) -> str:
    """A user name; bytes that are not UTF-8 make one that no user has."""
    return name.decode(errors="surrogateescape")


MECHANISMS: dict[str, Callable[[bytes], Credentials]] = {"PLAIN": plain, "AMQPLAIN": amqplain}
