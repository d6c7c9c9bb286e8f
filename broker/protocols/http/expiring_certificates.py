"""Certificates that are not good for long any more, by where they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fluffle.broker.admin.context import Row
from fluffle.broker.config.config import Config
from fluffle.broker.process.certificate_expiry import ends_in

UNITS: Mapping[str, float] = {"days": 1, "weeks": 7, "months": 365 / 12, "years": 365}
"""In days."""


def expiring(config: Config, listeners: Iterable[Row], until_ms: int) -> Iterator[Row]:
    """Rows by RabbitMQ's names, of listeners with TLS whose files name a day before that."""
    cert, ca = ends_before(config.tls_cert, until_ms), ends_before(config.tls_ca, until_ms)
    if not (cert or ca):
        return
    for row in listeners:
        if row["tls"]:
            yield {
                "node": row["node"],
                "protocol": row["protocol"],
                "interface": row["ip_address"],
                "port": row["port"],
                "certfile": str(config.tls_cert or ""),
                "cacertfile": str(config.tls_ca or ""),
                "certfile_expires_on": cert,
                "cacertfile_expires_on": ca,
            }


def ends_before(file: Path | None, until_ms: int) -> list[str]:
    """When the certificates in a file end, of those that do before that time."""
    ends = ends_in(file) if file is not None else []
    return [f"{end:%Y-%m-%d %H:%M:%S}" for end in ends if end.timestamp() * 1000 < until_ms]
