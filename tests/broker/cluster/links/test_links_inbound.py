"""Nodes that are refused, and what misbehaving nodes can do to us."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.links.chunks import (
    CHUNK_BYTES_MAX,
    HEARTBEAT_CHUNK,
    WINDOW_BYTES,
    ChunkDecoder,
    OutgoingFrame,
)
from fluffle.broker.cluster.links.connection import LinkConnection, establish
from fluffle.broker.cluster.links.handshake import LinkCredentials, LinkHandshake, refusal
from fluffle.broker.cluster.links.identity import (
    ADVICE,
    DESTRUCTIVE,
    SEE_REFUSER,
    UNPROVED,
    WITHOUT_DATA,
    Boot,
    Boots,
    HelloRefusal,
    Identity,
    LinkRefused,
    PeerBoots,
)
from fluffle.broker.cluster.links.keepalive import Keepalive
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from tests.broker.cluster.links.link_nodes import (
    SECRET,
    SWIFT,
    Node,
    identity,
    linked,
    stopping,
)
from tests.broker.cluster.links.raw_sockets import listening, raw_to
from tests.broker.conftest import Run
from tests.support.loop_turns import turns_until
from tests.support.manual_clock import ManualClock

TICK_MS = 250
"""Step of a clock that is moved by hand."""

BEFORE_PING_BYTES_MAX = WINDOW_BYTES[TrafficClass.BULK] + CHUNK_BYTES_MAX + 1_024
"""Bytes of BULK that may be under way, with their heads."""


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    """The fields of each event of that name."""
    records = [record for record in caplog.records if record.getMessage() == name]
    return [getattr(record, FIELDS_ATTRIBUTE) for record in records]


# At the door


@pytest.mark.parametrize("record", [b"\x16\x03\x01\x02\x00\x01", b"\x15\x03\x01\x00\x02\x02"])
def test_who_speaks_tls_to_a_node_that_does_not_is_known_by_it(
    run: Run, caplog: pytest.LogCaptureFixture, record: bytes
) -> None:
    """A client hello, and the alert of a listener that was dialled in the clear."""

    async def scenario() -> None:
        a = Node("a")
        async with stopping(a), raw_to(a.address) as raw:
            raw.writer.write(record)
            await turns_until(lambda: bool(logged(caplog, "link_refused")))
            assert a.links.counters.refused[HelloRefusal.TLS] == 1

    caplog.set_level(logging.INFO)
    run(scenario())
    (line,) = logged(caplog, "link_refused")
    assert line["reason"] == "tls (that node speaks TLS, this one does not)"
    assert line["advice"] == ADVICE[HelloRefusal.TLS]


@pytest.mark.parametrize(
    ("other", "secret", "reason"),
    [
        (identity("b"), b"guess", HelloRefusal.SECRET),
        (identity("b", cluster="hares"), SECRET, HelloRefusal.CLUSTER),
        (identity("c"), SECRET, HelloRefusal.UNKNOWN_NODE),
        (identity("a"), SECRET, HelloRefusal.OWN_NAME),
    ],
)
def test_a_stranger_gets_the_reason_logged_once_and_counted(
    run: Run, caplog: pytest.LogCaptureFixture, other: Identity, secret: bytes, reason: HelloRefusal
) -> None:
    async def scenario() -> None:
        a = Node("a")
        a.links.set_peer("b", "127.0.0.1", 1)
        async with stopping(a):
            for count in (1, 2, 3):
                async with raw_to(a.address) as raw:
                    us = LinkCredentials(other, secret, PeerBoots(), {"a"}, Boots.since(other.boot))
                    handshake = LinkHandshake(us, "a", challenge=bytes([count]) * 32)
                    raw.writer.write(handshake.start())
                    with pytest.raises(LinkRefused, match=f"refused by it: {reason}"):
                        await raw.finish(handshake)
                    assert a.links.counters.refused[reason] == count
            assert (a.reported, a.links.counters.accepted) == ([], 0)

    caplog.set_level(logging.INFO)
    run(scenario())
    (line,) = logged(caplog, "link_refused")
    assert (line["peer"], line["reason"]) == ("127.0.0.1", str(reason))
    is_proved = reason is HelloRefusal.UNKNOWN_NODE
    names = (None, other.node) if is_proved else (other.node, None)
    assert (line["claims"], line["node"]) == names, "of the others nothing is proved"
    assert line["advice"]


def test_what_a_stranger_says_of_disks_is_no_advice(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer claims to be a node, and to know this one in a start that its disk does not know."""

    async def scenario() -> None:
        a = Node("a")
        a.links.set_peer("b", "127.0.0.1", 1)
        boots = PeerBoots({"a": Boot(9, b"x" * 16)})
        us = LinkCredentials(identity("b"), b"guess", boots, {"a"}, Boots.since(identity("b").boot))
        async with stopping(a), raw_to(a.address) as raw:
            handshake = LinkHandshake(us, "a", challenge=bytes(32))
            raw.writer.write(handshake.start())
            with pytest.raises(LinkRefused, match="refused by it: secret"):
                await raw.finish(handshake)

    caplog.set_level(logging.INFO)
    run(scenario())
    (line,) = logged(caplog, "link_refused")
    assert (line["claims"], line["reason"]) == ("b", "secret")
    assert line["advice"] == ADVICE[HelloRefusal.SECRET]


