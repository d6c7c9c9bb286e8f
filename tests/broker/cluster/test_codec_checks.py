"""Checks of frames for what consensus takes for granted."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.codec import NUMBER_MAX, BadFrame, check, decode, encode
from fluffle.raft.config import Configuration, Member
from fluffle.raft.log import CONFIG, DATA, Entry
from fluffle.raft.messages import (
    AppendRequest,
    Message,
    Ping,
    PreVoteRequest,
    SnapshotChunk,
    SnapshotOffer,
)
from fluffle.raft.ranges import Ranges
from tests.support.payloads import joined
from tests.support.raft_hosts import HostCluster

GROUP = 7
CONFIG_BYTES = Configuration.initial("abc").encode()
ENTRIES = [Entry(5, 1, DATA, b"x"), Entry(6, 2, CONFIG, CONFIG_BYTES), Entry(7, 2, DATA, b"y")]
APPEND = AppendRequest(GROUP, 2, 1, 1, 4, 1, 3, 1, ENTRIES)
OFFER = SnapshotOffer(
    GROUP, 2, 1, 1, 9, 2, CONFIG_BYTES, Ranges.of((1, 4), (8, 10)).to_bytes(), 5, 0, 1
)
CHUNK = SnapshotChunk(GROUP, 2, 1, 1, 9, 2, 0, 1, 9, ENTRIES, 0, b"state", 1)


def test_what_nodes_say_is_let_through() -> None:
    check([Ping(1, 1, 0, 0, is_answer_wanted=True), APPEND, replace(APPEND, entries=[])])
    check([OFFER, CHUNK, replace(CHUNK, entries=[]), PreVoteRequest(GROUP, 2, 1, 1, 9, 2)])
    check([replace(OFFER, config=Configuration((), (Member("a", 2),), 2).encode(), live=b"")])


BAD_CONFIG = [replace(ENTRIES[1], payload=payload) for payload in (
    b"", b"\xff", b"[]", b"5", b"{}", b'{"voters":[[1,2]],"learners":[],"top_incarnation":1}',
    b'{"voters":[["a","b"]],"learners":[],"top_incarnation":1}',
    b'{"voters":[],"learners":[],"top_incarnation":"x"}', b"[" * 100_000,
)]  # fmt: skip
NONSENSE: list[Message] = [
    replace(APPEND, previous_index=3),
    replace(APPEND, entries=[ENTRIES[0], ENTRIES[2]]),
    replace(APPEND, entries=[ENTRIES[0], ENTRIES[0]]),
    replace(APPEND, term=1),
    replace(APPEND, previous_term=2),
    replace(APPEND, entries=[replace(ENTRIES[0], term=2), replace(ENTRIES[1], term=1)]),
    replace(APPEND, entries=[], previous_index=NUMBER_MAX),
    replace(APPEND, term=NUMBER_MAX),
    replace(APPEND, term=0, entries=[]),
    PreVoteRequest(GROUP, 2**64 - 1, 1, 1, 1, 1),
    *(replace(APPEND, previous_index=5, entries=[bad]) for bad in BAD_CONFIG),
    replace(OFFER, config=b"{"),
    replace(OFFER, live=b"\x80"),
    replace(OFFER, live=Ranges.of((1, 11)).to_bytes()),
    replace(OFFER, live=Ranges.of((0, 3)).to_bytes()),
    replace(OFFER, index=0, live=b""),
    replace(OFFER, index_term=3),
    replace(CHUNK, entries_through=6),
    replace(CHUNK, entries_from=6),
    replace(CHUNK, index=8),
    replace(CHUNK, entries=ENTRIES[::-1]),
]


@pytest.mark.parametrize("message", NONSENSE, ids=lambda message: type(message).__name__)
def test_nonsense_is_refused_by_a_host_that_then_goes_on(message: Message) -> None:
    with pytest.raises(BadFrame):
        check([message])
    cluster = HostCluster("ab")
    cluster.create(GROUP)
    follower = cluster.followers(GROUP)[0]
    follower.host.receive(cluster.leader(GROUP).name, joined(encode([message])))
    cluster.settle()
    assert len(follower.reported.refusals) == 1
    assert follower.fatal == []
    assert len(cluster.propose(GROUP, b"P12345678")) == 1


FRAMES = [joined(encode([message])) for message in (APPEND, OFFER, CHUNK)]


@given(st.sampled_from(FRAMES), st.integers(0, 10_000), st.integers(0, 255))
def test_a_byte_that_was_changed_on_the_way_is_refused_or_readable(
    frame: bytes, at: int, value: int
) -> None:
    changed = bytearray(frame)
    changed[at % len(frame)] = value
    try:
        messages = decode(bytes(changed))
        check(messages)
    except BadFrame:
        return
    for message in messages:
        if isinstance(message, SnapshotOffer):
            assert Configuration.decode(message.config).members is not None
            assert len(Ranges.from_bytes(message.live)) <= message.index
        if isinstance(message, AppendRequest):
            indexes = [entry.index for entry in message.entries]
            first = message.previous_index + 1
            assert indexes == list(range(first, first + len(indexes)))
