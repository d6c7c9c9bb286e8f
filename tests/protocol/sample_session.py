"""A conversation of a client in every shape there is, and how its events are compared."""

from __future__ import annotations

from collections.abc import Iterable

from pamqp import commands

from fluffle.protocol.reader import Acks, Event, Publishes, Reader
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.protocol.client_frames import (
    HEARTBEAT,
    ack,
    content,
    content_body,
    content_header,
    make_reader,
    method,
    publish,
)


def publish_run(channel: int, count: int, size: int) -> bytes:
    message = publish(channel) + content(channel, *[b"x" * size] * (size > 0))
    return message * count


def sample_session() -> bytes:
    """A client logs in, declares, publishes in every shape, consumes, acknowledges and leaves."""
    basic, queue = commands.Basic, commands.Queue
    frames = [
        method(0, commands.Connection.StartOk(mechanism="PLAIN", response="\0guest\0guest")),
        method(0, commands.Connection.TuneOk(2047, 131072, 60)),
        method(0, commands.Connection.Open("/")),
        *(method(channel, commands.Channel.Open()) for channel in (1, 2, 300)),
        method(1, commands.Exchange.Declare(exchange="ex", exchange_type="topic", durable=True)),
        method(1, queue.Declare(queue="q", arguments={"x-max-length": 1000})),
        method(1, queue.Bind(queue="q", exchange="ex", routing_key="#")),
        method(1, commands.Confirm.Select()),
        publish_run(1, count=4, size=16),
        publish_run(1, count=2, size=17),
        publish_run(1, count=2, size=0),
        HEARTBEAT,
        publish_run(300, count=3, size=5),
        publish(2) + content_header(2, 6) + content_body(2, b"abc"),
        publish(300) + content_header(300, 2),
        content_body(2, b"def") + content_body(300, b"gh"),
        publish(1, "large") + content(1, *[b"y" * 100] * 3),
        publish(1, "too large") + content(1, *[b"z" * 100] * 11),
        method(2, basic.Qos(prefetch_count=10)),
        method(2, basic.Consume(queue="q", consumer_tag="c")),
        *(ack(2, tag) for tag in range(1, 8)),
        ack(2, 9),
        ack(2, 12, multiple=True),
        method(2, basic.Nack(13, requeue=True)),
        method(2, basic.Reject(14, requeue=False)),
        HEARTBEAT,
        method(1, commands.Channel.Close(200, "bye", 0, 0)),
        method(0, commands.Connection.Close(200, "bye", 0, 0)),
    ]
    return PROTOCOL_HEADER + b"".join(frames)


def session_reader() -> Reader:
    """A reader before the protocol header that does not wait for the connection's answers."""
    reader = make_reader()
    reader.open()
    return reader


def merged(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring runs as one, since only batching may depend on cuts."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, Publishes) and isinstance(last, Publishes) and alike(last, event):
            event = Publishes(
                event.channel,
                last.methods + event.methods,
                last.contents + event.contents,
                last.content_bytes + event.content_bytes,
                event.outline,
            )
            out.pop()
        elif isinstance(event, Acks) and isinstance(last, Acks) and follows(last, event):
            event = Acks(event.channel, last.first, event.last, multiple=False)
            out.pop()
        out.append(event)
    return out


def alike(last: Publishes, event: Publishes) -> bool:
    return (last.channel, last.outline) == (event.channel, event.outline)


def follows(last: Acks, event: Acks) -> bool:
    return (
        last.channel == event.channel
        and not last.multiple
        and not event.multiple
        and event.first == last.last + 1
    )
