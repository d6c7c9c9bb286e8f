"""Events and errors of the reader, however its bytes are cut."""

from collections import Counter
from struct import pack

import pytest
from pamqp import commands

from fluffle.protocol.methods import decode_method
from fluffle.protocol.reader import (
    Acks,
    Event,
    HeaderReceived,
    MethodReceived,
    Oversized,
    Publishes,
    Reader,
    Violation,
)
from tests.protocol.client_frames import (
    FRAME_BYTES_MAX,
    FRAME_ERROR,
    HEARTBEAT,
    NOT_METHOD,
    UNEXPECTED,
    ack,
    content,
    content_body,
    content_header,
    feed,
    make_reader,
    method,
    open_reader,
    publish,
    published,
    raw,
)
from tests.protocol.sample_session import merged, sample_session, session_reader

# Events


def test_methods() -> None:
    queue_declare = method(3, commands.Queue.Declare(queue="q"))
    (event,) = feed(open_reader(), queue_declare)
    assert event == MethodReceived(3, queue_declare[7:-1])
    assert decode_method(event.payload).name == "Queue.Declare"


def test_publishes_of_one_read_come_as_runs() -> None:
    sent = publish(1) + content(1, b"a") + publish(1) + content(1, b"bc")
    sent += publish(1, "other") + content(1, b"d") + publish(2) + content(2)
    assert feed(open_reader(), sent) == [
        published(1, b"a", b"bc"),
        published(1, b"d", key="other"),
        published(2, b""),
    ]


@pytest.mark.parametrize("channel", [1, 2, 65535])
def test_contents_are_canonical_on_every_road(channel: int) -> None:
    """Whole, in several body frames, with an empty one among them, and without a body."""
    reader = open_reader()
    assert feed(reader, publish(channel) + content(channel, b"abc")) == [published(channel, b"abc")]
    pieces = publish(channel) + content(channel, b"a", b"", b"bc")
    assert feed(reader, pieces) == [published(channel, b"abc")]
    empty = publish(channel) + content_header(channel, 0)
    assert feed(reader, empty) == [published(channel, b"")]
    assert feed(reader, empty[:-1]) == []
    assert feed(reader, empty[-1:]) == [published(channel, b"")]


def test_acks() -> None:
    sent = ack(1, 1) + ack(1, 2) + ack(1, 3) + ack(1, 5) + ack(1, 4) + ack(2, 5)
    sent += ack(1, 9, multiple=True) + ack(1, 0, multiple=True) + ack(1, 0)
    assert feed(open_reader(), sent) == [
        Acks(1, 1, 3, multiple=False),
        Acks(1, 5, 5, multiple=False),
        Acks(1, 4, 4, multiple=False),
        Acks(2, 5, 5, multiple=False),
        Acks(1, 9, 9, multiple=True),
        Acks(1, 0, 0, multiple=True),
        Acks(1, 0, 0, multiple=False),
    ]


def test_an_ack_of_another_length_is_left_to_the_decoder() -> None:
    payload = b"\x00\x3c\x00\x50" + bytes(8)
    assert feed(open_reader(), raw(1, 1, payload)) == [MethodReceived(1, payload)]


def test_heartbeats_are_no_events() -> None:
    assert feed(open_reader(), HEARTBEAT * 3) == []


def test_channels_interleave() -> None:
    """Each message is complete when its last frame is there, in whichever order they began."""
    sent = publish(1) + publish(2) + content_header(2, 2) + content_header(1, 2)
    sent += content_body(1, b"a") + HEARTBEAT + content_body(2, b"c") + publish(3)
    sent += content_body(2, b"d") + method(4, commands.Channel.Open()) + content_header(3, 0)
    sent += content_body(1, b"b") + publish(1) + content(1, b"e")
    first, second, third, last = feed(open_reader(), sent)
    assert first == published(2, b"cd")
    assert isinstance(second, MethodReceived)
    assert [third, last] == [published(3, b""), published(1, b"ab", b"e")]


