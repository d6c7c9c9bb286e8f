"""Frames on simulated links, and when their ends learn that they are gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fluffle.broker.cluster.links.chunks import LinkSendQueue
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from tests.mutants.registry import mutant
from tests.simulation.facts import Violation
from tests.simulation.links import LinkedNetwork, taken
from tests.simulation.network import REAL, LinkProfile, NetworkProfile
from tests.simulation.virtual_time import MS_US, SECOND_US, VirtualTime
from tests.suite.seeds import seeds

SCALE = 1 << 13
ROOM = REAL.normal_bytes_max // SCALE


class Wired:
    """Two nodes, and all that they hear."""

    def __init__(self, seed: int = 1, *, network_bytes: int = 1 << 30) -> None:
        self.clockwork = VirtualTime(seed)
        self.got: list[bytes] = []
        """Frames received by b."""
        self.reported: list[bool] = []
        """To a, of its link to b."""
        self.paused: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        """Calls that b makes later, while it is paused."""
        profile = NetworkProfile(is_stream=True, links=LinkProfile(SCALE, network_bytes))
        self.network = LinkedNetwork(
            ("a", "b"),
            self.clockwork,
            profile,
            self._deliver,
            self._link_changed,
            when_awake=self._do,
        )
        for node in ("a", "b"):
            self.network.attach(node, 1)
        self.pass_(1)

    def _deliver(self, _from: str, to: str, _kind: FrameKind, payload: bytes) -> None:
        if to == "b":
            self.got.append(payload)

    def _link_changed(self, node: str, _other: str, is_up: bool) -> None:
        if node == "a":
            self.reported.append(is_up)

    def _do(self, node: str, call: Callable[..., None], *args: Any) -> None:
        if node == "b" and self.paused is not None:
            self.paused.append((call, args))
        else:
            call(*args)

    def pass_(self, seconds: float) -> None:
        self.clockwork.run(self.clockwork.now_us + int(seconds * SECOND_US))

    def send(self, *payloads: bytes, traffic: TrafficClass = TrafficClass.NORMAL) -> None:
        for payload in payloads:
            self.network.send("a", "b", FrameKind.SESSION, payload, traffic)

    def pause(self) -> None:
        self.paused = []
        self.network.pause("b")

    def resume(self) -> None:
        assert self.paused is not None
        paused, self.paused = self.paused, None
        self.network.resume("b")
        for call, args in paused:
            call(*args)


def test_what_there_is_no_room_for_is_dropped_and_nobody_is_reported() -> None:
    wired = Wired()
    body = bytes(ROOM // 4)
    wired.send(*[body] * 6)
    assert wired.network.waiting_bytes("a", "b", TrafficClass.NORMAL) > REAL.normal_bytes_max // 2
    wired.pass_(1)
    assert len(wired.got) + wired.network.frames_without_room == 6
    assert wired.network.frames_without_room > 0
    assert wired.reported == [True]


def test_a_link_ends_that_has_no_room_for_what_is_urgent() -> None:
    wired = Wired()
    wired.send(*[bytes(ROOM // 16)] * 6, traffic=TrafficClass.URGENT)
    assert wired.network.overflows > 0
    wired.pass_(1)
    assert wired.reported[-1] is True
    assert len(wired.reported) > 1


def test_urgent_frames_overtake_what_the_network_has_not_taken() -> None:
    wired = Wired(network_bytes=100)
    wired.send(b"1" * 200, b"2" * 200)
    wired.pass_(0.0001)
    wired.send(b"now", traffic=TrafficClass.URGENT)
    wired.pass_(1)
    assert [each[:1] for each in wired.got] == [b"1", b"n", b"2"]


def test_a_node_that_stands_still_reads_later_unless_it_is_given_up() -> None:
    wired = Wired()
    wired.pause()
    wired.send(b"1")
    wired.pass_(1)
    assert wired.got == []
    wired.resume()
    assert wired.got == [b"1"]
    wired.pause()
    wired.pass_(REAL.silent_after_ms / 1_000 + 1)
    assert wired.reported[-1] is False


@seeds(4)
def test_behind_a_short_cut_all_comes_late_or_over_another_link(seed: int) -> None:
    wired = Wired(seed)
    wired.network.cut("a", "b")
    wired.send(b"1")
    wired.pass_(0.5)
    assert wired.got == []
    wired.network.mend("a", "b")
    wired.pass_(1)
    assert (wired.got, len(wired.reported)) in [([b"1"], 1), ([], 2), ([], 3)]
    wired.send(b"2")
    wired.pass_(1)
    assert wired.got[-1] == b"2"


@seeds(8)
def test_nothing_comes_behind_what_is_lost_but_over_another_connection(seed: int) -> None:
    """A credit was lost once, and the link stayed: the edge was never asked for it again."""
    wired = Wired(seed)
    wired.network.profile.loss = 0.5
    sent = [b"%d" % number for number in range(20)]
    for payload in sent:
        links, before = len(wired.reported), len(wired.got)
        wired.send(payload)
        wired.pass_(1)
        assert len(wired.got) > before or len(wired.reported) > links
    assert 0 < len(wired.got) < len(sent)


def test_it_is_known_of_a_process_that_its_host_says_that_it_does_not_run() -> None:
    wired = Wired()
    wired.network.detach("b", is_silent=False)
    wired.pass_(1)
    assert wired.network.is_not_running("a", "b")
    assert wired.reported[-1] is False
    wired.network.attach("b", 2)
    wired.pass_(1)
    assert not wired.network.is_not_running("a", "b")
    wired.network.detach("b", is_silent=True)
    wired.pass_(1)
    assert wired.reported[-1] is True, "nothing has come yet, nor has nothing for long"
    wired.pass_(REAL.silent_after_ms * MS_US / SECOND_US)
    assert wired.reported[-1] is False
    assert not wired.network.is_not_running("a", "b")


def test_what_is_urgent_goes_before_bodies() -> None:
    """Rule 20; else it is found."""
    outbox = LinkSendQueue(LinkProfile(SCALE).waiting_bytes_max)
    outbox.put(TrafficClass.BULK, FrameKind.CONSENSUS, b"body")
    outbox.put(TrafficClass.URGENT, FrameKind.CONSENSUS, b"ping")
    with mutant("R20").in_place(), pytest.raises(Violation, match="rule 20"):
        taken(outbox, 100)
    outbox.put(TrafficClass.BULK, FrameKind.CONSENSUS, b"another")
    assert [taken(outbox, 1)[-4:], taken(outbox, 100)[-7:]] == [b"ping", b"another"]
