"""PROXY protocol, versions 1 and 2: the client that a proxy in front of us connects for.

"The PROXY protocol, versions 1 & 2" (HAProxy).  The header comes before anything else, TLS
included, and nothing behind it may be read along with it: `bytes_missing` says how much is safe
to read.  Addresses that are not IP over TCP say nothing, as RabbitMQ has it.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import calcsize, unpack_from
from typing import NamedTuple, TypeAlias

Address: TypeAlias = tuple[str, int]
"""Host and port."""

LINE_PREFIX = b"PROXY "
LINE_BYTES_MIN = 15
"""`PROXY UNKNOWN` and its end."""
LINE_BYTES_MAX = 107
FAMILIES: dict[bytes, type[IPv4Address | IPv6Address]] = {
    b"TCP4": IPv4Address,
    b"TCP6": IPv6Address,
}
PORT_MAX = 65_535

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD_BYTES = 16
"""Version 2: signature, version and command, family, and the length of what follows."""
VERSION = 2
LOCAL, PROXY = 0, 1
LAYOUTS = {0x11: ">4s4sHH", 0x21: ">16s16sHH"}
"""Source, destination and their ports, by family and transport: TCP over IPv4 and over IPv6."""


class ProxyError(Exception):
    """Bytes that are no header of the PROXY protocol."""


class ForwardedConnection(NamedTuple):
    """Connection to the proxy: its source and its destination."""

    source: Address
    destination: Address


def bytes_missing(data: bytes) -> int:
    """Return how many bytes at least are missing to a header that begins with `data`; 0 when none
    are.

    Of nothing that is as many as the shortest header of all has.  ProxyError as soon as no header
    begins so.
    """
    if data[: len(LINE_PREFIX)] == LINE_PREFIX[: len(data)]:
        return _line_bytes_missing(data)
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _binary_bytes_missing(data)
    raise ProxyError(f"no PROXY header begins with {readable(data[: len(SIGNATURE)])}")


def parse(data: bytes) -> ForwardedConnection | None:
    """Parse a complete header; None when the proxy connects for itself, or does not know.

    ProxyError when it is malformed, or not complete.
    """
    if bytes_missing(data):
        raise ProxyError("the PROXY header is cut off")
    return _parse_binary(data) if data.startswith(SIGNATURE) else _parse_line(data)


def _line_bytes_missing(data: bytes) -> int:
    if b"\n" in data:
        return 0
    if len(data) < LINE_BYTES_MIN:
        return LINE_BYTES_MIN - len(data)
    missing = 1 if data.endswith(b"\r") else 2
    if len(data) + missing > LINE_BYTES_MAX:
        raise ProxyError("the PROXY line does not end")
    return missing


def _parse_line(data: bytes) -> ForwardedConnection | None:
    """`PROXY TCP4 192.0.2.1 198.51.100.1 51234 5672`."""
    _proxy, family, *rest = data.removesuffix(b"\r\n").split(b" ")
    if b"\n" in data[:-1] or not data.endswith(b"\r\n"):
        raise ProxyError("the PROXY line does not end in CR LF")
    if family == b"UNKNOWN":
        return None
    if family not in FAMILIES or len(rest) != 4:
        raise ProxyError(f"{readable(data)} is no PROXY line")
    hosts = [_host(text, FAMILIES[family]) for text in rest[:2]]
    ports = [_port(text) for text in rest[2:]]
    return ForwardedConnection((hosts[0], ports[0]), (hosts[1], ports[1]))


def _host(text: bytes, family: type[IPv4Address | IPv6Address]) -> str:
    try:
        return _plain(family(text.decode("ascii")))
    except ValueError as error:
        raise ProxyError(f"{readable(text)} is no address of its family") from error


def _port(text: bytes) -> int:
    if not text.isdigit() or len(text) > 5 or int(text) > PORT_MAX:
        raise ProxyError(f"{readable(text)} is no port")
    return int(text)


def _binary_bytes_missing(data: bytes) -> int:
    if len(data) < HEAD_BYTES:
        return HEAD_BYTES - len(data)
    return HEAD_BYTES + int.from_bytes(data[14:HEAD_BYTES]) - len(data)


def _parse_binary(data: bytes) -> ForwardedConnection | None:
    """Records behind the addresses (certificates, checksums …) are passed over."""
    version, command = divmod(data[12], 16)
    if version != VERSION or command not in (LOCAL, PROXY):
        raise ProxyError(f"version {version}, command {command} of the PROXY protocol is unknown")
    layout = LAYOUTS.get(data[13])
    if command == LOCAL or layout is None:
        return None
    if len(data) < HEAD_BYTES + calcsize(layout):
        raise ProxyError("the addresses of the PROXY header are cut off")
    source, destination, source_port, destination_port = unpack_from(layout, data, HEAD_BYTES)
    return ForwardedConnection(
        (_plain(ip_address(source)), source_port),
        (_plain(ip_address(destination)), destination_port),
    )


def readable(data: bytes) -> str:
    """Text as text, and anything else as octets in hexadecimal, whatever a log does to escapes."""
    text = data.decode("ascii", errors="replace").rstrip("\r\n")
    is_text = text.isascii() and text.isprintable()
    return f"'{text}'" if is_text else f"the octets {data.hex(' ')}"


def _plain(address: IPv4Address | IPv6Address) -> str:
    """Return the IPv4 address of one that is mapped into IPv6."""
    return str(getattr(address, "ipv4_mapped", None) or address)
