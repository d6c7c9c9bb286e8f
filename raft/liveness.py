"""Which nodes are alive: one small machine for all groups of a node.

    link up --> ping --> ping that echoes ours --> alive
                           no ping for `suspect_after_ms`, none that echoes a recent one of ours
                           for `deaf_after_ms`, or link down --> suspected

A node is alive only if *it has heard us* lately, and we have heard that: pings carry back what was
heard last, so a link that works in one direction does not count.  An echo takes two turns of either
node, and those of a busy one are long; so it may be older than the ping that carries it.  Whoever
hears nothing is sooner to find out, and the one that matters.  Time in which our own loop stood
still is not held against anybody.  A greater boot is a new life of the node: it has forgotten
whatever was not on its disk.
"""

from __future__ import annotations

from collections.abc import Collection

from fluffle.raft.config import NodeId
from fluffle.raft.messages import Ping
from fluffle.raft.output import Echo, Verdict
from fluffle.raft.tuning import Tuning


class Peer:
    """What is known of another node."""

    __slots__ = (
        "boot", "confirmed_ms", "heard_ms", "heard_sequence", "is_alive", "is_link_new",
        "is_linked", "ping_at_ms", "replies", "sent", "sequence",
    )  # fmt: skip

    def __init__(self) -> None:
        self.boot = 0
        """The greatest heard of; 0 before the first ping."""
        self.heard_sequence = 0
        """Of that boot's last ping."""
        self.heard_ms = 0
        """When a ping came last."""
        self.is_linked = False
        self.is_link_new = False
        """Nothing sent over it is known to have arrived."""
        self.is_alive = False
        self.sequence = 0
        """Of our last ping to it."""
        self.sent: dict[int, int] = {}
        """When those pings were sent that it may still echo, over the link that is up."""
        self.confirmed_ms = 0
        """When the latest of ours that it has echoed was sent."""
        self.ping_at_ms = 0
        self.replies = 0
        """Pings sent out of turn since the last that was due."""


