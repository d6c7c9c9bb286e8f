"""Sequences of methods that are well-formed and mean hardly anything."""

from __future__ import annotations

from hypothesis import strategies as st
from pamqp.commands import INDEX_MAPPING

from fluffle.protocol.methods import Method, encode_method, make
from fluffle.protocol.wire import PlainValue, to_table
from tests.support.edge import publish_frames

NAMES = st.sampled_from(("", "q", "q2", "amq.topic", "amq.x", "safe", "amq.rabbitmq.reply-to"))
ARGUMENTS: tuple[dict[str, PlainValue], ...] = (
    {},
    {"x-max-length": 3},
    {"x-max-priority": -1},
    {"x-queue-type": "quorum"},
    {"x-match": "any", "a": 1},
    {"x-priority": "text"},
    {"x-dead-letter-exchange": "amq.topic"},
    {"alternate-exchange": "amq.fanout"},
)
TABLES = st.sampled_from(ARGUMENTS).map(to_table)
NUMBERS = st.sampled_from((0, 1, 2, 3, 200))

BY_TYPE: dict[str, st.SearchStrategy[object]] = {
    "shortstr": st.one_of(NAMES, st.sampled_from(("direct", "topic", "headers", "#", "*.a"))),
    "longstr": st.sampled_from((b"", b"\0guest\0guest")),
    "bit": st.booleans(),
    "table": TABLES,
    "octet": NUMBERS,
    "short": NUMBERS,
    "long": NUMBERS,
    "longlong": NUMBERS,
    "timestamp": NUMBERS,
}
CLASSES: st.SearchStrategy[type[Method]] = st.sampled_from(list(INDEX_MAPPING.values()))
CHANNELS = st.sampled_from((0, 1, 1, 1, 2))


@st.composite
def methods(draw: st.DrawFn) -> Method:
    """Any method of any class, those of servers included."""
    cls = draw(CLASSES)
    drawn = {name: draw(BY_TYPE[cls.amqp_type(name)]) for name in cls.attributes()}
    return make(cls, **drawn)


@st.composite
def publishes(draw: st.DrawFn) -> bytes:
    """A message, whole or cut short; where to, and whether that is asked to be sure."""
    frames = publish_frames(
        draw(st.binary(max_size=20)),
        draw(st.sampled_from(("q", "q2", "nowhere"))),
        draw(CHANNELS),
        exchange=draw(st.sampled_from(("", "amq.topic", "amq.headers", "missing"))),
        mandatory=draw(st.booleans()),
        immediate=draw(st.booleans()) and draw(st.booleans()),
    )
    return frames[: draw(st.sampled_from((len(frames), len(frames), len(frames), 30, 60)))]


FRAMES = st.one_of(st.builds(encode_method, CHANNELS, methods()), publishes())
SPEECHES = st.lists(FRAMES, max_size=40).map(b"".join)
"""Bytes of a client after login; channels are opened by chance, too."""