@pytest.mark.parametrize("reason", sorted(DESTRUCTIVE))
def test_who_answers_without_proof_cannot_have_a_disk_emptied(
    run: Run, caplog: pytest.LogCaptureFixture, reason: HelloRefusal
) -> None:
    advice = SEE_REFUSER if reason is HelloRefusal.FORGOTTEN else UNPROVED

    async def scenario() -> None:
        a = Node("a")
        async with stopping(a), listening() as stranger:
            a.links.set_peer("b", stranger.address.host, stranger.address.port)
            raw = await stranger.accepted.get()
            raw.writer.write(refusal(reason))
            await turns_until(lambda: bool(logged(caplog, "link_refused")))
            hindrance = a.links.hindrance("b")
            assert hindrance is not None
            assert hindrance.advice == advice

    caplog.set_level(logging.INFO)
    run(scenario())
    line, *_ = logged(caplog, "link_refused")
    assert (line["reason"], line["advice"]) == (f"refused by it: {reason}", advice)


def test_a_node_that_is_refused_logs_it_once_and_goes_on_trying(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a, b = Node("a"), Node("b", secret=b"guess")
        async with stopping(a, b):
            a.links.set_peer("b", "127.0.0.1", 1)
            b.knows(a)
            await a.has_refused(HelloRefusal.SECRET, times=3)
            assert b.reported == []

    caplog.set_level(logging.INFO)
    run(scenario())
    lines = logged(caplog, "link_refused")
    assert sorted((line["peer"], line["reason"]) for line in lines) == [
        ("127.0.0.1", "secret"),
        ("a", "refused by it: secret"),
    ]


def test_who_has_proved_his_name_is_refused_by_it(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Several nodes of one host are distinguished."""

    async def scenario() -> None:
        a = Node("a", boots=PeerBoots({"b": identity("b", 7).boot, "c": identity("c", 7).boot}))
        for node in "bc":
            a.links.set_peer(node, "127.0.0.1", 1)
        async with stopping(a):
            for node in "bcb":
                async with raw_to(a.address) as raw:
                    lives = Boots(7, (identity(node, 6).boot.nonce,))
                    us = LinkCredentials(identity(node, 6), SECRET, PeerBoots(), {"a"}, lives)
                    handshake = LinkHandshake(us, "a", challenge=bytes(32))
                    raw.writer.write(handshake.start())
                    with pytest.raises(LinkRefused, match="refused by it: old_boot"):
                        await raw.finish(handshake)

    caplog.set_level(logging.INFO)
    run(scenario())
    lines = [line for line in logged(caplog, "link_refused") if line["peer"] == "127.0.0.1"]
    assert [(line["node"], line["claims"]) for line in lines] == [("b", None), ("c", None)]
    assert all("empty data directory" in str(line["advice"]) for line in lines)


def test_who_dials_what_is_no_node_is_asked_for_the_address(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a = Node("a")
        async with stopping(a), listening() as clients:
            a.links.set_peer("b", clients.address.host, clients.address.port)
            for _ in range(2):
                raw = await clients.accepted.get()
                raw.writer.write(JUNK["AMQP"])
            await a.has_refused(HelloRefusal.NOT_A_HELLO, times=2)

    caplog.set_level(logging.INFO)
    run(scenario())
    (line,) = logged(caplog, "link_refused")
    assert line["peer"] == "b"
    assert "is that its --cluster-listen address" in str(line["advice"])


def test_a_wiped_disk_under_its_old_name_is_refused(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a = Node("a", boots=PeerBoots({"b": identity("b", 7).boot}))
        wiped = Node("b", boot=1)
        async with stopping(a, wiped):
            a.knows(wiped)
            wiped.knows(a)
            await wiped.has_refused(HelloRefusal.FORGOTTEN, times=2)
            assert (a.reported, wiped.reported) == ([], [])

    caplog.set_level(logging.INFO)
    run(scenario())
    (line,) = [line for line in logged(caplog, "link_refused") if line["peer"] == "127.0.0.1"]
    assert (line["claims"], line["node"]) == (None, "a"), "who is refused has proved who it is"
    assert line["advice"] == WITHOUT_DATA


JUNK = {"HTTP": b"GET / HTTP/1.1\r\n\r\n", "AMQP": b"AMQP\0\0\x09\x01"}


@pytest.mark.parametrize("what", JUNK)
def test_who_does_not_speak_the_protocol_is_cut_off(run: Run, what: str) -> None:
    async def scenario() -> None:
        a = Node("a")
        async with stopping(a), raw_to(a.address) as raw:
            raw.writer.write(JUNK[what])
            await raw.is_closed()
            assert a.links.counters.refused[HelloRefusal.NOT_A_HELLO] == 1

    run(scenario())


def test_who_is_slow_to_say_who_he_is_is_cut_off(run: Run) -> None:
    async def scenario() -> None:
        a = Node("a", limits=replace(SWIFT, handshake_ms=30))
        async with stopping(a), raw_to(a.address) as raw:
            raw.writer.write(b"\x00")
            await raw.is_closed()
            assert a.links.counters.refused[HelloRefusal.TOO_SLOW] == 1

    run(scenario())


@pytest.mark.parametrize("sent", [refusal(HelloRefusal.TOO_SLOW), b"\0\2\x92\2", b"\0\1\xc1"])
def test_who_gives_up_a_handshake_that_was_done_here_is_understood(
    run: Run, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async def scenario() -> None:
        a = Node("a")
        a.links.set_peer("b", "127.0.0.1", 1)
        async with stopping(a), raw_to(a.address) as raw:
            await raw.prove(identity("b"), "a")
            raw.writer.write(sent)
            await raw.is_closed()

    caplog.set_level(logging.INFO)
    run(scenario())
    (ended,) = logged(caplog, "link_ended")
    is_refusal = sent == refusal(HelloRefusal.TOO_SLOW)
    said = "refused by it: too_slow" if is_refusal else "it sent what is no frame: a tag of 0"
    assert ended["reason"] == said


class Withdrawn(asyncio.Transport):
    """Transport whose making was cancelled, as uvloop leaves it: it can only be aborted."""

    is_withdrawn = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_withdrawn:
            raise RuntimeError("the handler is closed")

    def is_closing(self) -> bool:
        return self.is_withdrawn

    def abort(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


@pytest.mark.parametrize("is_proved", [False, True])
def test_a_connection_that_is_late_when_it_has_just_been_made_is_given_up(
    run: Run, is_proved: bool
) -> None:
    """A connection of a busy machine is useless, and the peer is to be dialled again."""

    async def scenario() -> None:
        a = Node("a")
        a.links.set_peer("b", "127.0.0.1", 1)
        ground, peer = a.links._context, a.links._peers["b"]
        connection = LinkConnection(ground, peer, peer._begin, takes_frames=False)

        async def connecting() -> None:
            transport = Withdrawn()
            connection.connection_made(transport)
            if is_proved:
                connection.identity = identity("b")
                connection.opened.set_result(True)
            try:
                await asyncio.Event().wait()
            finally:
                transport.is_withdrawn = True

        async with stopping(a):
            assert await establish(connection, connecting(), within_ms=1) is is_proved
            assert not connection.is_open
            assert connection.ended.result() == "it does not answer"
            connection.connection_lost(None)

    run(scenario())


def test_nothing_is_said_over_a_socket_that_has_failed_before_that_is_reported(run: Run) -> None:
    """uvloop raises, and what else was to be done in that turn would be left."""

    async def scenario() -> None:
        a = Node("a")
        a.links.set_peer("b", "127.0.0.1", 1)
        ground, peer = a.links._context, a.links._peers["b"]
        connection = LinkConnection(ground, peer, peer._begin, takes_frames=False)
        transport = Withdrawn()
        connection.connection_made(transport)
        connection.identity = identity("b")
        async with stopping(a):
            transport.is_withdrawn = True
            long_ago_ms = ground.clock.now_ms() - ground.limits.beat_ms
            connection._keepalive = Keepalive(long_ago_ms, ground.limits)
            connection._keepalive.has_sent = False
            connection.tick()
            assert connection.send(FrameKind.METADATA, b"x", TrafficClass.NORMAL)
            connection._fill()
            assert connection.waiting_bytes(TrafficClass.NORMAL)
            connection.connection_lost(None)

    run(scenario())


def test_strangers_take_no_room_from_nodes(run: Run) -> None:
    """There may be three at a time: the next one takes the place of the first."""

    async def scenario() -> None:
        a, b = Node("a", limits=replace(SWIFT, strangers_max=3)), Node("b")
        async with (
            stopping(a, b),
            raw_to(a.address) as first,
            raw_to(a.address) as second,
            raw_to(a.address),
            raw_to(a.address),
        ):
            await first.is_closed()
            await linked(a, b)
            await second.is_closed()
            assert a.links.counters.accepted == 1

    run(scenario())


# Behind it


def test_a_node_that_sends_nonsense_is_cut_off_with_one_line(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a = Node("a")
        a.links.set_peer("b", "127.0.0.1", 1)
        async with stopping(a), raw_to(a.address) as raw:
            await raw.prove(identity("b"), "a")
            raw.writer.write(b"".join(OutgoingFrame(2, b"good").piece(1)) + b"nonsense" * 10_000)
            await raw.is_closed()
            assert a.payloads() == [b"good"]
            assert a.links.counters.resets == 1

    caplog.set_level(logging.INFO)
    run(scenario())
    (line,) = logged(caplog, "link_ended")
    assert line["reason"] == "it sent what is no frame: a tag of 110"


def test_who_was_dialled_may_send_nothing_but_beats(run: Run) -> None:
    async def scenario() -> None:
        a = Node("a")
        async with stopping(a), listening() as listener:
            a.links.set_peer("b", listener.address.host, listener.address.port)
            raw = await listener.link(identity("b"))
            raw.writer.write(HEARTBEAT_CHUNK * 3)
            await a.reports_of(1)
            raw.writer.write(b"".join(OutgoingFrame(2, b"x").piece(1)))
            await raw.is_closed()
            assert a.frames == []

    run(scenario())


def test_a_node_that_dials_again_replaces_the_link_it_had(run: Run) -> None:
    async def scenario() -> None:
        a = Node("a")
        a.links.set_peer("b", "127.0.0.1", 1)
        async with stopping(a), raw_to(a.address) as old, raw_to(a.address) as new:
            await old.prove(identity("b"), "a")
            await new.prove(identity("b"), "a")
            await old.is_closed()
            new.writer.write(b"".join(OutgoingFrame(0, b"new").piece(0)))
            await a.until(lambda: a.payloads() == [b"new"])
            assert (a.links.counters.accepted, a.links.counters.resets) == (2, 1)

    run(scenario())


def test_a_link_that_is_silent_is_reset_at_both_ends(run: Run) -> None:
    """The other end is there, and says nothing: a cable that was pulled looks like that.

    What was read is looked at before time passes.  A timer of the node does that too, whenever it
    likes, and a look behind it would take the other end to have been heard later.
    """

    async def scenario() -> None:
        clock = ManualClock()
        a = Node("a", clock=clock, limits=replace(SWIFT, silent_after_ms=2_000))
        async with stopping(a), listening() as listener, raw_to(a.address) as inbound:
            a.links.set_peer("b", listener.address.host, listener.address.port)
            await inbound.prove(identity("b"), "a")
            dialled = await listener.link(identity("b"))
            await a.reports_of(1)
            await turns_until(lambda: "b" in a.links.dialled_by)
            counters, said = a.links.counters, a.links.counters.bytes_out
            enough = counters.bytes_in
            for number in range(19):
                if number < 12:
                    enough += 2 * len(HEARTBEAT_CHUNK)
                    for link in (inbound, dialled):
                        link.writer.write(HEARTBEAT_CHUNK)
                    await a.has_read(enough)
                a.links.tick()
                assert counters.resets == 0
                clock.advance(TICK_MS)
                a.links.tick()
            assert counters.resets == 2
            assert counters.bytes_out - said >= 2 * 18 * len(HEARTBEAT_CHUNK)
            for link in (inbound, dialled):
                await link.is_closed()
            await listener.link(identity("b"))
            assert await a.reports_of(2) == [True, True]

    run(scenario())


def test_beats_keep_a_link_that_has_nothing_to_say(run: Run) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        a, b = Node("a", clock=clock), Node("b", clock=clock)
        async with stopping(a, b):
            await linked(a, b)
            for _ in range(20):
                enough = {
                    node: node.links.counters.bytes_in + len(HEARTBEAT_CHUNK) for node in (a, b)
                }
                for _ in range(4):
                    clock.advance(TICK_MS)
                    a.links.tick()
                    b.links.tick()
                for node, size in enough.items():
                    await node.has_read(size)
            assert (a.reported, b.reported) == ([("b", True)], [("a", True)])

    run(scenario())


def test_a_peer_that_never_reads_costs_bounded_memory(run: Run) -> None:
    """BULK and NORMAL are refused, URGENT resets the link; then everything is forgotten."""

    async def scenario() -> None:
        limits = replace(
            SWIFT, urgent_bytes_max=300_000, normal_bytes_max=2_000_000, bulk_bytes_max=1_000_000
        )
        a = Node("a", limits=limits)
        async with stopping(a), listening() as listener:
            a.links.set_peer("b", listener.address.host, listener.address.port)
            raw = await listener.link(identity("b"))
            await a.reports_of(1)
            raw.read_no_more()
            counters = a.links.counters
            for traffic in (TrafficClass.BULK, TrafficClass.NORMAL):
                refused = counters.frames_without_room
                while counters.frames_without_room == refused:
                    for _ in range(100):
                        a.send("b", bytes(100_000), traffic)
                    await asyncio.sleep(0)
                assert a.links.waiting_bytes("b", traffic) <= limits.waiting_bytes_max[traffic]
            assert counters.resets == 0
            while counters.resets == 0:
                a.send("b", bytes(10_000), TrafficClass.URGENT)
            assert [a.links.waiting_bytes("b", traffic) for traffic in TrafficClass] == [0, 0, 0]

    run(scenario())


def test_a_peer_that_lives_and_never_reads_is_reset(run: Run) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        a = Node("a", clock=clock, limits=replace(SWIFT, bulk_bytes_max=64 << 20))
        async with stopping(a), listening() as listener:
            a.links.set_peer("b", listener.address.host, listener.address.port)
            raw = await listener.link(identity("b"))
            await a.reports_of(1)
            raw.read_no_more()
            for _ in range(60):
                a.send("b", bytes(1 << 20), TrafficClass.BULK)
            counters = a.links.counters
            while not counters.resets:
                enough = counters.bytes_in + len(HEARTBEAT_CHUNK)
                raw.writer.write(HEARTBEAT_CHUNK)
                await a.has_read(enough)
                clock.advance(TICK_MS)
                a.links.tick()
            assert clock.now_ms() >= SWIFT.silent_after_ms

    run(scenario())


def test_pings_pass_bulk_on_the_wire(run: Run) -> None:
    """A slow reader, a bulk transfer, and one ping at a time: counted in bytes, not in time."""

    async def scenario() -> None:
        a = Node("a", limits=replace(SWIFT, bulk_bytes_max=64 << 20))
        async with stopping(a), listening() as listener:
            a.links.set_peer("b", listener.address.host, listener.address.port)
            raw = await listener.link(identity("b"))
            await a.reports_of(1)
            sent_bulk = bytes(60 << 20)
            a.send("b", sent_bulk, TrafficClass.BULK)
            decoder = ChunkDecoder(frozenset(FrameKind), frame_bytes_max=1 << 30)
            before: list[int] = []
            while len(before) < 20:
                a.send("b", b"ping", TrafficClass.URGENT)
                before.append(0)
                pongs: list[tuple[int, bytes]] = []
                while not pongs:
                    data = await raw.reader.read(1 << 16)
                    before[-1] += len(data)
                    pongs = decoder.feed(data)
                    raw.writer.write(decoder.acknowledge())
                assert pongs == [(FrameKind.SESSION, b"ping")]
            assert decoder.fault is None
            assert max(before) <= BEFORE_PING_BYTES_MAX

    run(scenario())
