"""Certificates in files, and the TLS that clients are served with.

Files are read at the start, and again whenever they change.  Every handshake asks for what was made
of them, so that a certificate that was renewed is used from the next connection on, and connections
that are open stay.  What cannot be used is logged once, and the last one that could serves on: the
files of a pair are hardly ever replaced at the same moment.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, NamedTuple, NoReturn, TypeAlias, TypeVar

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.base.logs import event, reason_of
from fluffle.broker.config.config import Config

Made = TypeVar("Made")

Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]
"""Device, inode and time of change of each file; None for one that is not there."""

VERIFY_MODES: Mapping[str, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "request": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}

VERSIONS: Mapping[str, ssl.TLSVersion] = {
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate with its key, and the authorities that sign those of others; PEM."""

    cert: Path
    key: Path | None = None
    """None when it is in the file of the certificate."""
    ca: Path | None = None
    option: str = "--tls"
    """Prefix of the options that name these files."""

    def load_into(self, context: ssl.SSLContext) -> None:
        """Show the certificate, and trust the authorities.  Raises StartFailed."""
        for kind, file in (("cert", self.cert), ("key", self.key), ("ca", self.ca)):
            if file is not None:
                check_readable(f"{self.option}-{kind}", file)
        if self.key is None and b"PRIVATE KEY-----" not in self.cert.read_bytes():
            raise StartFailed(
                f"there is no key in {self.cert}; name the PEM file of its key with "
                f"{self.option}-key"
            )
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self.cert, self.key, password=self._refuse_password)
        except OSError as error:
            raise self._unusable_pair(error) from error
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except OSError as error:
                raise StartFailed(
                    f"cannot use the authorities in {self.ca} ({reason_of(error)}); name a PEM "
                    f"file with {self.option}-ca"
                ) from error

    def stamp(self) -> Stamp:
        """Changes when a file does."""
        return tuple(_stamp(file) for file in (self.cert, self.key, self.ca) if file)

    def _unusable_pair(self, error: OSError) -> StartFailed:
        files = f"the certificate in {self.cert}"
        if self.key is not None:
            files += f" with the key in {self.key}"
        return StartFailed(
            f"cannot use {files} ({reason_of(error)}); name a PEM file that holds the whole chain "
            f"with {self.option}-cert, and the file of its key with {self.option}-key"
        )

    def _refuse_password(self) -> NoReturn:
        """OpenSSL would ask for it on the terminal, in the middle of a start or of a reload."""
        raise StartFailed(
            f"the key of {self.option}-key is encrypted; decrypt it (openssl pkey -in KEY -out "
            "PLAIN_KEY) and let the permissions of the file guard it"
        )


class ReloadedFiles(Generic[Made]):
    """An object made of some files, made anew when they change."""

    def __init__(self, files: CertificateFiles, make: Callable[[], Made]) -> None:
        """`make` raises StartFailed, and so does this."""
        self._files = files
        self._make = make
        self._stamp = files.stamp()
        self._made = make()

    def current(self) -> Made:
        """Return what was made of the files, for the next handshake."""
        if self._files.stamp() != self._stamp:
            self.reload()
        return self._made

    def reload(self) -> None:
        """Read the files again; if they cannot be used, log it and keep what there is."""
        self._stamp = self._files.stamp()
        try:
            self._made = self._make()
        except StartFailed as error:
            event(logger, logging.ERROR, "certificates_kept", reason=error)
            return
        event(logger, logging.INFO, "certificates_loaded", file=self._files.cert)


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


PEM = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
VERSION_TAG = 0xA0
UTC_TIME_TAG = 0x17
LONG_SIZE = 0x80
"""Beyond this a size says in how many octets it is written."""


class Value(NamedTuple):
    """Value of a DER encoding: its type, and where its content starts and stops."""

    tag: int
    start: int
    stop: int


def ends_in(file: Path) -> list[datetime]:
    """Return when the certificates in a file end, which the standard library does not read.

    What cannot be read is logged where it is used.
    """
    try:
        blocks = PEM.findall(file.read_text(errors="replace"))
        return [end_of(ssl.PEM_cert_to_DER_cert(block)) for block in blocks]
    except (OSError, ValueError, IndexError):
        return []


def end_of(certificate: bytes) -> datetime:
    """Return when a certificate expires (RFC 5280, section 4.1).  ValueError, IndexError."""
    whole, *_ = values(certificate, 0, len(certificate))
    to_be_signed, *_ = values(certificate, whole.start, whole.stop)
    fields = list(values(certificate, to_be_signed.start, to_be_signed.stop))
    has_version = fields[0].tag == VERSION_TAG
    validity = fields[4 if has_version else 3]
    _begin, end = values(certificate, validity.start, validity.stop)
    text = certificate[end.start : end.stop].decode("ascii")
    digits = "%y%m%d%H%M%SZ" if end.tag == UTC_TIME_TAG else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text, digits).replace(tzinfo=UTC)


def values(octets: bytes, at: int, stop: int) -> Iterator[Value]:
    """Iterate over the DER values that follow each other from `at` on."""
    while at < stop:
        tag, size, at = octets[at], octets[at + 1], at + 2
        if size > LONG_SIZE:
            width = size - LONG_SIZE
            size, at = int.from_bytes(octets[at : at + width]), at + width
        yield Value(tag, at, at + size)
        at += size


def certificates_of(config: Config, option: str, *, verify: str) -> Certificates:
    """Return the certificates that an option names; `verify` is a key of `VERIFY_MODES`.  Raises
    StartFailed."""
    if config.tls_cert is None:
        raise StartFailed(
            f"--{option} needs a certificate; name its PEM file with --tls-cert, and that of its "
            "key with --tls-key"
        )
    return Certificates(
        config.tls_cert,
        config.tls_key,
        config.tls_ca,
        verify=verify,
        version_min=config.tls_version_min,
        ciphers=config.tls_ciphers,
    )


def listening_context(certificates: Certificates) -> ssl.SSLContext:
    """Return the context for a listener: each handshake takes what the files hold by then."""
    context = certificates.context()

    def use_renewed(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = certificates.context()

    context.sni_callback = use_renewed
    return context


class Certificates:
    """Certificate that a node shows to clients, and the authorities that check theirs."""

    def __init__(
        self,
        cert: Path,
        key: Path | None,
        ca: Path | None,
        *,
        verify: str,
        version_min: str = "1.2",
        ciphers: str | None = None,
    ) -> None:
        """`verify` is a key of VERIFY_MODES, `version_min` one of VERSIONS.  Raises StartFailed."""
        if verify != "none" and ca is None:
            raise StartFailed(
                f"--tls-verify {verify} needs the authorities that sign the certificates of "
                "clients; name their file with --tls-ca"
            )
        self._files = CertificateFiles(cert, key, ca)
        self._verify = VERIFY_MODES[verify]
        self._version_min, self._ciphers = VERSIONS[version_min], ciphers
        self._reloaded = ReloadedFiles(self._files, self._make)

    def context(self) -> ssl.SSLContext:
        """Return the context for the next handshake."""
        return self._reloaded.current()

    def reload(self) -> None:
        """Read the files again; if they cannot be used, log it and keep what there is."""
        self._reloaded.reload()

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = self._verify
        self._files.load_into(context)
        context.minimum_version = self._version_min
        if self._ciphers is not None:
            try:
                context.set_ciphers(self._ciphers)
            except ssl.SSLError as error:
                raise StartFailed(
                    f"--tls-ciphers: OpenSSL knows none of '{self._ciphers}'; write names as "
                    "'openssl ciphers' shows them, with colons between"
                ) from error
        return context