def test_a_message_of_the_largest_size_passes() -> None:
    pieces = [b"x" * 100] * 10
    assert feed(open_reader(), publish(1) + content(1, *pieces)) == [published(1, b"x" * 1000)]


def test_a_message_beyond_the_limit_is_discarded_as_it_comes() -> None:
    pieces = [b"x" * 100] * 10 + [b"x"]
    sent = publish(1) + content(1, *pieces) + publish(1) + content(1, b"next")
    assert feed(open_reader(), sent) == [Oversized(1, 1001), published(1, b"next")]


def test_the_limit_holds_for_a_message_in_one_frame() -> None:
    reader = open_reader(frame_bytes_max=4096)
    sent = publish(1) + content(1, b"x" * 1001) + publish(1) + content(1, b"x" * 1000)
    assert feed(reader, sent) == [Oversized(1, 1001), published(1, b"x" * 1000)]


def test_frames_may_grow_once_the_connection_is_tuned() -> None:
    reader = open_reader()
    reader.frame_bytes_max = 4096
    assert feed(reader, publish(1) + content(1, b"x" * 900)) == [published(1, b"x" * 900)]


# The protocol header


@pytest.mark.parametrize("opening", [b"AMQP\x01\x01\x00\x09", b"GET / HT", b"AMQP\x00\x01\x00\x00"])
def test_the_first_eight_bytes_are_an_event_right_or_wrong(opening: bytes) -> None:
    reader = make_reader()
    assert [feed(reader, opening[at : at + 1]) for at in range(7)] == [[]] * 7
    assert feed(reader, opening[7:]) == [HeaderReceived(opening)]


# Violations

NOT_HEADER = "expected content header for class 60, got non content header frame instead"
NOT_BODY = "expected content body, got non content body frame instead"

VIOLATIONS = {
    "a kind that does not exist": (raw(4, 3, b"abc"), FRAME_ERROR, "unknown frame type"),
    "another end octet": (
        raw(1, 3, b"\x00\x0a\x00\x0b", end=0xCD),
        FRAME_ERROR,
        "frame end octet is 205, not 206",
    ),
    "another end octet behind a publish": (
        publish(3) + content_header(3, 1)[:-1] + b"\x00",
        FRAME_ERROR,
        "frame end octet is 0, not 206",
    ),
    "another end octet behind a body": (
        publish(3) + content(3, b"a")[:-1] + b"\x00",
        FRAME_ERROR,
        "frame end octet is 0, not 206",
    ),
    "a frame that is too large": (
        pack(">BHIB", 3, 3, FRAME_BYTES_MAX + 1, 0),
        FRAME_ERROR,
        "type 3, payload of 129 bytes is larger than 120",
    ),
    "a heartbeat on a channel": (
        raw(8, 3, b""),
        UNEXPECTED,
        "heartbeat frame on a channel other than 0",
    ),
    "a heartbeat with a payload": (raw(8, 0, b"x"), FRAME_ERROR, "heartbeat frame is not empty"),
    "a header without a method": (content_header(3, 1), UNEXPECTED, NOT_METHOD),
    "a body without a method": (content_body(3, b"a"), UNEXPECTED, NOT_METHOD),
    "a body behind a message": (
        publish(3) + content(3, b"a") + content_body(3, b"a"),
        UNEXPECTED,
        NOT_METHOD,
    ),
    "a body behind an empty message": (
        publish(3) + content_header(3, 0) + content_body(3, b""),
        UNEXPECTED,
        NOT_METHOD,
    ),
    "a method for a header": (publish(3) + publish(3), UNEXPECTED, NOT_HEADER),
    "an ack for a header": (publish(3) + ack(3, 1), UNEXPECTED, NOT_HEADER),
    "a body for a header": (publish(3) + content_body(3, b"a"), UNEXPECTED, NOT_HEADER),
    "a method for a body": (
        publish(3) + content_header(3, 1) + ack(3, 1),
        UNEXPECTED,
        NOT_BODY,
    ),
    "a header for a body": (
        publish(3) + content_header(3, 1) + content_header(3, 1),
        UNEXPECTED,
        NOT_BODY,
    ),
    "a header that is cut short": (
        publish(3) + raw(2, 3, pack(">HHQB", 60, 0, 1, 0)),
        FRAME_ERROR,
        "content header is truncated",
    ),
    "a header of another class": (
        publish(3) + raw(2, 3, pack(">HHQH", 50, 0, 1, 0)),
        UNEXPECTED,
        "expected content header for class 60, got one for class 50 instead",
    ),
    "a header with a weight": (
        publish(3) + raw(2, 3, pack(">HHQH", 60, 1, 1, 0)),
        UNEXPECTED,
        "expected content header for class 60, got non content header frame instead",
    ),
    "a body size beyond all limits": (
        publish(3) + raw(2, 3, pack(">HHQH", 60, 0, 2**29 + 1, 0)),
        FRAME_ERROR,
        "content body size 536870913 exceeds maximum allowed size 536870912",
    ),
    "more body than was announced": (
        publish(3) + content_header(3, 3) + content_body(3, b"ab") + content_body(3, b"cd"),
        FRAME_ERROR,
        "content body is longer than the 3 bytes announced",
    ),
    "more body than was announced, in one frame": (
        publish(3) + content_header(3, 3) + content_body(3, b"abcd"),
        FRAME_ERROR,
        "content body is longer than the 3 bytes announced",
    ),
}


