"""SASL mechanisms: from the response of connection.start-ok to a name and a password.

EXTERNAL has neither: the certificate that the client showed says who it is (`process/encryption`).
"""

from collections.abc import Callable

from fluffle.broker.access.users import user_name
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.types import Field
from fluffle.protocol.wire import read_fields

EXTERNAL = "EXTERNAL"

Credentials = tuple[str, bytes]
"""A user name and a password."""


def plain(response: bytes) -> Credentials:
    """RFC 4616: NUL, user name, NUL, password.  SyntaxFailure.

    No one acts for another, so an authorization identity in front is refused, as by RabbitMQ.
    """
    identity, *parts = response.split(b"\x00")
    if identity or len(parts) != 2:
        raise SyntaxFailure("response is not of the form NUL name NUL password")
    return user_name(parts[0]), parts[1]


def amqplain(response: bytes) -> Credentials:
    """A field table without its length, with LOGIN and PASSWORD.  SyntaxFailure.

    One that is no string is blank, and so is refused like a wrong one.
    """
    try:
        table = read_fields(response, 0, len(response))
    except ProtocolError as error:
        raise SyntaxFailure("AMQPLAIN response is no field table") from error
    login, password = table.get("LOGIN"), table.get("PASSWORD")
    if login is None or password is None:
        raise SyntaxFailure("AMQPLAIN auth info does not contain LOGIN and PASSWORD fields")
    return user_name(string(login)), string(password)


def string(field: Field) -> bytes:
    """A long string; blank for a value of another type."""
    value = field[1]
    return value if isinstance(value, bytes) else b""


MECHANISMS: dict[str, Callable[[bytes], Credentials]] = {"PLAIN": plain, "AMQPLAIN": amqplain}
