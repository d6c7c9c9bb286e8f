"""Frames to a session: their sizes, and which of them are kept."""

from __future__ import annotations

from fluffle.broker.cluster.queue_sessions.session_server import (
    FRAME_SIZE_MAX,
    MESSAGE_SIZE,
    SessionSendQueue,
)
from fluffle.broker.queues.quorum import messages as m


def deliver(size: int) -> m.Deliver:
    return m.Deliver(99, 0, 0, False, [range(1, 2)], [], [bytes(size)])


def test_a_send_queue_knows_its_size() -> None:
    send_queue = SessionSendQueue()
    for message in (m.DoneReply(1, 1), m.DoneReply(2, 3), deliver(1_000), m.GetAnswer(5, 7, 0, [])):
        send_queue.put(message)
    assert send_queue.size == 3 * MESSAGE_SIZE + 1_000
    (frame,) = send_queue.take()
    assert frame.messages[0] == m.DoneReply(1, 4)
    send_queue.withdraw(99)
    send_queue.received(1)
    assert send_queue.size == 0


def test_what_is_sent_goes_in_frames_that_a_link_takes() -> None:
    send_queue = SessionSendQueue()
    for _ in range(6):
        send_queue.put(deliver(FRAME_SIZE_MAX // 3))
    send_queue.put(deliver(3 * FRAME_SIZE_MAX))
    send_queue.put(m.DoneReply(1, 1))
    assert [len(frame.messages) for frame in send_queue.take()] == [2, 2, 2, 1, 1]
    assert list(send_queue.take()) == []


def test_a_send_queue_knows_its_size_whatever_a_client_on_its_node_does_with_what_it_got() -> None:
    send_queue, message = SessionSendQueue(), deliver(1_000)
    send_queue.put(message)
    (_frame,) = send_queue.take()
    message.contents[0] = b""
    send_queue.received(1)
    assert (send_queue.size, send_queue.under_way(99)) == (0, 0)