@pytest.mark.parametrize("what", VIOLATIONS)
@pytest.mark.parametrize("step", [1, 1000])
def test_violations(what: str, step: int) -> None:
    sent, code, explanation = VIOLATIONS[what]
    reader = open_reader()
    good = publish(1) + content(1, b"good")
    *before, last = feed_in_steps(reader, good + sent + good, step)
    assert before[0] == published(1, b"good")
    assert published(1, b"good") not in before[1:]
    assert isinstance(last, Violation)
    assert (last.error.code, last.error.explanation) == (code, explanation)
    assert last.channel == int.from_bytes(sent[1:3], "big")
    assert feed(reader, good) == []


@pytest.mark.parametrize("excess", range(9))
def test_a_frame_may_be_eight_bytes_larger_than_agreed(excess: int) -> None:
    octets = b"x" * (FRAME_BYTES_MAX - 8 + excess)
    assert feed(open_reader(), publish(1) + content(1, octets)) == [published(1, octets)]


# Cutting


def feed_in_steps(reader: Reader, data: bytes, step: int) -> list[Event]:
    pieces = (data[at : at + step] for at in range(0, len(data), step))
    return [event for piece in pieces for event in feed(reader, piece)]


def test_a_conversation_may_be_cut_anywhere() -> None:
    data = sample_session()
    whole = merged(feed(session_reader(), data))
    assert Counter(map(type, whole)) == {
        HeaderReceived: 1,
        MethodReceived: 16,
        Publishes: 5,
        Oversized: 1,
        Acks: 3,
    }
    for cut in range(len(data) + 1):
        reader = session_reader()
        assert merged(feed(reader, data[:cut]) + feed(reader, data[cut:])) == whole


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 129])
def test_a_conversation_may_come_in_small_steps(step: int) -> None:
    data = sample_session()
    events = feed_in_steps(session_reader(), data, step)
    assert merged(events) == merged(feed(session_reader(), data))


def test_what_came_last_is_not_kept() -> None:
    """A frame in many pieces is put together once, and what is done is let go of."""
    reader = open_reader()
    sent = publish(1) + content(1, b"x" * 100)
    assert feed_in_steps(reader, sent * 3, 5) == [published(1, b"x" * 100)] * 3
    assert reader._pending == []
    assert reader._assemblies == {}
