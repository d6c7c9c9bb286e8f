"""TLS between nodes: one certificate for both roles, and which end may show another.

With authorities both ends verify, and the dialler looks for the host that it dialled in the
certificate.  Without, TLS only hides what is said; but the certificate of the listener is part of
the proofs of the handshake, so that without the secret none can be put in its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.cluster.links.handshake import refusal
from fluffle.broker.cluster.links.identity import HelloRefusal
from fluffle.broker.process.certificates import CertificateFiles, ReloadedFiles

IN_THE_CLEAR = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
"""Errors by which OpenSSL reports a client that does not speak TLS; which one depends on its
version."""

BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class LinkContexts:
    """TLS contexts made from the certificate files."""

    listening: ssl.SSLContext
    dialling: ssl.SSLContext
    binding: bytes
    """Channel binding of the certificate that `listening` shows."""


class LinkCertificates:
    """Certificates a node shows to other nodes, and the check of theirs."""

    def __init__(self, cert: Path, key: Path | None = None, ca: Path | None = None) -> None:
        """`ca`: the authorities of the certificates of all nodes.  Raises StartFailed."""
        self._files = CertificateFiles(cert, key, ca, option="--cluster-tls")
        self._reloaded = ReloadedFiles(self._files, self._make)

    def current(self) -> LinkContexts:
        """Contexts for the next handshake."""
        return self._reloaded.current()

    def reload(self) -> None:
        """Read the files again; if they cannot be used, log it and keep what there is."""
        self._reloaded.reload()

    def _make(self) -> LinkContexts:
        listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._files.ca is None:
            dialling.check_hostname = False
            dialling.verify_mode = ssl.CERT_NONE
        else:
            listening.verify_mode = ssl.CERT_REQUIRED
        for context in (listening, dialling):
            self._files.load_into(context)
        return LinkContexts(listening, dialling, _binding_of(_first_certificate(self._files.cert)))


async def accept(
    client: socket.socket, context: ssl.SSLContext | None, make: Callable[[], asyncio.Protocol]
) -> None:
    """Have a transport for a socket that was accepted, over TLS if there is a context.

    A client that speaks in the clear is sent a TLS alert: asyncio closes the socket without what
    TLS has to say.  Raises `ssl.SSLError` all the same.
    """
    loop = asyncio.get_running_loop()
    with client.dup() as still_open:
        try:
            await loop.connect_accepted_socket(make, client, ssl=context)
        except ssl.SSLError as error:
            _refuse(still_open, error)
            raise


def _refuse(client: socket.socket, error: ssl.SSLError) -> None:
    if error.reason in IN_THE_CLEAR:
        with suppress(OSError):  # it has gone by itself
            client.send(refusal(HelloRefusal.TLS))


def binding_seen(transport: asyncio.Transport) -> bytes:
    """Channel binding as the dialler sees it; empty without TLS."""
    tls = transport.get_extra_info("ssl_object")
    return b"" if tls is None else _binding_of(tls.getpeercert(binary_form=True))


def _binding_of(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()


def _first_certificate(file: Path) -> bytes:
    """DER of the one that is shown; those behind it lead to an authority."""
    text = file.read_bytes()
    start, end = text.find(BEGIN), text.find(END)
    if not 0 <= start < end:
        raise StartFailed(f"there is no certificate in {file}; name a PEM file")
    return ssl.PEM_cert_to_DER_cert(text[start : end + len(END)].decode("ascii"))
