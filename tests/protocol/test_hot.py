"""The hot functions do what slow and obvious ones do, on good bytes, cut ones and wrong ones."""

from collections.abc import Iterable
from struct import pack, unpack_from
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from fluffle.protocol import hot
from fluffle.protocol.hot import (
    ACKS_MIN,
    HEAD_BYTES_MAX,
    Head,
    ack_frame,
    build_deliveries,
    nack_frame,
    renumber,
    scan_acks,
    scan_publishes,
    unpacker,
)
from fluffle.protocol.methods import Basic, decode_method, deliver_prefix, encode_method, make
from fluffle.protocol.properties import build_content, outline, split_content
from fluffle.protocol.spec import DIRECT_REPLY_TO

PAYLOAD_BYTES_MAX = 64

CHANNELS = st.sampled_from([1, 1, 2, 256, 65535])
PROPERTIES = [
    commands.Basic.Properties(),
    commands.Basic.Properties(delivery_mode=2),
    commands.Basic.Properties(delivery_mode=1),
    commands.Basic.Properties(content_type="text/plain", message_id="m"),
    commands.Basic.Properties(content_type="text/plain", message_id="n"),
    commands.Basic.Properties(content_type="text/plai", message_id="mm"),
    commands.Basic.Properties(delivery_mode=2, message_id="m", correlation_id="c", priority=1),
    commands.Basic.Properties(delivery_mode=2, message_id="n", correlation_id="d", priority=1),
    commands.Basic.Properties(delivery_mode=2, message_id="n", correlation_id="d", priority=2),
    commands.Basic.Properties(reply_to="q", correlation_id="c"),
    commands.Basic.Properties(reply_to="q", correlation_id="d"),
    commands.Basic.Properties(expiration="10"),
    commands.Basic.Properties(expiration="11"),
    commands.Basic.Properties(headers={"a": 1}),
    commands.Basic.Properties(headers={"a": 2}),
]
BODIES = st.sampled_from([0, 0, 1, 5, 5, 5, 6, 64, 65]).map(lambda size: b"x" * size)
MESSAGES = st.lists(st.tuples(st.sampled_from(PROPERTIES), BODIES), max_size=8)


def publish_frame(channel: int, routing_key: str = "key") -> bytes:
    return frame.marshal(commands.Basic.Publish(exchange="ex", routing_key=routing_key), channel)


def content_frames(channel: int, properties: commands.Basic.Properties, octets: bytes) -> bytes:
    sent = frame.marshal(header.ContentHeader(0, len(octets), properties), channel)
    return sent + frame.marshal(body.ContentBody(octets), channel) if octets else sent


def read_frame(buffer: bytes, kind: int, channel: bytes) -> tuple[bytes, bytes] | None:
    """The payload of the frame that `buffer` begins with, and the rest; None if it is not that."""
    if len(buffer) < 8 or buffer[:3] != bytes([kind]) + channel:
        return None
    (size,) = unpack_from(">I", buffer, 3)
    if len(buffer) < size + 8 or buffer[size + 7] != 0xCE or size > PAYLOAD_BYTES_MAX:
        return None
    return buffer[7 : size + 7], buffer[size + 8 :]


