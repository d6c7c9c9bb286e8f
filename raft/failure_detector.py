"""Failure detector: which nodes are alive, for all groups of a node.

    link up --> ping --> ping that echoes ours --> alive
                           no ping for longer than is usual (`SuspicionTimeout`), none that echoes a
                           recent one of ours for a second more, or link down --> suspected

A node is alive only if *it has heard us* lately, and we have heard that: pings carry back what was
heard last, so a link that works in one direction does not count.  An echo takes two turns of either
node, and those of a busy one are long; so it may be older than the ping that carries it.  Whoever
hears nothing is sooner to find out, and the one that matters.  Time by which our
own loop was late is not held against a node.  A node that was suspected for its
silence, and is heard over the same link soon after, was suspected by mistake: mistakes are counted,
and make for more patience.  A greater boot is a new life of the node: it has forgotten
whatever was not on its disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from fluffle.raft.config import NodeId
from fluffle.raft.messages import Ping
from fluffle.raft.output import Echo, LivenessVerdict
from fluffle.raft.tuning import Tuning

GAPS = 2
"""A silence of so many times the longest gap of late is no suspicion."""

FORGOTTEN = 32
"""In so many milliseconds one of the longest gap is forgotten: two seconds in a minute."""

MISTAKE_MS = 30_000
"""After so long without another a mistake is forgotten."""

MISTAKES_MAX = 3
"""More are not remembered, for the cap is reached."""


TimesOfDay = Callable[[int], tuple[int, int]]
"""Times of day at a moment of `now_ms`, for pings: `Ping.wall_ms` and `Ping.common_ms`."""


def no_times(_now_ms: int) -> tuple[int, int]:
    """Times of day of a node that knows none."""
    return 0, 0


class SuspicionTimeout:
    """Longest silence of one node that is no suspicion: by what was usual, and by mistakes.

        gaps between its pings --> the longest of late, twice -+
        suspected, and there after all --> the floor, doubled -+--> between a floor and a cap

    A machine that gets too little time sends its pings late, again and again: a node that suspects
    it after a fixed time does so every few seconds, and each time all groups that it leads hold
    elections.  What was usual is forgotten bit by bit, and so are mistakes, for a node that is on
    time again should be missed soon.  A gap that is longer than the cap was no gap: the node was
    away, which says nothing of how punctual it is.
    """

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._longest_ms = 0
        """The longest gap, as it was when it ended."""
        self._longest_at_ms = 0
        self._mistakes = 0
        """How many were remembered at the last one."""
        self._mistaken_ms = 0
        """When that was."""

    def observe_gap(self, gap_ms: int, now_ms: int) -> None:
        """Note that the node has been heard, for the first time after so long."""
        if self._usual_ms(now_ms) <= gap_ms <= self._tuning.suspect_after_ms_max:
            self._longest_ms, self._longest_at_ms = gap_ms, now_ms

    def mistaken(self, now_ms: int) -> None:
        """Note that the node was suspected, and had been there all the time."""
        self._mistakes = min(self._remembered(now_ms) + 1, MISTAKES_MAX)
        self._mistaken_ms = now_ms

    def limit_ms(self, now_ms: int) -> int:
        """Return the silence after which the node is suspected."""
        tuning = self._tuning
        floor_ms = tuning.suspect_after_ms << self._remembered(now_ms)
        limit_ms = max(floor_ms, GAPS * self._usual_ms(now_ms))  # mutant: M51
        return min(limit_ms, max(tuning.suspect_after_ms, tuning.suspect_after_ms_max))

    def _usual_ms(self, now_ms: int) -> int:
        """Return the part that is left of the longest gap."""
        return max(0, self._longest_ms - (now_ms - self._longest_at_ms) // FORGOTTEN)

    def _remembered(self, now_ms: int) -> int:
        """Return how many of its mistakes are remembered."""
        return max(0, self._mistakes - (now_ms - self._mistaken_ms) // MISTAKE_MS)


class PeerLiveness:
    """Liveness of another node: pings heard, pings sent, and its link."""

    def __init__(self, tuning: Tuning) -> None:
        self.timeout = SuspicionTimeout(tuning)
        self.is_timed = False
        """True if it was heard in this life and over this link, so that the next gap says
        something."""
        self.suspected_ms: int | None = None
        """When it was suspected for its silence, if the link has been up ever since."""
        self.boot = 0
        """The greatest heard of; 0 before the first ping."""
        self.last_ping_sequence = 0
        """Sequence number of that boot's last ping."""
        self.last_ping_ms = 0
        """When a ping came last."""
        self.is_linked = False
        self.is_link_new = False
        """Nothing sent over it is known to have arrived."""
        self.is_alive = False
        self.sequence = 0
        """Sequence number of our last ping to it."""
        self.sent: dict[int, int] = {}
        """When those pings were sent that it may still echo, over the link that is up."""
        self.confirmed_ms = 0
        """When the latest of ours that it has echoed was sent."""
        self.ping_at_ms = 0
        self.replies = 0
        """Pings sent out of turn since the last that was due."""

    def reset_timing(self) -> None:
        """Reset what was measured: of another life, or over another link, it means nothing for a
        gap now."""
        self.is_timed = False
        self.suspected_ms = None


