"""How a connection is encrypted and who has shown a certificate, in RabbitMQ's words.

ECDHE-RSA-AES256-GCM-SHA384 --> key exchange ecdhe_rsa, cipher aes_256_gcm, hash aead
TLS_AES_256_GCM_SHA384      --> any, aes_256_gcm, aead
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fluffle.broker.protocols.amqp091.sasl import PeerCertificate, distinguished_name

if TYPE_CHECKING:
    import ssl

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
    """Whose it is, who vouches for that, and how long."""
    issuer = {**certificate, "subject": certificate.get("issuer", ())}
    times = (time_of(certificate[each]) for each in ("notBefore", "notAfter"))
    return {
        "peer_cert_subject": distinguished_name(certificate),
        "peer_cert_issuer": distinguished_name(issuer),
        "peer_cert_validity": " - ".join(times),
    }


def time_of(text: str) -> str:
    """As in a certificate, in the form of ISO 8601."""
    import ssl  # noqa: PLC0415  whoever has a certificate has imported it
    from datetime import UTC, datetime  # noqa: PLC0415  likewise

    at = datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def suite_of(name: str) -> CipherSuite:
    """By the name that OpenSSL has for it."""
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