class Liveness:
    """Give it the time, links and pings, then `suspect`; take pings and verdicts from it."""

    __slots__ = (
        "_boot", "_doubt_at_ms", "_now_ms", "_peers", "_tuning", "day_ms", "deadline_ms", "echoes",
        "pings", "verdicts",
    )  # fmt: skip

    def __init__(self, boot: int, tuning: Tuning) -> None:
        self._boot = boot
        self._tuning = tuning
        self._now_ms = 0
        self._peers: dict[NodeId, Peer] = {}
        self._doubt_at_ms = 0
        """Nobody who is alive can have been silent, or deaf, for too long before."""
        self.deadline_ms: int | None = None
        """When `tick` is wanted: when the next ping is due, over any link that is up."""
        self.day_ms = 0, 0
        """What pings say of the time of day: see `Ping.wall_ms`."""
        self.pings: list[tuple[NodeId, Ping]] = []
        """To be sent; whoever takes them empties the list."""
        self.echoes: list[Echo] = []
        """What others say of theirs; likewise."""
        self.verdicts: list[Verdict] = []
        """What has changed; likewise."""

    def link_up(self, node: NodeId) -> None:
        """What was sent over an earlier link proves nothing of this one."""
        peer = self._peers.setdefault(node, Peer())
        peer.is_linked = True
        peer.is_link_new = True
        peer.sent.clear()
        peer.replies = 0
        self._ping(node, peer)

    def link_down(self, node: NodeId) -> None:
        """A link that cannot be opened again at once is a suspicion at once."""
        peer = self._peers.setdefault(node, Peer())
        peer.is_linked = False
        self._plan()
        self._judge(node, peer, is_alive=False)

    def forget(self, node: NodeId) -> None:
        """It was removed for good: who comes under its name is another, in whatever boot."""
        peer = self._peers.get(node)
        if peer is not None:
            self._judge(node, peer, is_alive=False)
            self._peers[node] = fresh = Peer()
            fresh.sequence = peer.sequence  # ours go on: it may have heard them before
            self._plan()

    def tick(self, now_ms: int) -> None:
        """The time of this turn: ping whoever is due.  `suspect` is for its end."""
        away_ms = now_ms - self._now_ms
        self._now_ms = now_ms
        if away_ms > self._tuning.stall_ms:
            for peer in self._peers.values():
                peer.confirmed_ms = min(now_ms, peer.confirmed_ms + away_ms)
                peer.heard_ms = min(now_ms, peer.heard_ms + away_ms)
        if self.deadline_ms is None or now_ms < self.deadline_ms:
            return
        for node, peer in self._peers.items():
            if peer.is_linked and peer.ping_at_ms <= now_ms:
                peer.replies = 0
                self._ping(node, peer)

    def suspect(self, unread: Collection[NodeId] = ()) -> None:
        """Whoever has not answered for too long; what came in meanwhile has been heard by now, but
        of those that are `unread`."""
        if self._now_ms < self._doubt_at_ms:
            return
        for node, peer in self._peers.items():
            if node in unread:
                continue
            is_silent = self._now_ms - peer.heard_ms >= self._tuning.suspect_after_ms
            if is_silent or self._is_deaf(peer):
                self._judge(node, peer, is_alive=False)
        self._doubt_at_ms = min(
            (self._doubtful_at_ms(peer) for peer in self._peers.values() if peer.is_alive),
            default=self._now_ms,
        )

    def _doubtful_at_ms(self, peer: Peer) -> int:
        """When it will have been silent or deaf for too long, if nothing more comes."""
        silent_at_ms = peer.heard_ms + self._tuning.suspect_after_ms
        return min(silent_at_ms, peer.confirmed_ms + self._tuning.deaf_after_ms)

    def _is_deaf(self, peer: Peer) -> bool:
        """Whether it has heard nothing of ours for too long."""
        return self._now_ms - peer.confirmed_ms >= self._tuning.deaf_after_ms

    def on_ping(self, node: NodeId, ping: Ping) -> None:
        """It lives; whether it has heard us, the echo tells."""
        peer = self._peers.setdefault(node, Peer())
        if ping.boot < peer.boot:
            return
        if ping.boot > peer.boot:
            self._judge(node, peer, is_alive=False)
            peer.boot, peer.heard_sequence = ping.boot, 0
        peer.heard_sequence = max(peer.heard_sequence, ping.sequence)
        peer.heard_ms = self._now_ms
        sent_ms = peer.sent.get(ping.echo_sequence) if self._is_ours(ping) else None
        if sent_ms is not None and peer.is_linked:
            peer.confirmed_ms = max(peer.confirmed_ms, sent_ms)
            round_trip_ms = max(0, self._now_ms - sent_ms - ping.echo_age_ms)
            self.echoes.append(Echo(node, ping, round_trip_ms, self._now_ms))
            peer.is_link_new = False
            for sequence in [sequence for sequence in peer.sent if sequence < ping.echo_sequence]:
                del peer.sent[sequence]
            if not self._is_deaf(peer):
                self._judge(node, peer, is_alive=True)
        if ping.is_answer_wanted:
            self._reply(node, peer)

    def _reply(self, node: NodeId, peer: Peer) -> None:
        """Ping at once, so that both sides soon know; on a slow link that must not multiply."""
        if peer.is_linked and peer.replies < REPLIES_MAX:
            peer.replies += 1
            self._ping(node, peer)

    def _is_ours(self, ping: Ping) -> bool:
        """Whether what it echoes is of this life of ours."""
        return ping.echo_boot == self._boot

    def _ping(self, node: NodeId, peer: Peer) -> None:
        peer.sequence += 1
        peer.sent[peer.sequence] = self._now_ms
        peer.ping_at_ms = self._now_ms + self._tuning.ping_interval_ms
        oldest = peer.sequence - SENT_MAX
        peer.sent.pop(oldest, None)
        is_fresh = not peer.is_alive or peer.is_link_new
        age_ms = self._now_ms - peer.heard_ms if peer.heard_sequence else 0
        ping = Ping(
            self._boot, peer.sequence, peer.boot, peer.heard_sequence, is_fresh,
            self._now_ms, age_ms, *self.day_ms,
        )  # fmt: skip
        self.pings.append((node, ping))
        self._plan()

    def _plan(self) -> None:
        linked = [peer.ping_at_ms for peer in self._peers.values() if peer.is_linked]
        self.deadline_ms = min(linked, default=None)

    def _judge(self, node: NodeId, peer: Peer, *, is_alive: bool) -> None:
        if is_alive != peer.is_alive:
            peer.is_alive = is_alive
            self._doubt_at_ms = min(self._doubt_at_ms, self._doubtful_at_ms(peer))
            self.verdicts.append(Verdict(node, is_alive, peer.boot))


REPLIES_MAX = 3
"""A link that has just come up needs two: to answer, and to answer the answer."""

SENT_MAX = 64
"""Pings whose time is remembered for each node: many times what can be under way."""
