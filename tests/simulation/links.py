"""Links as nodes of a cluster have them, over a network that delays, cuts and resets.

    send --> Outbox --> what the network holds, in order --> Decoder --> frames
               ^                                                |
               +--------------- acknowledgements ---------------+

Each node dials each other, and sends over what it dialled: a connection is of one direction.  What
waits, what is dropped when too much does, and the pieces are those of production (`LinkSendQueue`,
`ChunkDecoder`); here is what stands for sockets.  A network takes only so much that nobody has
read; a node that stands still reads nothing, and a connection over which nothing comes is given up.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random

from fluffle.broker.cluster.links.chunks import ChunkDecoder, LinkSendQueue
from fluffle.broker.cluster.links.connection import KINDS, NO_KINDS, WRITE_BYTES
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.raft.config import NodeId
from tests.simulation.facts import Violation
from tests.simulation.network import (
    REAL,
    Deliver,
    LinkChanged,
    LinkProfile,
    NetworkProfile,
    transit_us,
)
from tests.simulation.virtual_time import MS_US, VirtualTime

AT_ONCE = 0.3
"""Share of links that are opened again so soon that it is not reported that they were gone."""
LATE = 0.5
"""Share of cuts, if they are short, behind which all comes after all."""


class Connection:
    """From one node to another, in one life of both."""

    __slots__ = (
        "acknowledged", "decoder", "is_broken", "is_flush_due", "late", "outbox", "under_way",
    )  # fmt: skip

    def __init__(self, profile: LinkProfile) -> None:
        self.outbox = LinkSendQueue(profile.waiting_bytes_max)
        self.decoder = ChunkDecoder(KINDS, frame_bytes_max=REAL.frame_bytes_max)
        """At the other end."""
        self.acknowledged = ChunkDecoder(NO_KINDS, frame_bytes_max=0)
        self.is_broken = False
        """Nothing arrives any more; the end that sends may not know it yet."""
        self.is_flush_due = False
        self.under_way = 0
        """Bytes that the network holds."""
        self.late: list[bytes] = []
        """Bytes that arrived while the direction was cut."""


class Direction:
    """From one node to another, whatever connections come and go."""

    __slots__ = (
        "arrives_us", "connection", "dials", "free_us", "is_cut", "is_not_running", "is_up",
        "left", "silent_since_us", "slow_us",
    )  # fmt: skip

    def __init__(self) -> None:
        self.is_cut = False
        self.slow_us = 0
        self.free_us = 0
        """When what was sent before has left."""
        self.arrives_us = 0
        """When the last of it arrives."""
        self.connection: Connection | None = None
        """Connection, as the sending end knows it."""
        self.left: Connection | None = None
        """That of a process which has ended: what it has sent comes, until another begins."""
        self.dials = 0
        """Plans of an earlier one are void."""
        self.is_up = False
        """Link state last reported."""
        self.is_not_running = False
        """True if the other's host has said so when it was dialled last."""
        self.silent_since_us: int | None = None
        """Since when nothing can come through; None if it can."""


