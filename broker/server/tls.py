"""The certificates of a node: read at the start, and again whenever their files change.

Every handshake asks for the context, so that a certificate that was renewed is used from the next
connection on, and connections that are open stay.  What cannot be used is logged once, and the last
one that could serves on: the files of a pair are hardly ever replaced at the same moment.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, TypeAlias

from fluffle.broker.logs import event
from fluffle.broker.server.entrance import reason_of
from fluffle.broker.starting import StartFailed

VERIFY_MODES: Mapping[str, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "request": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}

Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]
"""Device, inode and time of change of each file; None for one that is not there."""

logger = logging.getLogger(__name__)


class Certificates:
    """What a node shows to clients, and how it checks what they show."""

    __slots__ = ("_ca", "_cert", "_context", "_key", "_stamp", "_verify")

    def __init__(self, cert: Path, key: Path | None, ca: Path | None, *, verify: str) -> None:
        """`verify` is a key of VERIFY_MODES.  Raises StartFailed."""
        if verify != "none" and ca is None:
            raise StartFailed(
                f"--tls-verify {verify} needs the authorities that sign the certificates of "
                "clients; name their file with --tls-ca"
            )
        self._cert = cert
        self._key = key
        """None when it is in the file of the certificate."""
        self._ca = ca
        self._verify = VERIFY_MODES[verify]
        self._stamp = self._current_stamp()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        if self._current_stamp() != self._stamp:
            self.reload()
        return self._context

    def reload(self) -> None:
        """Read the files again; if they cannot be used, log it and keep what there is."""
        self._stamp = self._current_stamp()
        try:
            self._context = self._load()
        except StartFailed as error:
            event(logger, logging.ERROR, "certificates_kept", reason=error)
            return
        event(logger, logging.INFO, "certificates_loaded", file=self._cert)

    def _current_stamp(self) -> Stamp:
        return tuple(_stamp(file) for file in (self._cert, self._key, self._ca) if file)

    def _load(self) -> ssl.SSLContext:
        for option, file in (("cert", self._cert), ("key", self._key), ("ca", self._ca)):
            if file is not None:
                check_readable(f"--tls-{option}", file)
        if self._key is None and b"PRIVATE KEY-----" not in self._cert.read_bytes():
            raise StartFailed(
                f"there is no key in {self._cert}; name the PEM file of its key with --tls-key"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.verify_mode = self._verify
        try:
            context.load_cert_chain(self._cert, self._key, password=_refuse_password)
        except OSError as error:
            raise self._unusable_pair(error) from error
        if self._ca is not None:
            try:
                context.load_verify_locations(self._ca)
            except OSError as error:
                raise StartFailed(
                    f"cannot use the authorities in {self._ca} ({reason_of(error)}); name a PEM "
                    "file with --tls-ca"
                ) from error
        return context

    def _unusable_pair(self, error: OSError) -> StartFailed:
        files = f"the certificate in {self._cert}"
        if self._key is not None:
            files += f" with the key in {self._key}"
        return StartFailed(
            f"cannot use {files} ({reason_of(error)}); name a PEM file that holds the whole chain "
            "with --tls-cert, and the file of its key with --tls-key"
        )


def check_readable(option: str, file: Path) -> None:
    """StartFailed for a file that OpenSSL could not open, which would not say which one it is."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise StartFailed(
            f"cannot read {file} ({error.strerror}); name another file with {option}"
        ) from error


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _refuse_password() -> NoReturn:
    """OpenSSL would ask for it on the terminal, in the middle of a start or of a reload."""
    raise StartFailed(
        "the key of --tls-key is encrypted; decrypt it (openssl pkey -in KEY -out PLAIN_KEY) and "
        "let the permissions of the file guard it"
    )
