"""A network that delays, loses, repeats, reorders, cuts and resets: a link between any two nodes.

Each direction of a link has a way of its own.  Two modes: *datagrams*, where every frame has its
own delay; and *streams*, in order, where a loss resets the link: a suffix of what was under way is
gone in both directions, and the ends notice at different times.

The transport's promise is kept in both: a frame arrives only at the boot that it was meant for, and
not after the receiver has heard a later boot of the sender.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol, TypeAlias

from fluffle.broker.cluster.links.keepalive import LinkLimits
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.raft.config import NodeId
from tests.simulation.virtual_time import MS_US, VirtualTime

REAL = LinkLimits()

Deliver: TypeAlias = Callable[[NodeId, NodeId, FrameKind, bytes], None]
"""(from, to, what the payload is, payload)"""
LinkChanged: TypeAlias = Callable[[NodeId, NodeId, bool], None]
"""(at, other end, whether it is up)"""


@dataclass(slots=True, frozen=True)
class LinkProfile:
    """How much a link takes in one run."""

    scale: int = 1
    """So many times more do links of daemons take, and so much more is said to wait than does."""
    network_bytes: int = 1 << 30
    """So much may be under way, and not read."""

    @property
    def waiting_bytes_max(self) -> dict[TrafficClass, int]:
        return {traffic: size // self.scale for traffic, size in REAL.waiting_bytes_max.items()}


@dataclass(slots=True)
class NetworkProfile:
    """How the network behaves in one run; times one way, chances per frame."""

    is_stream: bool = False
    apart_us: int = 0
    """Streams: least time between two frames.  0: those of one moment may change places, which
    groups must bear."""
    delay_us: int = 300
    """Least delay; the mean is twice that."""
    tail: float = 0.01
    """Share of frames that take up to `tail_us` longer."""
    tail_us: int = 50 * MS_US
    loss: float = 0.0
    repeats: float = 0.0
    late_us: int = 5_000 * MS_US
    """Some repeated frames come so much later: they were held somewhere."""
    bytes_per_ms: int = 0
    """0: no limit."""
    detect_us: int = 5 * MS_US
    """Until an end notices that its link was reset."""
    reconnect_us: int = 20 * MS_US
    links: LinkProfile | None = None
    """Streams: what becomes of frames before they leave; None: they leave at once."""

    def calmed(self) -> "NetworkProfile":
        """The same with nothing lost, nothing very late, and room for all."""
        links = None if self.links is None else LinkProfile()
        return replace(self, loss=0.0, repeats=0.0, tail=0.0, bytes_per_ms=0, links=links)


class Delays(Protocol):
    """Delays of a direction."""

    slow_us: int
    free_us: int


def transit_us(profile: NetworkProfile, way: Delays, size: int, chance: Random, now_us: int) -> int:
    """How long so many bytes take, behind those before."""
    delay_us = profile.delay_us + int(chance.expovariate(1 / profile.delay_us)) + way.slow_us
    if profile.tail and chance.random() < profile.tail:
        delay_us += int(profile.tail_us * chance.random())
    if profile.bytes_per_ms:
        way.free_us = max(way.free_us, now_us) + size * MS_US // profile.bytes_per_ms
        delay_us += way.free_us - now_us
    return delay_us


Frame = tuple[FrameKind, bytes]
Held = tuple[NodeId, NodeId, Frame, tuple[int, int], int]
"""A frame, as `_arrive` takes it."""


class Direction:
    """Direction of a link between two nodes."""

    __slots__ = ("arrives_us", "free_us", "generation", "held", "held_share", "is_cut", "slow_us")

    def __init__(self) -> None:
        self.is_cut = False
        """Frames go nowhere, and nothing is reported."""
        self.slow_us = 0
        """Added to each delay."""
        self.free_us = 0
        """When the frames before have left."""
        self.arrives_us = 0
        """When the last frame arrives: in a stream none comes before it."""
        self.generation = 0
        """Streams: frames of an earlier one were lost when the link was reset."""
        self.held_share = 0.0
        """Datagrams: chance of a frame to be held back."""
        self.held: list[Held] = []


class SimNetwork:
    """Knows which boot each node is in; processes come and go by `attach` and `detach`."""

    __slots__ = (
        "_boots", "_chance", "_clockwork", "_deliver", "_heard", "_link_changed", "_ways",
        "frames", "nodes", "profile",
    )  # fmt: skip

    def __init__(
        self,
        nodes: tuple[NodeId, ...],
        clockwork: VirtualTime,
        profile: NetworkProfile,
        deliver: Deliver,
        link_changed: LinkChanged,
    ) -> None:
        self.nodes = nodes
        self.profile = profile
        self.frames = 0
        """How many were sent."""
        self._clockwork = clockwork
        self._chance: Random = clockwork.chance("network")
        self._deliver = deliver
        self._link_changed = link_changed
        self._ways = {(a, b): Direction() for a in nodes for b in nodes if a != b}
        self._boots: dict[NodeId, int] = {}
        self._heard: dict[tuple[NodeId, NodeId], int] = {}
        """(receiver, sender) -> the sender's latest boot that was heard in the receiver's boot."""

    def attach(self, node: NodeId, boot: int) -> None:
        """A process has started."""
        self._boots[node] = boot
        for other in self.nodes:
            if other != node:
                self._heard.pop((node, other), None)
                self._reset(node, other)

    def detach(self, node: NodeId, *, is_silent: bool) -> None:
        """A process has ended; silently if its machine did, so that no socket is closed."""
        del self._boots[node]
        for other in self.nodes:
            if other != node and not is_silent:
                self._reset(node, other)

    def send(
        self,
        sender: NodeId,
        receiver: NodeId,
        kind: FrameKind,
        payload: bytes,
        traffic: TrafficClass,
    ) -> None:
        """Lanes make no difference."""
        profile, chance = self.profile, self._chance
        way = self._ways[sender, receiver]
        self.frames += 1
        if receiver not in self._boots:
            return
        if way.is_cut or (profile.loss and chance.random() < profile.loss):
            if profile.is_stream and not way.is_cut:
                self._reset(sender, receiver)
            return
        boots = self._boots[sender], self._boots[receiver]
        args = (sender, receiver, (kind, payload), boots, way.generation)
        if way.held_share and chance.random() < way.held_share:
            way.held.append(args)
            return
        arrives_us = self._clockwork.now_us + self._delay_us(way, len(payload))
        if profile.is_stream:
            arrives_us = max(arrives_us, way.arrives_us + profile.apart_us)
            way.arrives_us = arrives_us
        self._clockwork.at(arrives_us, self._arrive, *args)
        if profile.repeats and not profile.is_stream and chance.random() < profile.repeats:
            late_us = profile.late_us if chance.random() < 0.1 else profile.tail_us
            self._clockwork.at(arrives_us + int(late_us * chance.random()), self._arrive, *args)

    def is_up(self, sender: NodeId, receiver: NodeId) -> bool:
        """True if one is it decides when a frame arrives."""
        return True

    def is_not_running(self, sender: NodeId, receiver: NodeId) -> bool:
        return False

    def waiting_bytes(self, sender: NodeId, receiver: NodeId, traffic: TrafficClass) -> int:
        return 0

    def pause(self, node: NodeId) -> None:
        """Keep what arrives for a node."""

    def resume(self, node: NodeId) -> None:
        """Deliver what was kept for a node."""

    def cut(self, sender: NodeId, receiver: NodeId) -> None:
        """Nothing comes through in this direction any more."""
        self._ways[sender, receiver].is_cut = True

    def mend(self, sender: NodeId, receiver: NodeId) -> None:
        way = self._ways[sender, receiver]
        if way.is_cut:
            way.is_cut = False
            if self.profile.is_stream:
                self._reset(sender, receiver)

    def slow(self, sender: NodeId, receiver: NodeId, slow_us: int) -> None:
        self._ways[sender, receiver].slow_us = slow_us

    def hold(self, sender: NodeId, receiver: NodeId, share: float) -> None:
        """Datagrams: some of what is sent lies somewhere until `release`, the rest arrives."""
        if not self.profile.is_stream:
            self._ways[sender, receiver].held_share = share

    def release(self, sender: NodeId, receiver: NodeId) -> None:
        """Release what was held back, in any order."""
        way = self._ways[sender, receiver]
        way.held_share = 0.0
        held, way.held = way.held, []
        for args in held:
            arrives_us = self._clockwork.now_us + self._delay_us(way, len(args[2][1]))
            self._clockwork.at(arrives_us, self._arrive, *args)

    def reset(self, a: NodeId, b: NodeId) -> None:
        """The connection breaks, and is made again if it can be."""
        self._reset(a, b)

    def is_open(self, a: NodeId, b: NodeId) -> bool:
        """True if frames come through in both directions."""
        return not self._ways[a, b].is_cut and not self._ways[b, a].is_cut

    def _delay_us(self, way: Direction, size: int) -> int:
        return transit_us(self.profile, way, size, self._chance, self._clockwork.now_us)

    def _arrive(
        self,
        sender: NodeId,
        receiver: NodeId,
        frame: Frame,
        boots: tuple[int, int],
        generation: int,
    ) -> None:
        if self._boots.get(receiver) != boots[1]:
            return
        if self._heard.get((receiver, sender), 0) > boots[0]:
            return
        if self.profile.is_stream and self._ways[sender, receiver].generation != generation:
            return
        self._heard[receiver, sender] = boots[0]
        self._clockwork.note(zlib.crc32(frame[1]))
        self._deliver(sender, receiver, *frame)

    def _reset(self, a: NodeId, b: NodeId) -> None:
        """Reset a link; what is under way is lost; each end notices in its time, then they connect
        again."""
        profile, chance = self.profile, self._chance
        for sender, receiver in ((a, b), (b, a)):
            way = self._ways[sender, receiver]
            way.generation += 1
            way.arrives_us = 0
            detect_us = int(profile.detect_us * 2 * chance.random())
            self._clockwork.after(detect_us, self._notice, sender, receiver, way.generation)

    def _notice(self, node: NodeId, other: NodeId, generation: int) -> None:
        """Report at one end that the link is down, and try to open it again: maybe so soon that
        only the new one is reported."""
        if self._ways[node, other].generation != generation or node not in self._boots:
            return
        if other not in self._boots or self._chance.random() < 0.7:
            self._link_changed(node, other, False)
        delay_us = int(self.profile.reconnect_us * (0.5 + self._chance.random()))
        self._clockwork.after(delay_us, self._connect, node, other, generation)

    def _connect(self, node: NodeId, other: NodeId, generation: int) -> None:
        """Open the link again at this end, if both processes live and the direction is free."""
        if self._ways[node, other].generation != generation or node not in self._boots:
            return
        if other in self._boots and self.is_open(node, other):
            self._link_changed(node, other, True)
        elif other in self._boots:
            delay_us = int(self.profile.reconnect_us * 10 * (0.5 + self._chance.random()))
            self._clockwork.after(delay_us, self._connect, node, other, generation)
