"""Links between nodes over real sockets, under both event loops; nothing here sleeps."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fluffle.broker.cluster.links.chunks import CHUNK_BYTES_MAX, WINDOW_BYTES
from fluffle.broker.cluster.links.handshake import VERSIONS
from fluffle.broker.cluster.links.identity import HelloRefusal
from fluffle.broker.cluster.links.links import ClusterLinks
from fluffle.broker.cluster.ports import FrameKind, Links, TrafficClass
from tests.broker.cluster.links.link_nodes import (
    SECRET,
    SWIFT,
    Node,
    identity,
    linked,
    stopping,
    wire_to,
)
from tests.broker.cluster.links.raw_sockets import listening
from tests.broker.conftest import Run


def test_frames_go_both_ways(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        links: Links = a.links
        async with stopping(a, b):
            assert not links.is_up("b")
            await linked(a, b)
            a.send("b", b"hello")
            b.send("a", b"")
            await b.until(lambda: bool(b.frames))
            await a.until(lambda: bool(a.frames))
            assert b.frames == [("a", FrameKind.SESSION, b"hello")]
            assert a.frames == [("b", FrameKind.SESSION, b"")]
            assert links.waiting_bytes("b", TrafficClass.NORMAL) == 0

    run(scenario())


def test_each_end_knows_which_logs_the_other_reads(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b", boot=7)
        async with stopping(a, b):
            assert a.links.reads == {"a": 1}
            await linked(a, b)
            assert a.links.reads == b.links.reads == {"a": 1, "b": 7}

    run(scenario())


def test_what_a_link_has_carried_is_known(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b):
            assert a.links.carried == {}
            await linked(a, b)
            before, reported = a.links.carried["b"], b.links.carried["a"]
            assert before.there == (b.address.host, b.address.port)
            assert reported.there == (a.address.host, a.address.port)
            assert before.here != reported.here
            a.send("b", bytes(10_000))
            await b.until(lambda: bool(b.frames))
            after, heard = a.links.carried["b"], b.links.carried["a"]
            assert after.bytes_out >= before.bytes_out + 10_000
            assert heard.bytes_in >= reported.bytes_in + 10_000

    run(scenario())


def test_each_end_knows_what_both_speak(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b):
            await linked(a, b)
            assert a.links.speaks == {"b": VERSIONS[1]}
            a.links.remove_peer("b")
            assert a.links.speaks == {}

    run(scenario())


def test_three_nodes_find_each_other_in_any_order(run: Run) -> None:
    async def scenario() -> None:
        nodes = [Node(name) for name in "abc"]
        async with stopping(*nodes):
            for one in nodes:
                for other in nodes:
                    if one is not other:
                        one.knows(other)
            for node in nodes:
                await node.reports_of(2)
                assert sorted(node.reported) == [
                    (name, True) for name in "abc" if name != node.name
                ]

    run(scenario())


def test_a_node_that_starts_later_is_found(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b):
            a.knows(b)
            await asyncio.sleep(0)
            b.knows(a)
            assert await a.reports_of(1) == [True]
            assert await b.reports_of(1) == [True]

    run(scenario())


def test_frames_of_all_sizes_arrive_whole_and_in_order_within_their_lane(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        sizes = [0, 1, 65_536, 65_537, 3_000_000]
        sent = {traffic: [bytes([traffic]) * size for size in sizes] for traffic in TrafficClass}
        async with stopping(a, b):
            await linked(a, b)
            for traffic in reversed(TrafficClass):
                for payload in sent[traffic]:
                    a.links.send("b", FrameKind(traffic), payload, traffic=traffic)
            await b.until(lambda: len(b.frames) == 3 * len(sizes))
            for traffic in TrafficClass:
                kind = FrameKind(traffic)
                assert [p for _, k, p in b.frames if k is kind] == sent[traffic]
            assert b.frames[0][1] is FrameKind(TrafficClass.URGENT)

    run(scenario())


def test_to_a_node_that_is_not_linked_nothing_is_sent(run: Run) -> None:
    async def scenario() -> None:
        a = Node("a")
        async with stopping(a):
            a.send("nobody", b"x")
            assert a.links.waiting_bytes("nobody", TrafficClass.NORMAL) == 0
            a.links.set_peer("b", "127.0.0.1", 1)
            a.send("b", b"x")
            assert a.links.counters.frames_dropped == 2

    run(scenario())


def test_a_link_that_is_reset_is_opened_again_at_once(run: Run) -> None:
    """The link is never reported as down; the new one is, so that lost frames are sent again."""

    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b), wire_to(b) as wire:
            b.knows(a)
            a.knows(b, wire.address)
            assert await a.reports_of(1) == [True]
            wire.cut()
            assert await a.reports_of(2) == [True, True]
            a.send("b", b"after")
            await b.until(lambda: b.payloads() == [b"after"])
            assert a.links.counters.resets == 1

    run(scenario())


def test_a_link_that_cannot_be_opened_again_is_down_at_once(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b), wire_to(b) as wire:
            b.knows(a)
            a.knows(b, wire.address)
            await a.reports_of(1)
            wire.refuse()
            wire.cut()
            assert await a.reports_of(2) == [True, False]

    run(scenario())


def test_a_node_that_stops_is_down_and_comes_back_in_another_life(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b):
            await linked(a, b)
            await b.links.stop()
            assert await a.reports_of(2) == [True, False]
            again = Node("b", boot=2)
            async with stopping(again):
                again.knows(a)
                a.knows(again)
                assert await a.reports_of(3) == [True, False, True]
                await again.reports_of(1)
                again.send("a", b"back")
                await a.until(lambda: a.payloads() == [b"back"])

    run(scenario())


def test_a_reset_in_the_middle_of_bulk_loses_an_end_and_nothing_else(run: Run) -> None:
    """Frames arrive whole from the first one on, without the last; then later ones.

    Pings go on all the time, and never wait for more of the bulk than may be under way.
    """

    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        sent = [bytes([number]) * 700_000 for number in range(11)]
        at_most = 1 + (WINDOW_BYTES[TrafficClass.BULK] + CHUNK_BYTES_MAX) // len(sent[0])

        async def ping(number: int) -> int:
            """How many frames of bulk came before it did."""
            had = len(b.payloads())
            a.send("b", b"ping %d" % number, TrafficClass.URGENT)
            await b.until(lambda: b"ping %d" % number in b.payloads())
            return b.payloads().index(b"ping %d" % number) - had

        async with stopping(a, b), wire_to(b) as wire:
            b.knows(a)
            a.knows(b, wire.address)
            await a.reports_of(1)
            for payload in sent:
                a.send("b", payload, TrafficClass.BULK)
            for number in range(4):
                assert await ping(number) <= at_most
            wire.cut()
            await a.reports_of(2)
            arrived = [payload for payload in b.payloads() if not payload.startswith(b"ping")]
            assert arrived == sent[: len(arrived)]
            assert len(arrived) < len(sent)
            assert a.links.waiting_bytes("b", TrafficClass.BULK) == 0
            a.send("b", b"after", TrafficClass.BULK)
            assert await ping(4) == 0
            await b.until(lambda: b"after" in b.payloads())
            assert b.payloads()[-2:] == [b"ping 4", b"after"]

    run(scenario())


def test_a_peer_can_move(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b), wire_to(b) as wire:
            await linked(a, b)
            a.knows(b, wire.address)
            assert await a.reports_of(2) == [True, True]
            wire.refuse()
            wire.cut()
            assert await a.reports_of(3) == [True, True, False]
            a.knows(b)
            assert await a.reports_of(4) == [True, True, False, True]

    run(scenario())


def test_a_peer_can_move_while_it_is_dialled_in_vain(run: Run) -> None:
    """A silent process is at the old address."""

    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b), listening() as silent:
            b.knows(a)
            a.knows(b, silent.address)
            await silent.accepted.get()
            await b.reports_of(1)
            a.knows(b)
            assert await a.reports_of(1) == [True]

    run(scenario())


def test_a_node_that_is_dialled_in_vain_is_down_when_its_own_link_ends(run: Run) -> None:
    """Its alarms and counts, which came over that link, must not stay for ever."""

    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b), listening() as silent:
            b.knows(a)
            a.knows(b, silent.address)
            await b.reports_of(1)
            b.send("a", b"low on memory")
            await a.until(lambda: a.payloads() == [b"low on memory"])
            assert a.reported == []
            await b.links.stop()
            assert await a.reports_of(1) == [False]

    run(scenario())


def test_a_peer_can_be_removed_and_is_let_in_no_more(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b", boot=2)
        async with stopping(a, b):
            await linked(a, b)
            a.links.remove_peer("b")
            assert a.reported == [("b", True), ("b", False)]
            assert a.links.reads == {"a": 1}
            assert await b.reports_of(2) == [True, False]
            a.links.remove_peer("b")
            assert len(a.reported) == 2
            await b.links.stop()
            wiped = Node("b", boot=1)
            async with stopping(wiped):
                wiped.knows(a)
                a.knows(wiped)
                assert await wiped.reports_of(1) == [True]

    run(scenario())


def test_both_directions_can_be_reset_for_what_a_node_sent(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b):
            await linked(a, b)
            a.links.reset("b", "nonsense")
            assert await a.reports_of(2) == [True, True]
            assert await b.reports_of(2) == [True, True]
            a.links.reset("nobody", "nonsense")

    run(scenario())


def test_a_link_from_an_earlier_life_ends_when_the_node_is_known_in_a_later_one(run: Run) -> None:
    """A crashed machine resets no connections of its first boot."""

    async def scenario() -> None:
        a, first, second = Node("a"), Node("b", boot=1), Node("b", boot=2)
        async with stopping(a, first, second):
            await linked(a, first)
            first.links._peers["a"].stop("dead")  # no more dialling, but its listener lives
            second.knows(a)
            await second.until(lambda: second.links.is_up("a"))
            assert await a.reports_of(2) == [True, False], "the first life is refused"

    run(scenario())


def test_a_link_of_an_earlier_life_to_us_ends_when_we_dial_the_later_one(run: Run) -> None:
    async def scenario() -> None:
        a, first, second = Node("a"), Node("b", boot=1), Node("b", boot=2)
        async with stopping(a, first, second):
            await linked(a, first)
            second.links.set_peer("a", "127.0.0.1", 1)  # lets it in, and does not dial it
            a.knows(second)
            assert await a.reports_of(2) == [True, True]
            assert await first.reports_of(2) == [True, False], (
                "it has dialled again, and is refused"
            )

    run(scenario())


def test_a_link_that_did_not_last_is_down_and_dialled_later(run: Run) -> None:
    """Else whatever ends it would end it a thousand times a second."""

    async def scenario() -> None:
        a, b = Node("a", limits=replace(SWIFT, settled_ms=60_000)), Node("b")
        async with stopping(a, b), wire_to(b) as wire:
            b.knows(a)
            a.knows(b, wire.address)
            await a.reports_of(1)
            wire.cut()
            assert await a.reports_of(3) == [True, False, True]

    run(scenario())


def test_a_node_that_dials_us_is_dialled_at_once(run: Run) -> None:
    async def scenario() -> None:
        patient = replace(SWIFT, redial_ms=3_600_000, redial_ms_max=3_600_000)
        a, b = Node("a", limits=patient), Node("b")
        async with stopping(a, b):
            a.knows(b)
            await a.has_refused(HelloRefusal.UNKNOWN_NODE, times=1)
            b.knows(a)
            assert await a.reports_of(1) == [True]

    run(scenario())


def test_links_need_a_secret_and_other_names(run: Run) -> None:
    async def scenario() -> None:
        with pytest.raises(ValueError, match="secret"):
            ClusterLinks(identity("a"), b"")
        links = ClusterLinks(identity("a"), SECRET)
        with pytest.raises(ValueError, match="a is this node"):
            links.set_peer("a", "127.0.0.1", 1)
        for name in ("", "n" * 256):
            with pytest.raises(ValueError, match="a name needs 1 to 255 bytes"):
                links.set_peer(name, "127.0.0.1", 1)
        with pytest.raises(ValueError, match="too large"):
            links.send("b", FrameKind.SESSION, bytes((128 << 20) + 1), traffic=TrafficClass.BULK)
        await links.stop()

    run(scenario())


def test_counters_count(run: Run) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b")
        async with stopping(a, b):
            await linked(a, b)
            await a.until(lambda: a.links.counters.accepted == 1)
            for _ in range(3):
                a.send("b", bytes(100_000))
            await b.until(lambda: len(b.frames) == 3)
            ours, theirs = a.links.counters, b.links.counters
            assert (ours.opened, ours.accepted, ours.resets) == (1, 1, 0)
            assert (ours.frames_out, theirs.frames_in) == (3, 3)
            assert 300_000 < theirs.bytes_in <= ours.bytes_out < 301_000

    run(scenario())