class FailureDetector:
    """Failure detector of a node: takes time, links and pings, and gives pings and verdicts."""

    def __init__(self, boot: int, tuning: Tuning, times_of_day: TimesOfDay = no_times) -> None:
        self._boot = boot
        self._tuning = tuning
        self._times_of_day = times_of_day
        self.now_ms = 0
        """Time of this turn."""
        self._peers: dict[NodeId, PeerLiveness] = {}
        self.recheck_at_ms = 0
        """No live node can have been silent, or deaf, for too long before."""
        self.deadline_ms: int | None = None
        """When `tick` is wanted: when the next ping is due, over any link that is up."""
        self.pings: list[tuple[NodeId, Ping]] = []
        """Pings to be sent; the caller that takes them empties the list."""
        self.echoes: list[Echo] = []
        """Echoes of our pings by peers; the caller that takes them empties the list."""
        self.verdicts: list[LivenessVerdict] = []
        """Changes of liveness; the caller that takes them empties the list."""
        self.mistakes: Counter[NodeId] = Counter()
        """How often each was suspected that was there."""

    def _peer(self, node: NodeId) -> PeerLiveness:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = PeerLiveness(self._tuning)
        return peer

    def link_up(self, node: NodeId) -> None:
        """Note a new link; what was sent over an earlier one proves nothing of this one."""
        peer = self._peer(node)
        peer.reset_timing()
        peer.is_linked = True
        peer.is_link_new = True
        peer.sent.clear()
        peer.replies = 0
        self._ping(node, peer)

    def link_down(self, node: NodeId) -> None:
        """Suspect a node whose link is lost and cannot be opened again at once."""
        peer = self._peer(node)
        peer.reset_timing()
        peer.is_linked = False
        self._update_deadline()
        self._set_alive(node, peer, is_alive=False)

    def forget(self, node: NodeId) -> None:
        """Forget a node that was removed for good: another may come under its name, in any boot."""
        peer = self._peers.get(node)
        if peer is not None:
            self._set_alive(node, peer, is_alive=False)
            self._peers[node] = fresh = PeerLiveness(self._tuning)
            fresh.sequence = peer.sequence  # ours go on: it may have heard them before
            self._update_deadline()

    def tick(self, now_ms: int) -> None:
        """Take the time of a turn, and ping the nodes that are due; nothing before `deadline_ms`.
        `suspect` is for its end."""
        # How much of the time since the last turn was lost by our own fault: this turn is so late.
        lost_ms = 0 if self.deadline_ms is None else max(0, now_ms - self.deadline_ms)
        self.now_ms = now_ms
        if lost_ms:
            for peer in self._peers.values():
                peer.confirmed_ms = min(now_ms, peer.confirmed_ms + lost_ms)
                peer.last_ping_ms = min(now_ms, peer.last_ping_ms + lost_ms)
        if self.deadline_ms is None or now_ms < self.deadline_ms:
            return
        for node, peer in self._peers.items():
            if peer.is_linked and peer.ping_at_ms <= now_ms:
                peer.replies = 0
                self._ping(node, peer)

    def suspect(self, unread: Collection[NodeId] = ()) -> None:
        """Suspect nodes that have not answered for too long; what came in meanwhile counts, but of
        those that are `unread`."""
        if self.now_ms < self.recheck_at_ms:
            return
        for node, peer in self._peers.items():
            if node in unread or not peer.is_alive:
                continue
            if self.now_ms >= self._suspect_at_ms(peer):
                peer.suspected_ms = self.now_ms
                self._set_alive(node, peer, is_alive=False)
        self.recheck_at_ms = min(
            (self._suspect_at_ms(peer) for peer in self._peers.values() if peer.is_alive),
            default=self.now_ms,
        )

    def _suspect_at_ms(self, peer: PeerLiveness) -> int:
        """Return when a node will have been silent or deaf for too long, if nothing more comes."""
        silent_at_ms = peer.last_ping_ms + peer.timeout.limit_ms(self.now_ms)
        return min(silent_at_ms, peer.confirmed_ms + self._deaf_after_ms(peer))

    def _is_deaf(self, peer: PeerLiveness) -> bool:
        """True if a node has heard nothing of ours for too long."""
        return self.now_ms - peer.confirmed_ms >= self._deaf_after_ms(peer)

    def _deaf_after_ms(self, peer: PeerLiveness) -> int:
        tuning = self._tuning
        later_ms = tuning.deaf_after_ms - tuning.suspect_after_ms
        return peer.timeout.limit_ms(self.now_ms) + later_ms

    def on_ping(self, node: NodeId, ping: Ping) -> None:
        """Note that a node is alive; its echo says whether it has heard us."""
        peer = self._peer(node)
        if ping.boot < peer.boot:
            return
        if ping.boot > peer.boot:
            self._set_alive(node, peer, is_alive=False)
            peer.boot, peer.last_ping_sequence = ping.boot, 0
            peer.reset_timing()
        peer.last_ping_sequence = max(peer.last_ping_sequence, ping.sequence)
        if peer.is_timed:
            peer.timeout.observe_gap(self.now_ms - peer.last_ping_ms, self.now_ms)
        peer.is_timed = True
        peer.last_ping_ms = self.now_ms
        sent_ms = peer.sent.get(ping.echo_sequence) if self._is_ours(ping) else None
        if sent_ms is not None and peer.is_linked:
            peer.confirmed_ms = max(peer.confirmed_ms, sent_ms)
            round_trip_ms = max(0, self.now_ms - sent_ms - ping.echo_age_ms)
            self.echoes.append(Echo(node, ping, round_trip_ms, self.now_ms))
            peer.is_link_new = False
            for sequence in [sequence for sequence in peer.sent if sequence < ping.echo_sequence]:
                del peer.sent[sequence]
            if not self._is_deaf(peer):
                self._count_if_mistaken(node, peer)
                self._set_alive(node, peer, is_alive=True)
        if ping.is_answer_wanted:
            self._reply(node, peer)

    def _count_if_mistaken(self, node: NodeId, peer: PeerLiveness) -> None:
        """Count a mistake if a node that is alive was just suspected for its silence."""
        suspected_ms, peer.suspected_ms = peer.suspected_ms, None
        soon_ms = self._tuning.suspect_after_ms_max
        if suspected_ms is not None and self.now_ms - suspected_ms <= soon_ms:
            peer.timeout.mistaken(self.now_ms)
            self.mistakes[node] += 1

    def _reply(self, node: NodeId, peer: PeerLiveness) -> None:
        """Ping at once, so that both sides soon know; on a slow link that must not multiply."""
        if peer.is_linked and peer.replies < REPLIES_MAX:
            peer.replies += 1
            self._ping(node, peer)

    def _is_ours(self, ping: Ping) -> bool:
        """True if the ping that is echoed is of this boot of ours."""
        return ping.echo_boot == self._boot

    def _ping(self, node: NodeId, peer: PeerLiveness) -> None:
        peer.sequence += 1
        peer.sent[peer.sequence] = self.now_ms
        peer.ping_at_ms = self.now_ms + self._tuning.ping_interval_ms
        oldest = peer.sequence - SENT_MAX
        peer.sent.pop(oldest, None)
        is_fresh = not peer.is_alive or peer.is_link_new
        age_ms = self.now_ms - peer.last_ping_ms if peer.last_ping_sequence else 0
        ping = Ping(
            self._boot, peer.sequence, peer.boot, peer.last_ping_sequence, is_fresh,
            self.now_ms, age_ms, *self._times_of_day(self.now_ms),
        )  # fmt: skip
        self.pings.append((node, ping))
        self._update_deadline()

    def _update_deadline(self) -> None:
        linked = [peer.ping_at_ms for peer in self._peers.values() if peer.is_linked]
        self.deadline_ms = min(linked, default=None)

    def _set_alive(self, node: NodeId, peer: PeerLiveness, *, is_alive: bool) -> None:
        if is_alive != peer.is_alive:
            peer.is_alive = is_alive
            self.recheck_at_ms = min(self.recheck_at_ms, self._suspect_at_ms(peer))
            self.verdicts.append(LivenessVerdict(node, is_alive, peer.boot))


REPLIES_MAX = 3
"""A link that has just come up needs two: to answer, and to answer the answer."""

SENT_MAX = 64
"""Pings whose time is remembered for each node: many times what can be under way."""
