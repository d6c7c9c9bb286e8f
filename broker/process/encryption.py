"""Encryption of a connection in RabbitMQ's words, and the user that a certificate stands for.

ECDHE-RSA-AES256-GCM-SHA384 --> key exchange ecdhe_rsa, cipher aes_256_gcm, hash aead
TLS_AES_256_GCM_SHA384      --> any, aes_256_gcm, aead
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import ssl

PeerCertificate: TypeAlias = Mapping[str, Any]
"""Certificate as `ssl` decodes it: `subject`, `subjectAltName` and more; empty when there is
none."""

AUTHENTICATED = ("gcm", "ccm", "ccm_8", "poly1305")
"""Modes that need no hash of their own."""

FIRST_OF_CIPHER = re.compile(r"(AES|CHACHA20|CAMELLIA|ARIA|DES|RC4|SEED|IDEA|NULL)")
SIZE = re.compile(r"^(aes|camellia|aria)(\d)")
SIZED = re.compile(r"_\d+$")
"""Ciphers of blocks whose mode OpenSSL does not say: it is the usual one."""
HASH = re.compile(r"^(SHA\d*|MD5)$")

NOT_ENCRYPTED: Mapping[str, Any] = dict.fromkeys(
    (
        *("ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash"),
        *("peer_cert_subject", "peer_cert_issuer", "peer_cert_validity"),
    )
)


class CipherSuite(NamedTuple):
    """Algorithms that encrypt a connection."""

    key_exchange: str
    cipher: str
    hash: str


def encryption_row(tls: ssl.SSLObject, certificate: PeerCertificate) -> dict[str, Any]:
    """The words of `NOT_ENCRYPTED` for a connection that is."""
    name, *_ = tls.cipher() or ("",)
    suite = suite_of(name)
    return {
        **NOT_ENCRYPTED,
        "ssl_protocol": (tls.version() or "").lower(),
        "ssl_key_exchange": suite.key_exchange,
        "ssl_cipher": suite.cipher,
        "ssl_hash": suite.hash,
        **(certificate_row(certificate) if certificate else {}),
    }


def certificate_row(certificate: PeerCertificate) -> dict[str, str]:
    """Columns of a certificate: subject, issuer and validity."""
    issuer = {**certificate, "subject": certificate.get("issuer", ())}
    times = (time_of(certificate[each]) for each in ("notBefore", "notAfter"))
    return {
        "peer_cert_subject": distinguished_name(certificate),
        "peer_cert_issuer": distinguished_name(issuer),
        "peer_cert_validity": " - ".join(times),
    }


def time_of(text: str) -> str:
    """Time in a certificate, in the form of ISO 8601."""
    import ssl  # noqa: PLC0415  a node with a certificate has imported it
    from datetime import UTC, datetime  # noqa: PLC0415  likewise

    at = datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def suite_of(name: str) -> CipherSuite:
    """Parts of a cipher suite, by OpenSSL's name."""
    if name.startswith("TLS_"):
        cipher, _, _digest = name.removeprefix("TLS_").rpartition("_SHA")
        return CipherSuite("any", cipher.lower(), "aead")
    words = name.split("-")
    at = next((at for at, word in enumerate(words) if FIRST_OF_CIPHER.match(word)), len(words))
    exchange = "_".join(words[:at]).lower() or "rsa"
    rest = words[at:]
    digest = rest.pop().lower() if rest and HASH.match(rest[-1]) else ""
    cipher = SIZE.sub(r"\1_\2", "_".join(rest).lower())
    if cipher.endswith(AUTHENTICATED):
        return CipherSuite(exchange, cipher, "aead")
    return CipherSuite(exchange, f"{cipher}_cbc" if SIZED.search(cipher) else cipher, digest)


# Certificates

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
"""Attributes of a distinguished name as RabbitMQ writes them; OpenSSL gives all others as numbers,
too."""
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


SAN_KINDS = {"dns": "DNS", "ip": "IP Address", "email": "email", "uri": "URI"}
"""Python's names of the kinds of alternative names, by RabbitMQ's words."""


def alternative_name(certificate: PeerCertificate, san_type: str = "dns", index: int = 0) -> str:
    """Alternative name of a kind at `index`; empty if there is none."""
    kind = SAN_KINDS[san_type]
    names = [value for each, value in certificate.get("subjectAltName", ()) if each == kind]
    return names[index] if index < len(names) else ""


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
