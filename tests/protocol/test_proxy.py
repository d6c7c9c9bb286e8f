"""PROXY headers: what they say, how much may be read, and what is no header."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.proxy import (
    LINE_BYTES_MAX,
    SIGNATURE,
    ForwardedConnection,
    ProxyError,
    bytes_missing,
    parse,
)

ports = st.integers(0, 65_535)
pairs = st.one_of(
    *(
        st.tuples(st.just(version), st.ip_addresses(v=version), st.ip_addresses(v=version))
        for version in (4, 6)
    )
)
BEHIND = b"AMQP\x00\x00\x09\x01"


def line(version: int, *fields: object) -> bytes:
    return " ".join(("PROXY", f"TCP{version}", *map(str, fields))).encode() + b"\r\n"


def binary(body: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + pack(">BBH", command, family, len(body)) + body


def plain(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, ForwardedConnection | None]:
    """A header and what it says."""
    version, source, destination = draw(pairs)
    source_port, destination_port = draw(ports), draw(ports)
    said = ForwardedConnection((plain(source), source_port), (plain(destination), destination_port))
    records = draw(st.binary(max_size=50))
    body = source.packed + destination.packed + pack(">HH", source_port, destination_port)
    family = 0x11 if version == 4 else 0x21
    return draw(
        st.sampled_from(
            [
                (line(version, source, destination, source_port, destination_port), said),
                (binary(body + records, family=family), said),
                (binary(body + records, command=0x20, family=family), None),
                (binary(records, family=0), None),
                (binary(records, family=0x31), None),
                (b"PROXY UNKNOWN ff 1\r\n", None),
            ]
        )
    )


@given(headers())
def test_a_header_says_whose_connection_it_is(
    header: tuple[bytes, ForwardedConnection | None],
) -> None:
    data, said = header
    assert parse(data) == said


@given(headers())
def test_reading_what_is_missing_reads_the_header_and_nothing_else(
    header: tuple[bytes, ForwardedConnection | None],
) -> None:
    data, _said = header
    stream, read = data + BEHIND, b""
    while missing := bytes_missing(read):
        assert missing > 0
        read += stream[len(read) : len(read) + missing]
    assert read == data


@given(headers())
def test_a_header_cut_off_anywhere_is_not_complete(
    header: tuple[bytes, ForwardedConnection | None],
) -> None:
    data, _said = header
    for stop in range(len(data)):
        assert 0 < bytes_missing(data[:stop]) <= max(len(data) - stop, 15 - stop)
        with pytest.raises(ProxyError, match="cut off"):
            parse(data[:stop])


@given(st.binary(max_size=200))
def test_anything_else_is_refused_or_asks_for_more(data: bytes) -> None:
    try:
        missing = bytes_missing(data)
    except ProxyError:
        return
    if missing > 0:
        assert data[:6] == b"PROXY "[: len(data)] or data[:12] == SIGNATURE[: len(data)]


@given(st.binary(max_size=100), st.integers(0, 255), st.integers(0, 255))
def test_no_header_makes_the_parser_fail(rest: bytes, command: int, family: int) -> None:
    for data in (
        b"PROXY " + rest + b"\r\n",
        b"PROXY TCP4 " + rest + b"\r\n",
        binary(rest, command=command, family=family),
    ):
        try:
            said = parse(data)
        except ProxyError:
            continue
        assert said is None or all(0 <= end[1] <= 65_535 for end in (said.source, said.destination))


@pytest.mark.parametrize(
    "data", [BEHIND, b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PROXI", b"\r\n\r\n\x01"]
)
def test_what_is_no_header_is_known_at_once(data: bytes) -> None:
    with pytest.raises(ProxyError, match="no PROXY header begins with"):
        bytes_missing(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "is no PROXY line"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "is no PROXY line"),
        (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "is no PROXY line"),
        (b"PROXY TCP4 ::1 192.0.2.2 1 2\r\n", "is no address of its family"),
        (b"PROXY TCP6 192.0.2.1 ::1 1 2\r\n", "is no address of its family"),
        (b"PROXY TCP4 \xff 192.0.2.2 1 2\r\n", "is no address of its family"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "is no port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", "is no port"),
        (b"PROXY UNKNOWN a\n", "CR LF"),
        (b"PROXY TCP4\r\nAMQP\r\n", "CR LF"),
        (binary(b"", command=0x11), "version 1, command 1"),
        (binary(b"", command=0x22), "version 2, command 2"),
        (binary(bytes(11)), "cut off"),
        (binary(bytes(35), family=0x21), "cut off"),
    ],
)
def test_malformed_headers_are_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ProxyError, match=problem):
        parse(data)


def test_what_is_refused_can_be_read() -> None:
    with pytest.raises(ProxyError) as raised:
        bytes_missing(b"\x16\x03\x01\x02")
    assert str(raised.value) == "no PROXY header begins with the octets 16 03 01 02"
    with pytest.raises(ProxyError) as raised:
        bytes_missing(b"GET / HTTP/1.1\r\n")
    assert str(raised.value) == "no PROXY header begins with 'GET / HTTP/1'"
    with pytest.raises(ProxyError) as raised:
        parse(b"PROXY UDP4 a b 1 2\r\n")
    assert str(raised.value) == "'PROXY UDP4 a b 1 2' is no PROXY line"


def test_a_line_that_does_not_end_is_refused() -> None:
    data = b"PROXY TCP6 " + b"f" * LINE_BYTES_MAX
    with pytest.raises(ProxyError, match="does not end"):
        bytes_missing(data[: LINE_BYTES_MAX - 1])


def test_an_address_is_written_in_one_way() -> None:
    said = parse(line(6, "0:0:0:0:0:0:0:1", IPv6Address("2001:db8::1"), 1, 2))
    assert said == ForwardedConnection(("::1", 1), ("2001:db8::1", 2))
    body = IPv4Address("192.0.2.1").packed * 2 + pack(">HH", 3, 4)
    assert parse(binary(body)) == ForwardedConnection(("192.0.2.1", 3), ("192.0.2.1", 4))


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_ipv4_that_is_mapped_into_ipv6_is_ipv4(host: str) -> None:
    mapped, here = IPv6Address(f"::ffff:{host}"), IPv6Address("::1")
    said = ForwardedConnection((host, 1), ("::1", 2))
    assert parse(line(6, mapped, here, 1, 2)) == said
    body = mapped.packed + here.packed + pack(">HH", 1, 2)
    assert parse(binary(body, family=0x21)) == said
