"""SASL mechanisms: from the response of connection.start-ok to a name and a password.

EXTERNAL has neither: the certificate that the client showed says who it is, in one of the places
that RabbitMQ's `ssl_cert_login_from` names.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fluffle.broker.access.users import user_name
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.types import Field
from fluffle.protocol.wire import read_fields

EXTERNAL = "EXTERNAL"

PeerCertificate: TypeAlias = Mapping[str, Any]
"""As `ssl` decodes it: `subject` and `subjectAltName` and more; empty when there is none."""

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

RDN_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "dnQualifier": "2.5.4.46",
    "domainComponent": "DC",
    "emailAddress": "EMAILADDRESS",
    "generationQualifier": "GENERATIONQUALIFIER",
    "givenName": "GIVENNAME",
    "initials": "INITIALS",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "pseudonym": "PSEUDONYM",
    "serialNumber": "SERIALNUMBER",
    "stateOrProvinceName": "ST",
    "streetAddress": "2.5.4.9",
    "surname": "SN",
    "title": "TITLE",
    "userId": "UID",
}
"""As RabbitMQ writes them in a distinguished name; OpenSSL gives all others as numbers, too."""
ESCAPED = frozenset(b'"+,;<>\\')


def distinguished_name(certificate: PeerCertificate) -> str:
    """RFC 4514: `CN=alice,O=example`, the last part of the subject first."""
    parts = (
        "+".join(f"{RDN_NAMES.get(name, name)}={escaped(value)}" for name, value in part)
        for part in reversed(certificate["subject"])
    )
    return ",".join(parts)


def common_name(certificate: PeerCertificate) -> str:
    """All common names of the subject, joined by commas."""
    return ",".join(
        value for part in certificate["subject"] for name, value in part if name == "commonName"
    )


def alternative_name(certificate: PeerCertificate) -> str:
    """The first name of a host among the alternative names."""
    names = (value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    return next(names, "")


def escaped(value: str) -> str:
    """A value in a distinguished name (RFC 4514 §2.4); RabbitMQ writes what is not ASCII in hex."""
    text = "".join(map(escaped_octet, value.encode()))
    if text.startswith(("#", " ")):
        text = "\\" + text
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(value) > 1 else text


def escaped_octet(octet: int) -> str:
    if not 32 <= octet < 126:
        return f"\\{octet:02X}"
    return f"\\{octet:c}" if octet in ESCAPED else chr(octet)


LOGIN_FROM: dict[str, Callable[[PeerCertificate], str]] = {
    "distinguished_name": distinguished_name,
    "common_name": common_name,
    "subject_alternative_name": alternative_name,
}


def certified_name(certificate: PeerCertificate, login_from: str) -> str:
    """The user that a certificate stands for; empty when it names none there."""
    return LOGIN_FROM[login_from](certificate)