def read_message(buffer: bytes, method: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Raw properties, body and the rest, if `buffer` begins with one whole common message."""
    if not method or not buffer.startswith(method):
        return None
    channel = method[1:3]
    found = read_frame(buffer[len(method) :], 2, channel)
    if found is None or len(found[0]) < 14:
        return None
    class_id, weight, body_bytes = unpack_from(">HHQ", found[0])
    if (class_id, weight) != (60, 0):
        return None
    raw_properties, rest = found[0][12:], found[1]
    if not body_bytes:
        return raw_properties, b"", rest
    found = read_frame(rest, 3, channel)
    if found is None or len(found[0]) != body_bytes:
        return None
    return raw_properties, *found


HEADS: dict[bytes, Head] = {}
"""Heads that scans remember, kept from one example to the next."""

Taken = tuple[int, int, bytes, list[bytes], list[bytes]]
"""Where a scan stopped, the length of the contents, the outline, methods and contents."""


def slow_scan_publishes(buffer: bytes, start: int, known: Iterable[bytes]) -> Taken:
    """Scan frame by frame; `known` has the methods, with heads of headers, that are taken behind
    the first."""
    methods: list[bytes] = []
    contents: list[bytes] = []
    rest, read = buffer[start:], b""
    channel = rest[1:3]
    method_bytes = unpack_from(">I", rest, 3)[0] + 8
    first = rest[: method_bytes + 7]
    while True:
        method = next((key[:-7] for key in {first, *known} if rest.startswith(key)), b"")
        found = read_message(rest, method)
        if found is None or method[1:3] != channel:
            break
        raw_properties, octets, behind = found
        if methods and outline(raw_properties)[0] != read:
            break
        read = outline(raw_properties)[0]
        methods.append(method)
        contents.append(build_content(raw_properties, octets))
        rest = behind
    return len(buffer) - len(rest), sum(map(len, contents)), read, methods, contents


def scan(buffer: bytes, start: int, heads: dict[bytes, Head]) -> Taken:
    """Scan, and check that the result is the same whether messages are compared together or one by
    one."""
    known = heads.copy()
    with patch.multiple(hot, ALIKE_MIN=2, ALIKE_MAX=3, FIRST_LOOKS=(1, 1), LOOKS=()):
        together = scan_as_it_is(buffer, start, known)
    found = scan_as_it_is(buffer, start, heads)
    assert together == found
    assert known == heads
    return found


def scan_as_it_is(buffer: bytes, start: int, heads: dict[bytes, Head]) -> Taken:
    methods: list[bytes] = []
    contents: list[bytes] = []
    found = scan_publishes(buffer, start, PAYLOAD_BYTES_MAX, methods, contents, heads=heads)
    return *found, methods, contents


def check_scan(buffer: bytes, start: int) -> int:
    """Both versions agree; returns how many messages they took."""
    expected = slow_scan_publishes(buffer, start, tuple(HEADS))
    found = scan(buffer, start, HEADS)
    if expected[3]:
        assert found == expected
    else:
        assert found[0] == start
        assert not found[3]
    return len(expected[3])


def test_a_run_is_taken_whole() -> None:
    method = publish_frame(1)
    read = [content_frames(1, PROPERTIES[1], octets) for octets in (b"a", b"b", b"cd", b"", b"e")]
    buffer = b"".join(method + content for content in read)
    size_bytes = sum(map(len, read))
    assert scan(buffer, 0, {}) == (len(buffer), size_bytes, b"\x10\x00\x02", [method] * 5, read)


def test_what_no_broker_reads_may_differ_and_so_may_the_method_once_it_is_known() -> None:
    heads: dict[bytes, Head] = {}
    methods = [publish_frame(1, key) for key in ("a", "a", "bb", "a", "bb")]
    sent = [
        content_frames(1, commands.Basic.Properties(delivery_mode=2, message_id=name), b"x")
        for name in ("first", "other", "third", "a longer one", "fifth")
    ]
    buffer = b"".join(method + content for method, content in zip(methods, sent, strict=True))
    stop, _, read, taken, _ = scan(buffer, 0, heads)
    assert (taken, read) == (methods[:2], b"\x10\x00\x02")
    stop, *_, taken, _ = scan(buffer, stop, heads)
    assert taken == methods[2:3]  # the next has a longer header
    assert scan(buffer, stop, heads)[3] == methods[3:]  # the last begins as the third
    assert scan(buffer, 0, heads)[3:] == (methods, sent)


@pytest.mark.parametrize("octets", [b"", b"x"])
def test_what_no_broker_reads_stays_with_its_message_on_every_channel(octets: bytes) -> None:
    method = publish_frame(2)
    names = ("a", "b", "a", "b", "b", "a")
    same, renumbered = (
        [
            content_frames(channel, commands.Basic.Properties(message_id=name), octets)
            for name in names
        ]
        for channel in (2, 1)
    )
    heads: dict[bytes, Head] = {}
    for _ in range(2):
        found = scan(b"".join(method + content for content in same), 0, heads)
        assert found[4] == renumbered


@pytest.mark.parametrize(
    "other",
    [
        commands.Basic.Properties(delivery_mode=1, message_id="a"),
        commands.Basic.Properties(delivery_mode=2, message_id="a", priority=0),
        commands.Basic.Properties(delivery_mode=2, message_id="a", expiration="1"),
        commands.Basic.Properties(delivery_mode=2, message_id="a", user_id="u"),
        commands.Basic.Properties(delivery_mode=2, message_id="a", reply_to=DIRECT_REPLY_TO),
        commands.Basic.Properties(delivery_mode=2, message_id="a", headers={"CC": ["q"]}),
        commands.Basic.Properties(delivery_mode=2, message_id="a", headers={"BCC": ["q"]}),
    ],
)
def test_what_a_broker_reads_ends_a_scan(other: commands.Basic.Properties) -> None:
    method = publish_frame(1)
    same = commands.Basic.Properties(delivery_mode=2, message_id="a")
    sent = [method + content_frames(1, properties, b"x") for properties in (same, other, same)]
    assert len(scan(b"".join(sent), 0, {})[3]) == 1
    assert len(scan(b"".join(sent[1:]), 0, {})[3]) == 1


@given(channel=CHANNELS, messages=MESSAGES, other=MESSAGES, junk=st.binary(max_size=5))
def test_scan_publishes_equals_the_slow_one(
    channel: int,
    messages: list[tuple[commands.Basic.Properties, bytes]],
    other: list[tuple[commands.Basic.Properties, bytes]],
    junk: bytes,
) -> None:
    """Through changes of properties, of sizes, to and from empty bodies, to another method."""
    method = publish_frame(channel)
    sent = [(method, message) for message in messages]
    sent += [(publish_frame(channel, "other"), message) for message in other]
    sent += [(method, message) for message in messages]
    sent += [(publish_frame(channel % 65535 + 1), message) for message in other]
    buffer = junk + b"".join(
        publish
        + content_frames(
            unpack_from(">H", publish, 1)[0],  # that of the method
            *message,
        )
        for publish, message in sent
    )
    if messages:
        check_scan(buffer, len(junk))


def two_messages(channel: int) -> tuple[bytes, bytes]:
    """A run of three: the last with another size, so that every road is taken."""
    method = publish_frame(channel)
    contents = [content_frames(channel, PROPERTIES[1], octets) for octets in (b"ab", b"cd", b"e")]
    return method, b"".join(method + content for content in contents)


@pytest.mark.parametrize("channel", [1, 513])
def test_cut_anywhere(channel: int) -> None:
    method, buffer = two_messages(channel)
    counts = [check_scan(buffer[:cut], 0) for cut in range(len(method), len(buffer) + 1)]
    assert sorted(set(counts)) == [0, 1, 2, 3]
    assert counts == sorted(counts)


@pytest.mark.parametrize("change", [1, 0x80, 0xFF])
@pytest.mark.parametrize("channel", [1, 513])
def test_any_octet_wrong(channel: int, change: int) -> None:
    method, buffer = two_messages(channel)
    for at in range(len(method), len(buffer)):
        wrong = bytearray(buffer)
        wrong[at] ^= change
        check_scan(bytes(wrong), 0)


@pytest.mark.parametrize("channel", [1, 513])
@pytest.mark.parametrize("body_bytes", [0, 16, PAYLOAD_BYTES_MAX])
@given(at=st.integers(0, 2**16), octet=st.integers(0, 255))
def test_any_octet_wrong_in_a_long_run(channel: int, body_bytes: int, at: int, octet: int) -> None:
    method = publish_frame(channel)
    sent = [
        method
        + content_frames(channel, commands.Basic.Properties(priority=place % 7), bytes(body_bytes))
        for place in range(2 * hot.ALIKE_MIN)
    ]
    wrong = bytearray(b"".join(sent))
    wrong[at % len(wrong)] = octet
    found = scan_as_it_is(bytes(wrong), 0, {})
    with patch.object(hot, "ALIKE_MIN", 2 * len(sent)):
        assert scan_as_it_is(bytes(wrong), 0, {}) == found


@pytest.mark.parametrize("body_bytes", [PAYLOAD_BYTES_MAX + 1, 2**31, 2**63, 2**64 - 1])
def test_a_body_that_is_announced_too_large_stops_the_scan(body_bytes: int) -> None:
    method = publish_frame(1)
    large = method + pack(">BHIHHQHB", 2, 1, 14, 60, 0, body_bytes, 0, 0xCE)
    large += pack(">BHI", 3, 1, body_bytes & 0xFFFFFFFF) + b"x" * 100
    assert check_scan(large, 0) == 0
    assert check_scan(method + content_frames(1, PROPERTIES[0], b"x") + large, 0) == 1


def slow_scan_acks(buffer: bytes, start: int, head: bytes) -> tuple[int, int]:
    tags: list[int] = []
    rest = buffer[start:]
    while len(rest) >= 21 and rest.startswith(head) and rest[19] == 0 and rest[20] == 0xCE:
        method = decode_method(rest[7:20])
        assert isinstance(method, Basic.Ack)
        tag = method.delivery_tag
        if not tag or (tags and tag != tags[-1] + 1):
            break
        tags.append(tag)
        rest = rest[21:]
    return (tags[0], len(tags)) if tags else (0, 0)


TAGS = st.one_of(
    st.integers(0, 4), st.integers(250, 256), st.integers(65_530, 65_536),
    st.integers(2**64 - 20, 2**64 - 1),
)  # fmt: skip


@given(
    first=TAGS,
    steps=st.lists(st.sampled_from([1, 1, 1, 1, 0, 2, -1]), max_size=6)
    | st.lists(st.sampled_from([1] * 40 + [0, 2, -1, 256]), min_size=ACKS_MIN, max_size=40),
    multiple_at=st.integers(0, 40),
    cut=st.integers(0, 21),
    junk=st.binary(max_size=5),
)
def test_scan_acks_equals_the_slow_one(
    first: int, steps: list[int], multiple_at: int, cut: int, junk: bytes
) -> None:
    tags = [first]
    for step in steps:
        tags.append((tags[-1] + step) % 2**64)
    frames = [ack_frame(7, tag, multiple=at == multiple_at) for at, tag in enumerate(tags)]
    buffer = junk + b"".join(frames)
    buffer = buffer[: len(buffer) - cut]
    head = ack_frame(7, 1, multiple=False)[:11]
    assert scan_acks(buffer, len(junk), head) == slow_scan_acks(buffer, len(junk), head)


@given(st.integers(1, 2**64 - 1) | TAGS, st.integers(1, 700))
def test_long_runs_of_acks_are_taken_whole(first: int, count: int) -> None:
    first = max(1, min(first, 2**64 - count))
    buffer = b"".join(ack_frame(7, tag, multiple=False) for tag in range(first, first + count))
    assert scan_acks(buffer, 0, buffer[:11]) == (first, count)


@pytest.mark.parametrize("tags", [range(254, 257), range(250, 250 + 2 * ACKS_MIN)])
@pytest.mark.parametrize("change", [1, 2, 0x80])
def test_acks_with_any_octet_wrong(change: int, tags: range) -> None:
    buffer = b"".join(ack_frame(7, tag, multiple=False) for tag in tags)
    head = buffer[:11]
    for at in range(len(buffer)):
        wrong = bytearray(buffer)
        wrong[at] ^= change
        assert scan_acks(bytes(wrong), 0, head) == slow_scan_acks(bytes(wrong), 0, head)


CONTENTS = st.lists(
    st.builds(build_content, st.sampled_from([b"\0\0", b"\x10\0\2"]), st.binary(max_size=20)),
    max_size=6,
)


@given(contents=CONTENTS, first_tag=st.integers(1, 2**40), redelivered=st.booleans())
def test_build_deliveries_equals_pamqp(
    contents: list[bytes], first_tag: int, redelivered: bool
) -> None:
    prefix, tail, tail_redelivered = deliver_prefix(1, "ctag", "ex", "key")
    out = [b"before"]
    build_deliveries(out, prefix, first_tag, tail_redelivered if redelivered else tail, contents)
    slow = b"before"
    for tag, content in enumerate(contents, first_tag):
        deliver = commands.Basic.Deliver("ctag", tag, redelivered, "ex", "key")
        slow += frame.marshal(deliver, 1) + content
    assert b"".join(out) == slow


@given(contents=CONTENTS, channel=st.integers(1, 65535))
def test_renumber_changes_the_channel_of_every_frame(contents: list[bytes], channel: int) -> None:
    renumbered = renumber(contents, channel)
    assert renumbered == [split_content(content, channel, 0) for content in contents]
    assert renumber(renumbered, 1) == contents


def test_nothing_is_kept_of_long_headers() -> None:
    """A client chooses how many there are and how they are cut, and so how much that would be."""
    heads: dict[bytes, Head] = {}
    unpacker.cache_clear()
    for count in range(HEAD_BYTES_MAX // 4, HEAD_BYTES_MAX // 4 + 8):
        properties = commands.Basic.Properties(headers={str(key): "v" for key in range(count)})
        message = publish_frame(1) + content_frames(1, properties, b"x")
        contents: list[bytes] = []
        assert scan_publishes(message, 0, 1 << 17, [], contents, heads=heads)[0] == len(message)
        assert len(contents) == 1
    assert not heads
    assert not unpacker.cache_info().currsize


@given(CHANNELS, st.integers(0, 2**63 - 1), st.booleans())
def test_confirms_are_pamqps(channel: int, tag: int, multiple: bool) -> None:
    assert ack_frame(channel, tag, multiple=multiple) == frame.marshal(
        Basic.Ack(tag, multiple), channel
    )
    assert nack_frame(channel, tag, multiple=multiple) == frame.marshal(
        Basic.Nack(tag, multiple, requeue=True), channel
    )


def test_confirms_have_tags_without_sign() -> None:
    """pamqp's have a sign."""
    tag = 2**64 - 1
    ack = ack_frame(1, tag, multiple=False)
    assert ack == encode_method(1, make(Basic.Ack, tag))
    assert dict(decode_method(ack[7:-1])) == {"delivery_tag": tag, "multiple": False}
