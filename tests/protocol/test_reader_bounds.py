"""Limits of what the reader keeps of unfinished messages, and of what it reads when."""

import pytest
from pamqp import commands, frame, header

from fluffle.protocol.reader import (
    Acks,
    HeaderReceived,
    MessageStarted,
    MethodReceived,
    Oversized,
    Publishes,
    Reader,
    Violation,
)
from fluffle.protocol.spec import PROTOCOL_HEADER, ReplyCode
from tests.protocol.client_frames import (
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
)

# Messages that are not whole


def test_the_start_of_a_message_that_is_not_whole_shows_at_once() -> None:
    reader = open_reader()
    assert reader.feed(publish(3)) == [MessageStarted(3)]
    assert reader.feed(content_header(3, 2)) == []
    assert reader.feed(content_body(3, b"a")) == []
    assert reader.feed(content_body(3, b"b")) == [published(3, b"ab")]
    assert reader.feed(publish(3) + content(3, b"ab")) == [published(3, b"ab")]


@pytest.mark.parametrize("lacks", [1, 2, 3])
def test_a_message_that_is_cut_in_its_body_comes_with_those_behind_it(lacks: int) -> None:
    reader = open_reader()
    sent = b"".join(publish(3) + content(3, body) for body in (b"ab", b"cd", b"ef"))
    cut = len(sent) * 2 // 3 - lacks
    assert reader.feed(sent[:cut]) == [published(3, b"ab"), MessageStarted(3)]
    assert reader.feed(sent[cut:]) == [published(3, b"cd", b"ef")]


@pytest.mark.parametrize("step", [1, 7, 100])
def test_a_message_that_comes_in_small_steps_is_kept_until_it_is_whole(step: int) -> None:
    reader = open_reader(frame_bytes_max=1024)
    message = publish(3) + content(3, b"x" * 700)
    begun = len(message) - 701
    events = reader.feed(message[:begun])
    for start in range(begun, len(message), step):
        events += reader.feed(message[start : start + step])
    assert events == [MessageStarted(3), published(3, b"x" * 700)]


def test_a_message_that_is_longer_than_a_frame_may_be_counts_as_unfinished() -> None:
    message = publish(3) + content(3, b"x" * 900)
    for more, is_kept in ((0, True), (-1, False)):
        reader = Reader(
            frame_bytes_max=len(message) + more, message_bytes_max=1000, unfinished_bytes_max=10
        )
        reader.feed(PROTOCOL_HEADER)
        reader.open()
        events = reader.feed(message[:-1])
        assert isinstance(events[-1], MessageStarted if is_kept else Violation)


def unfinished(channel: int, size: int) -> bytes:
    """A message that lacks its last byte."""
    return publish(channel) + content(channel, *[b"x" * 100] * (size // 100), b"x")[:-9]


def test_messages_that_are_not_whole_are_bounded_together() -> None:
    reader = open_reader()
    lasts = [reader.feed(unfinished(channel, 800))[-1:] for channel in range(1, 10)]
    whole, (last,) = lasts[:4], lasts[4]
    assert all(isinstance(event, MessageStarted) for (event,) in whole)
    assert isinstance(last, Violation)
    assert (last.error.code, last.channel) == (ReplyCode.RESOURCE_ERROR, 5)
    assert last.error.explanation == "unfinished messages exceed 4000 bytes on this connection"


@pytest.mark.parametrize("size", [0, 1])
def test_many_small_frames_are_bounded_too(size: int) -> None:
    """Frames count what they cost, which is more than their bodies; publishes alone cost
    something."""
    reader = open_reader()
    messages = (publish(n) + content(n, *[b"x"] * size, b"x")[:-9] for n in range(1, 200))
    assert any(isinstance(reader.feed(message)[-1], Violation) for message in messages)


def test_what_is_whole_does_not_count() -> None:
    reader = open_reader()
    for _ in range(20):
        sent = publish(1) + content(1, *[b"x" * 100] * 10)
        assert feed(reader, sent) == [published(1, b"x" * 1000)]


def test_what_is_discarded_does_not_count() -> None:
    reader = open_reader()
    assert feed(reader, publish(1) + content(1, *[b"x" * 100] * 100)) == [Oversized(1, 10_000)]


def test_what_messages_began_with_is_remembered_if_it_is_short() -> None:
    """Heads are remembered by basic.publish frame and size; long ones would add up to more than the
    messages."""
    reader = Reader(frame_bytes_max=4096, message_bytes_max=4096, unfinished_bytes_max=4096)
    reader.open()
    reader.feed(PROTOCOL_HEADER)
    for size in (600, 2000):
        long = commands.Basic.Properties(headers={"h": "x" * size})
        sent = publish(1, str(size)) + frame.marshal(header.ContentHeader(0, 0, long), 1)
        (event,) = reader.feed(sent * 2)
        assert isinstance(event, Publishes)
        assert len(event.contents) == 2
    assert [method for _, method, *_ in reader._heads.values()] == [publish(1, "600")]


# Stages


def test_methods_come_one_at_a_time_until_the_connection_is_open() -> None:
    reader = make_reader()
    declare = method(1, commands.Queue.Declare(queue="q"))
    assert reader.feed(PROTOCOL_HEADER + declare * 3 + HEARTBEAT + declare[:9]) == [
        HeaderReceived(PROTOCOL_HEADER),
        MethodReceived(1, declare[7:-1]),
    ]
    for _ in range(2):
        assert reader.is_waiting
        assert reader.go_on() == [MethodReceived(1, declare[7:-1])]
    assert reader.is_waiting
    assert reader.go_on() == []
    assert not reader.is_waiting
    assert reader.feed(declare[9:]) == [MethodReceived(1, declare[7:-1])]
    assert not reader.is_waiting


def test_what_is_agreed_between_two_methods_counts_for_the_next() -> None:
    reader = make_reader()
    tune_ok = method(0, commands.Connection.TuneOk(0, 4096, 0))
    large = publish(1) + content(1, b"x" * 900)
    assert len(reader.feed(PROTOCOL_HEADER + tune_ok + tune_ok + large)) == 2
    reader.frame_bytes_max = 4096
    assert len(reader.go_on()) == 1
    reader.open()
    assert reader.go_on() == [published(1, b"x" * 900)]


def test_before_that_a_publish_is_a_method_and_nothing_is_kept() -> None:
    reader = make_reader()
    reader.feed(PROTOCOL_HEADER)
    assert reader.feed(publish(1)) == [MethodReceived(1, publish(1)[7:-1])]
    assert reader._assemblies == {}
    (violation,) = reader.feed(content_header(1, 1))
    assert isinstance(violation, Violation)
    assert (violation.error.code, violation.error.explanation) == (UNEXPECTED, NOT_METHOD)


def test_after_the_end_messages_are_passed_over() -> None:
    reader = open_reader()
    reader.feed(publish(1) + content_header(1, 3) + content_body(1, b"a"))
    reader.close()
    assert reader._assemblies == {}
    close_ok = method(0, commands.Connection.CloseOk())
    rest = content_body(1, b"bc") + publish(2) + content(2, b"x" * 100)
    assert reader.feed(rest + close_ok) == [MethodReceived(0, close_ok[7:-1])]


def test_an_end_before_the_beginning_lets_the_reader_go_on() -> None:
    reader = make_reader()
    reader.feed(PROTOCOL_HEADER + publish(1) + content(1, b"x") + ack(1, 1) * 2)
    reader.close()
    assert reader.go_on() == [Acks(1, 1, 1, multiple=False)] * 2
    assert not reader.is_waiting
