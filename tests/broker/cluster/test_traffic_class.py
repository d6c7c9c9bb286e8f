"""Which messages go by which lane, and how they are parted into frames."""

from collections.abc import Sequence

import pytest

from fluffle.broker.cluster.ports import TrafficClass
from fluffle.broker.cluster.traffic_class import FRAME_BYTES_MAX, TrafficClasses
from fluffle.raft.messages import (
    AppendRequest,
    Message,
    Ping,
    SnapshotChunk,
    SnapshotOffer,
)
from fluffle.raft.records import DATA, Entry
from tests.support.raft_hosts import MemoryLinks, Network


@pytest.fixture
def links() -> MemoryLinks:
    return Network().join("a")


def append(group: int, first: int, *sizes: int) -> AppendRequest:
    entries = [Entry(index, 1, DATA, bytes(size)) for index, size in enumerate(sizes, first)]
    return AppendRequest(group, 1, 1, 1, first - 1, 1, 0, 1, entries)


def lanes_of(lanes: TrafficClasses, messages: Sequence[Message]) -> list[TrafficClass]:
    return [lane for lane, _ in lanes.frames("b", messages)]


def test_what_is_small_goes_before_bodies_and_those_before_snapshots(links: MemoryLinks) -> None:
    chunk = SnapshotChunk(1, 1, 1, 1, 5, 1, 0, 1, 5, [], 0, b"state", 1)
    offer = SnapshotOffer(1, 1, 1, 1, 5, 1, b"", b"", 5, 0, 1)
    ping = Ping(1, 1, 0, 0, is_answer_wanted=False)
    messages: list[Message] = [chunk, append(1, 1, 10), ping, offer, append(2, 1)]
    frames = list(TrafficClasses(links).frames("b", messages))
    assert frames == [
        (TrafficClass.URGENT, [ping]),
        (TrafficClass.NORMAL, [append(1, 1, 10), append(2, 1)]),
        (TrafficClass.BULK, [chunk, offer]),
    ]


def test_frames_are_of_limited_size_and_a_large_message_goes_alone(links: MemoryLinks) -> None:
    half, whole = FRAME_BYTES_MAX // 2, FRAME_BYTES_MAX
    messages = [append(group, 1, size) for group, size in enumerate([half, half, 2 * whole, 1, 1])]
    frames = [frame for _, frame in TrafficClasses(links).frames("b", messages)]
    assert frames == [messages[:1], messages[1:2], messages[2:3], messages[3:]]


def test_a_catch_up_takes_the_bulk_lane_and_the_group_stays_there(links: MemoryLinks) -> None:
    lanes = TrafficClasses(links)
    lanes.was_read(1, 10)
    links.bulk_waiting["b"] = 1_000
    assert lanes_of(lanes, [append(1, 10, 5)]) == [TrafficClass.BULK]
    lanes.end_turn()
    # From memory by now, but behind what still waits; other groups and nodes are not held up.
    assert lanes_of(lanes, [append(1, 11, 5)]) == [TrafficClass.BULK]
    assert lanes_of(lanes, [append(1, 12)]) == [TrafficClass.BULK]
    assert lanes_of(lanes, [append(2, 11, 5)]) == [TrafficClass.NORMAL]
    assert [lane for lane, _ in lanes.frames("c", [append(1, 11, 5)])] == [TrafficClass.NORMAL]
    links.bulk_waiting["b"] = 0
    lanes.end_turn()
    assert lanes_of(lanes, [append(1, 13, 5)]) == [TrafficClass.NORMAL]


def test_what_was_read_in_another_turn_is_no_catch_up(links: MemoryLinks) -> None:
    lanes = TrafficClasses(links)
    lanes.was_read(1, 10)
    lanes.end_turn()
    assert lanes_of(lanes, [append(1, 10, 5)]) == [TrafficClass.NORMAL]
