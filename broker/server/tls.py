"""TLS for clients: the certificate that the node shows them, and whether it asks for theirs."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from fluffle.broker.certificates import CertificateFiles, Reloaded
from fluffle.broker.starting import StartFailed

VERIFY_MODES: Mapping[str, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "request": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}


class Certificates:
    """What a node shows to clients, and how it checks what they show."""

    __slots__ = ("_files", "_reloaded", "_verify")

    def __init__(self, cert: Path, key: Path | None, ca: Path | None, *, verify: str) -> None:
        """`verify` is a key of VERIFY_MODES.  Raises StartFailed."""
        if verify != "none" and ca is None:
            raise StartFailed(
                f"--tls-verify {verify} needs the authorities that sign the certificates of "
                "clients; name their file with --tls-ca"
            )
        self._files = CertificateFiles(cert, key, ca)
        self._verify = VERIFY_MODES[verify]
        self._reloaded = Reloaded(self._files, self._make)

    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        return self._reloaded.current()

    def reload(self) -> None:
        """Read the files again; if they cannot be used, log it and keep what there is."""
        self._reloaded.reload()

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = self._verify
        self._files.load_into(context)
        return context
