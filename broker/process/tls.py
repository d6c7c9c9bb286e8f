"""TLS for clients: the certificate that the node shows them, and whether it asks for theirs."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from fluffle.broker.config.config import Config
from fluffle.broker.config.start_error import StartFailed
from fluffle.broker.process.certificates import CertificateFiles, ReloadedFiles

VERIFY_MODES: Mapping[str, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "request": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}

VERSIONS: Mapping[str, ssl.TLSVersion] = {
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


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

    def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = certificates.context()

    context.sni_callback = renew
    return context


class Certificates:
    """Certificate that a node shows to clients, and the authorities that check theirs."""

    __slots__ = ("_ciphers", "_files", "_reloaded", "_verify", "_version_min")

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