class LinkedNetwork:
    """Network like `SimNetwork`, for nodes that have such links."""

    __slots__ = (
        "_boots", "_chance", "_clockwork", "_deliver", "_hosts_away", "_link_changed", "_paused",
        "_profile", "_ways", "_when_awake", "frames", "frames_dropped", "frames_without_room",
        "nodes", "overflows",
    )  # fmt: skip

    def __init__(
        self,
        nodes: tuple[NodeId, ...],
        clockwork: VirtualTime,
        profile: NetworkProfile,
        deliver: Deliver,
        link_changed: LinkChanged,
        *,
        when_awake: Callable[..., None],
    ) -> None:
        """`when_awake` (node, call, arguments ...) does what a node that is paused does later."""
        self.nodes = nodes
        self.frames = self.frames_dropped = self.frames_without_room = self.overflows = 0
        """Sent; to whom there is no link; for which there was no room; urgent ones of those."""
        self._clockwork = clockwork
        self._chance: Random = clockwork.chance("network")
        self._profile = profile
        self._deliver = deliver
        self._link_changed = link_changed
        self._when_awake = when_awake
        self._ways = {(a, b): Direction() for a in nodes for b in nodes if a != b}
        self._boots: set[NodeId] = set()
        """Nodes with a process."""
        self._hosts_away: set[NodeId] = set()
        """Nodes whose machine has died with the process."""
        self._paused: set[NodeId] = set()

    @property
    def profile(self) -> NetworkProfile:
        return self._profile

    @profile.setter
    def profile(self, profile: NetworkProfile) -> None:
        """Set the profile; earlier drops are not made good by that."""
        self._profile = profile
        sizes = self._links.waiting_bytes_max
        for ends, way in self._ways.items():
            if way.connection is not None:
                way.connection.outbox._bytes_max = [sizes[traffic] for traffic in TrafficClass]
                self._flush(*ends, way.connection)

    # Processes

    def attach(self, node: NodeId, _boot: int) -> None:
        self._boots.add(node)
        self._hosts_away.discard(node)
        for other in self._others(node):
            way = self._ways[node, other]
            if way.left is not None:
                way.left.is_broken, way.left = True, None
            self._break(node, other)
            self._break(other, node)
            self._look(other, node)

    def detach(self, node: NodeId, *, is_silent: bool) -> None:
        self._boots.discard(node)
        self._paused.discard(node)
        if is_silent:
            self._hosts_away.add(node)
        for other in self._others(node):
            self._forget(self._ways[node, other], is_silent=is_silent)
            if not is_silent:
                self._break(other, node)
            self._look(other, node)

    def pause(self, node: NodeId) -> None:
        """Pause a node: it reads nothing, and answers no dial."""
        self._paused.add(node)
        self._look_at_all(node)

    def resume(self, node: NodeId) -> None:
        self._paused.discard(node)
        self._look_at_all(node)

    def _others(self, node: NodeId) -> list[NodeId]:
        return [other for other in self.nodes if other != node]

    def _look_at_all(self, node: NodeId) -> None:
        for other in self._others(node):
            self._look(other, node)

    # As `Links`

    def send(
        self,
        sender: NodeId,
        receiver: NodeId,
        kind: FrameKind,
        payload: bytes,
        traffic: TrafficClass,
    ) -> None:
        connection = self._ways[sender, receiver].connection
        self.frames += 1
        if connection is None:
            self.frames_dropped += 1
        elif connection.outbox.put(traffic, kind, payload):
            self._flush(sender, receiver, connection)
        else:
            self.frames_without_room += 1
            if traffic is TrafficClass.URGENT:
                self.overflows += 1
                self._break(sender, receiver)

    def is_up(self, sender: NodeId, receiver: NodeId) -> bool:
        return self._ways[sender, receiver].is_up

    def is_not_running(self, sender: NodeId, receiver: NodeId) -> bool:
        return self._ways[sender, receiver].is_not_running

    def waiting_bytes(self, sender: NodeId, receiver: NodeId, traffic: TrafficClass) -> int:
        connection = self._ways[sender, receiver].connection
        waiting = connection.outbox.waiting_bytes[traffic] if connection is not None else 0
        return waiting * self._links.scale

    @property
    def _links(self) -> LinkProfile:
        assert self._profile.links is not None
        return self._profile.links

    # What goes wrong

    def cut(self, sender: NodeId, receiver: NodeId) -> None:
        """Nothing comes through in this direction, and nothing is reported."""
        self._ways[sender, receiver].is_cut = True
        self._look(sender, receiver)
        self._look(receiver, sender)

    def mend(self, sender: NodeId, receiver: NodeId) -> None:
        """Mend a direction; what was sent comes after all, if that was not long ago, or never."""
        way = self._ways[sender, receiver]
        if not way.is_cut:
            return
        way.is_cut = False
        self._look(sender, receiver)
        self._look(receiver, sender)
        if way.connection is None or self._chance.random() >= LATE:
            self._break(sender, receiver)
            return
        late, way.connection.late = way.connection.late, []
        for data in late:
            self._arrive(sender, receiver, way.connection, data)

    def slow(self, sender: NodeId, receiver: NodeId, slow_us: int) -> None:
        self._ways[sender, receiver].slow_us = slow_us

    def hold(self, _sender: NodeId, _receiver: NodeId, _share: float) -> None:
        """Do nothing: what is sent keeps its order."""

    def release(self, _sender: NodeId, _receiver: NodeId) -> None:
        """Nothing is held."""

    def reset(self, a: NodeId, b: NodeId) -> None:
        """The connections between them break, or one of the two."""
        for ends in self._chance.choice((((a, b), (b, a)), ((a, b),), ((b, a),))):
            self._break(*ends)

    def hang_up(self, sender: NodeId, receiver: NodeId) -> None:
        """End a connection from one side; there will be another."""
        self._break(sender, receiver)

    def _lose(self, sender: NodeId, receiver: NodeId) -> None:
        """Lose the rest of a connection: nothing comes behind what is lost."""
        self._break(sender, receiver)
        if self._chance.random() < 0.5:
            self._break(receiver, sender)

    def _is_silent(self, sender: NodeId, receiver: NodeId) -> bool:
        """True if one that sends there hears nothing, not even that it is heard."""
        is_cut = self._ways[sender, receiver].is_cut or self._ways[receiver, sender].is_cut
        return is_cut or receiver in self._paused or receiver not in self._boots

    def _look(self, sender: NodeId, receiver: NodeId) -> None:
        """Something has changed about whether anything comes through."""
        way = self._ways[sender, receiver]
        if not self._is_silent(sender, receiver):
            way.silent_since_us = None
        elif way.silent_since_us is None:
            since_us = way.silent_since_us = self._clockwork.now_us
            silent_us = REAL.silent_after_ms * MS_US
            self._clockwork.after(silent_us, self._give_up, sender, receiver, since_us)

    def _give_up(self, sender: NodeId, receiver: NodeId, since_us: int) -> None:
        way = self._ways[sender, receiver]
        if way.silent_since_us == since_us and way.connection is not None:
            self._break(sender, receiver)

    def _forget(self, way: Direction, *, is_silent: bool) -> None:
        """The end that sends is there no more."""
        way.dials += 1
        way.is_up = way.is_not_running = False
        if way.connection is not None:
            way.connection.is_broken |= is_silent
            way.left, way.connection = way.connection, None

    def _break(self, sender: NodeId, receiver: NodeId) -> None:
        """Nothing arrives any more; the end that sends learns it in its time, and dials again."""
        way, profile = self._ways[sender, receiver], self._profile
        way.dials += 1
        way.arrives_us = 0
        if way.connection is not None:
            way.connection.is_broken = True
        if sender in self._boots:
            detect_us = int(profile.detect_us * 2 * self._chance.random())
            self._clockwork.after(
                detect_us, self._when_awake, sender, self._notice, sender, receiver, way.dials
            )

    def _notice(self, sender: NodeId, receiver: NodeId, dial: int) -> None:
        way = self._ways[sender, receiver]
        if way.dials != dial:
            return
        way.connection = None
        is_at_once = self._may_open(sender, receiver) and self._chance.random() < AT_ONCE
        if way.is_up and not is_at_once:
            way.is_up = False
            self._link_changed(sender, receiver, False)
        self._dial_later(sender, receiver, dial, 1)

    def _dial_later(self, sender: NodeId, receiver: NodeId, dial: int, times: int) -> None:
        delay_us = int(self._profile.reconnect_us * times * (0.5 + self._chance.random()))
        self._clockwork.after(
            delay_us, self._when_awake, sender, self._dial, sender, receiver, dial
        )

    def _may_open(self, sender: NodeId, receiver: NodeId) -> bool:
        return not self._is_silent(sender, receiver)

    def _dial(self, sender: NodeId, receiver: NodeId, dial: int) -> None:
        way = self._ways[sender, receiver]
        if way.dials != dial:
            return
        if self._may_open(sender, receiver):
            way.connection = Connection(self._links)
            way.is_up, way.is_not_running = True, False
            self._link_changed(sender, receiver, True)
            return
        is_cut = way.is_cut or self._ways[receiver, sender].is_cut
        is_gone = receiver not in self._boots and receiver not in self._hosts_away
        way.is_not_running = is_gone and not is_cut
        if way.is_up:
            way.is_up = False
            self._link_changed(sender, receiver, False)
        self._dial_later(sender, receiver, dial, 10)

    # Bytes

    def _flush(self, sender: NodeId, receiver: NodeId, connection: Connection) -> None:
        """Behind the turn in which something was sent."""
        if not connection.is_flush_due:
            connection.is_flush_due = True
            self._clockwork.after(0, self._fill, sender, receiver, connection)

    def _fill(self, sender: NodeId, receiver: NodeId, connection: Connection) -> None:
        """Give the network as much as it takes."""
        connection.is_flush_due = False
        way = self._ways[sender, receiver]
        while way.connection is connection:
            room = self._links.network_bytes - connection.under_way
            data = taken(connection.outbox, min(room, WRITE_BYTES))
            if not data:
                return
            connection.under_way += len(data)
            if connection.is_broken:
                continue  # and it does not know yet
            if self._profile.loss and self._chance.random() < self._profile.loss:
                self._lose(sender, receiver)
                continue
            profile, now_us = self._profile, self._clockwork.now_us
            arrives_us = now_us + transit_us(profile, way, len(data), self._chance, now_us)
            way.arrives_us = max(arrives_us, way.arrives_us + 1)
            self._clockwork.at(way.arrives_us, self._arrive, sender, receiver, connection, data)

    def _arrive(
        self, sender: NodeId, receiver: NodeId, connection: Connection, data: bytes
    ) -> None:
        if connection.is_broken or receiver not in self._boots:
            return
        if self._ways[sender, receiver].is_cut or connection.late:
            connection.late.append(data)
        else:
            self._when_awake(receiver, self._read, sender, receiver, connection, data)

    def _read(self, sender: NodeId, receiver: NodeId, connection: Connection, data: bytes) -> None:
        """Also what had come before the connection broke."""
        decoder = connection.decoder
        for kind, payload in decoder.feed(data):
            self._clockwork.note(zlib.crc32(payload))
            self._deliver(sender, receiver, FrameKind(kind), payload)
        assert decoder.fault is None, decoder.fault
        connection.under_way -= len(data)
        if said := decoder.acknowledge():
            acknowledged = connection.acknowledged
            acknowledged.feed(said)
            for traffic in TrafficClass:
                connection.outbox.acknowledge(traffic, acknowledged.acknowledged[traffic])
                acknowledged.acknowledged[traffic] = 0
        if any(connection.outbox.waiting_bytes):
            self._flush(sender, receiver, connection)


def taken(outbox: LinkSendQueue, enough_bytes: int) -> bytes:
    """Bytes to send next, chunk by chunk: each is of an urgent frame, if any of those waits.

    Raises `Violation`: rule 20.
    """
    data = b""
    while len(data) < enough_bytes:
        urgent_bytes = outbox.waiting_bytes[TrafficClass.URGENT]
        pieces = outbox.take(1)
        if not pieces:
            break
        piece = b"".join(pieces)
        if urgent_bytes and outbox.waiting_bytes[TrafficClass.URGENT] == urgent_bytes:
            raise Violation(f"rule 20: {urgent_bytes} urgent bytes wait behind {len(piece)}")
        data += piece
    return data
