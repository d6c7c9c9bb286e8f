"""When certificates end, read from their files: the standard library does not say so of a file."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

PEM = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
VERSION_TAG = 0xA0
UTC_TIME_TAG = 0x17
LONG_SIZE = 0x80
"""Beyond this a size says in how many octets it is written."""


class Value(NamedTuple):
    """Where the content of a value stands, and of which type it is."""

    tag: int
    start: int
    stop: int


def ends_in(file: Path) -> list[datetime]:
    """Of all certificates in a file; what cannot be read is logged where it is used."""
    try:
        blocks = PEM.findall(file.read_text(errors="replace"))
        return [end_of(ssl.PEM_cert_to_DER_cert(block)) for block in blocks]
    except (OSError, ValueError, IndexError):
        return []


def end_of(certificate: bytes) -> datetime:
    """What stands second in its validity (RFC 5280, section 4.1).  ValueError, IndexError."""
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
    """Those that follow each other from there, as DER writes them."""
    while at < stop:
        tag, size, at = octets[at], octets[at + 1], at + 2
        if size > LONG_SIZE:
            width = size - LONG_SIZE
            size, at = int.from_bytes(octets[at : at + width]), at + width
        yield Value(tag, at, at + size)
        at += size
