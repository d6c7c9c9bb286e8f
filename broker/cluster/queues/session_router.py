"""Router between the sessions of this node, the queues led here, and the other nodes.

    channels --> `LeaderRoutes` --+--> leaders here  --> consensus
                                  |                          |
    frames of other nodes <-------+------ replies <----------+

What stays on this node is passed on as it is; only what leaves it becomes bytes.

Whoever leads a queue is known from the member of its group on this node, if there is one, or from
what others say: a session whose node is told that another leads asks that one.  Without any trace
the members are asked in turn.  A session that wants nothing talks to nobody: ten thousand of them
cost nothing when a node goes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain

from fluffle.broker.base.listeners import call_listener
from fluffle.broker.cluster.links.identity import Boot as LinkBoot
from fluffle.broker.cluster.queue_sessions import messages as m
from fluffle.broker.cluster.queue_sessions.codec import decode
from fluffle.broker.cluster.queue_sessions.events import Event, WrongLeader
from fluffle.broker.cluster.queue_sessions.messages import Boot, ClientFrame
from fluffle.broker.cluster.queue_sessions.replies import apply_frame
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient
from fluffle.broker.cluster.queues.local_leaders import LocalLeaders, led_here, log_failure
from fluffle.broker.cluster.queues.ports import (
    NO_LEADER,
    KnownLeader,
    LeaderCounts,
    OnCounts,
    OnEvents,
    OnFailure,
    QueueId,
    Reachability,
)
from fluffle.broker.cluster.queues.queue_queries import LeaderQueries
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.runtime.turn import do_nothing
from fluffle.raft.config import NodeId, majority_of
from fluffle.raft.multiraft import PendingNews

TOLD_MAX = 64
"""Unused routes that learn in one turn that a link has come or gone."""

SEARCH_S = 0.02
SEARCH_S_MAX = 1.0
"""Who leads is asked again after this, and then after twice as long each time: a leader that has
just won may not serve yet, and in a minority there is none."""

BEAT_S = 1.0
PATIENCE_BEATS = 5
PATIENCE_BEATS_MAX = 60
"""An edge that has heard nothing for so many beats begins to talk anew: an answer that stands
beside the others may be lost.  Likewise twice as many each time.  One that has asked for nothing
and has consumers asks its leader whether it still leads."""

TELL_S = 0.05
"""A leader is told after this that messages have arrived, if it was not with their settlement, and
what clients have acknowledged, if nothing else was said before."""

AWAY_S = 0.5
"""A home that was not reached for so long is down, for clients of its queues, if its host says that
it does not run.  RabbitMQ tells them at once."""
AWAY_S_MAX = 10.0
"""The same if nobody says so: it may only be cut off, and what clients did there would be lost.
RabbitMQ: a minute."""


NONCE_BITS = 63
"""As many as a number has in the facts of a queue."""
EARLY_MAX = 256
"""Frames of a node to which there is no link yet: what it asks could not be answered."""


def ignore_events(_events: list[Event]) -> None:
    """Where the queue is gone."""


class LeaderRoute:
    """A session of this node, and the leader its frames go to: a `SessionPort`."""

    __slots__ = (
        "_routes", "asked", "denied", "edge", "home", "is_away", "life", "members", "on_events",
        "patience_beats", "search_s", "told",
    )  # fmt: skip

    def __init__(self, edge: SessionClient, on_events: OnEvents, routes: LeaderRoutes) -> None:
        self.edge = edge
        self.on_events = on_events
        self._routes = routes
        self.members: tuple[NodeId, ...] = ()
        """Whoever may lead."""
        self.home: NodeId = ""
        """Of a queue that one node leads for as long as it lives."""
        self.life: m.Boot | None = None
        """That of its home in which it was asked last."""
        self.is_away = False
        """Whether its home has not been reached for a while."""
        self.told = NO_LEADER
        """Who leads, as others say."""
        self.denied = NO_LEADER
        """Who has said of itself that it does not: it is not asked again at once."""
        self.asked = 0
        """How many members were asked."""
        self.search_s = SEARCH_S
        self.patience_beats = PATIENCE_BEATS

    def touch(self) -> None:
        """Have what the session has to say sent before this turn ends, or in a while if it may."""
        edge, routes = self.edge, self._routes
        if edge.put_off and not edge.has_output:
            routes._tell_later(self)
            return
        routes.touched[self] = None
        routes.transport.turn.touch_consensus()

    def is_of(self, node: NodeId) -> bool:
        """Whether a link to that node matters: it talks to it, or to nobody that it looks for."""
        edge = self.edge
        if edge.leader is None:
            return self.is_wanted or edge.is_remembered
        return edge.leader.node == node

    @property
    def is_wanted(self) -> bool:
        """Whether anything is asked for, or held."""
        edge = self.edge
        return bool(edge.pending.operations or edge.consumers or edge.hands)


class LeaderRoutes:
    """Routes of this node's sessions, by the id of the queue."""

    __slots__ = (
        "_beat", "_is_beating", "_known", "_lines", "_lost", "_members", "_missed",
        "_on_rest", "_unheard", "_untold", "_waiting", "touched", "transport",
    )  # fmt: skip

    def __init__(
        self, transport: SessionTransport, known: Callable[[QueueId], KnownLeader]
    ) -> None:
        """`known`: who leads a queue, as far as it is known here without asking."""
        self.transport = transport
        self._known = known
        self._lines: dict[QueueId, LeaderRoute] = {}
        self._members: dict[tuple[NodeId, ...], tuple[NodeId, ...]] = {}
        """Each that there is or was once, for all queues that have them."""
        self.touched: dict[LeaderRoute, None] = {}
        self._lost: dict[LeaderRoute, None] = {}
        """Those that want something and reach nobody; each has a timer."""
        self._waiting: dict[LeaderRoute, int] = {}
        """Those that have asked for something that has no outcome, or have consumers: at which
        beat they heard anything last, or asked."""
        self._untold: dict[LeaderRoute, None] = {}
        """Those that have received something, and have maybe not told; a timer runs for them."""
        self._unheard: PendingNews[LeaderRoute, NodeId] = PendingNews()
        """Those that have not heard yet that a link has come or gone, and to which node."""
        self._missed: set[NodeId] = set()
        """Homes that cannot be reached, and are waited for."""
        self._beat = 0
        self._is_beating = False
        self._on_rest: Callable[[], None] = do_nothing
        """Told when nothing is pending, if somebody waits for that."""

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> LeaderRoute:
        line = LeaderRoute(SessionClient(definition.id, self.transport.boot), on_events, self)
        self._lines[definition.id] = line
        self.redefine(definition)
        if not definition.members:
            line.home = definition.home
            self._find_home(line)
        return line

    def redefine(self, definition: QueueDefinition) -> None:
        """Others may be its members."""
        if (line := self._lines.get(definition.id)) is not None:
            members = tuple(node for node, _incarnation in definition.members)
            members = members or (definition.home,)
            line.members = self._members.setdefault(members, members)

    def close(self, queue: QueueId) -> None:
        line = self._lines.pop(queue)
        self.touched.pop(line, None)
        self._lost.pop(line, None)
        self._waiting.pop(line, None)
        self._untold.pop(line, None)
        self._unheard.take(line)
        self._tell(line, line.edge.deleted())  # mutant: R22
        line.on_events = ignore_events
        self._look_whether_at_rest()

    def leader_of(self, queue: QueueId) -> KnownLeader:
        """Who leads a queue, as far as anybody has said."""
        line = self._lines.get(queue)
        return max(line.told if line is not None else NO_LEADER, self._known(queue))

    def search(self, queue: QueueId) -> None:
        """Somebody wants to know who leads a queue."""
        if (line := self._lines.get(queue)) is not None:
            self._ask_next(line)

    def reachable(self, queue: QueueId) -> Reachability:
        """Whom one reaches of the members of a queue, or whether its home is there."""
        line = self._lines.get(queue)
        if line is None or line.home:
            return Reachability.NONE if line is not None and line.is_away else Reachability.ENOUGH
        here = sum(node in self.transport.lives for node in line.members)
        return (
            Reachability.ENOUGH if here >= majority_of(len(line.members)) else Reachability.TOO_FEW
        )

    def rest(self, done: Callable[[], None]) -> None:
        """Say what was put off, and tell `done` when nothing is pending.

        What nobody can be asked for is not waited for; an answer may never come all the same.
        """
        self._on_rest = done
        for line in self._untold:
            line.edge.put_off = 0
            line.touch()
        self._see_whether_at_rest()

    def _look_whether_at_rest(self) -> None:
        """In the next turn, if somebody waits: what was pending may have ended without a leader."""
        if self._on_rest is not do_nothing:
            self.transport.turn.touch_consensus()

    def _see_whether_at_rest(self) -> None:
        """What is pending was sent, or is to be, or waits for somebody to whom it can be."""
        concerned = chain(self._waiting, self.touched, self._lost, self._untold)
        if any(map(self._is_under_way, concerned)):
            return
        on_rest, self._on_rest = self._on_rest, do_nothing
        on_rest()

    def _is_under_way(self, line: LeaderRoute) -> bool:
        """Whether anything is pending, and there is somebody who may answer or know who does."""
        lives, own = self.transport.lives, self.transport.node
        return bool(line.edge.pending.operations) and (
            line.edge.leader is not None
            or any(node in lives and node != own for node in line.members)
        )

    # Whom to talk to

    def changed(self, queue: QueueId) -> None:
        """Who leads a queue is known otherwise than before."""
        if (line := self._lines.get(queue)) is not None:
            self._turn_to_leader(line)

    def linked(self, node: NodeId) -> None:
        """There is a new link to a node: what was sent over an earlier one may be lost."""
        for line in self._lines.values():
            if line.home == node:
                self._find_home(line)
        self._hear_later(node)

    def unlinked(self, node: NodeId) -> None:
        self._hear_later(node)
        self._miss(node)
        self._look_whether_at_rest()

    def _hear_later(self, node: NodeId) -> None:
        """All that talk to a node, or to nobody, hear of its link: those at once that want
        something, the others some in each turn."""
        concerned = [line for line in self._lines.values() if line.is_of(node)]
        self._unheard.add(concerned, node)
        for line in concerned:
            if line.is_wanted:
                self._hear(line)
        if self._unheard:
            self.transport.turn.touch_consensus()

    def _hear(self, line: LeaderRoute) -> None:
        """What there is to hear of links, each of which is now there or not."""
        lives = self.transport.lives
        for node in dict.fromkeys(self._unheard.take(line)):
            leader = line.edge.leader
            if leader is None:
                self._turn_to_leader(line)
            elif leader.node == node:
                boot = lives.get(node)
                line.edge.connect(None if boot is None else leader._replace(boot=boot))
                self._turn_to_leader(line)

    # Queues that live on one node

    def _find_home(self, line: LeaderRoute) -> None:
        """Its home leads for as long as it lives; whatever an earlier life was asked is lost."""
        life = self.transport.lives.get(line.home)
        if life is None:
            self._miss(line.home)
            return
        line.is_away = False
        line.told = KnownLeader(life.counter, 1, line.home)
        if line.life not in (None, life):
            line.edge.connect(None)
            self._tell(line, line.edge.lost())
        line.life = life

    def _miss(self, home: NodeId) -> None:
        if home not in self._missed:
            self._missed.add(home)
            self._look_later(home, AWAY_S)

    def _look_later(self, home: NodeId, since_s: float) -> None:
        self.transport.loop.call_later(AWAY_S, lambda: self._look(home, since_s))

    def _look(self, home: NodeId, since_s: float) -> None:
        """Clients of its queues are told, unless it is back, or may be soon."""
        is_back, cluster = home in self.transport.lives, self.transport.cluster
        if not is_back and since_s < AWAY_S_MAX and not cluster.is_nobody_there(home):
            self._look_later(home, since_s + AWAY_S)
            return
        self._missed.discard(home)
        if is_back:
            return
        for line in self._lines.values():
            if line.home == home:
                line.is_away = True
                self._tell(line, line.edge.lost())

    # Connecting

    def _turn_to_leader(self, line: LeaderRoute) -> None:
        self._connect(line)
        if line.edge.has_output:
            line.touch()

    def _connect(self, line: LeaderRoute) -> None:
        """Talk to whoever leads; look for it, if there is something to say."""
        edge, best = line.edge, max(line.told, self._known(line.edge.group))
        if edge.leader is not None and edge.leader.reign >= best[:2]:
            return
        edge.connect(None)
        boot = self.transport.lives.get(best.node)
        if not line.is_wanted and not (edge.is_remembered and boot is not None):
            self._lost.pop(line, None)
            return
        if boot is not None and best != line.denied:
            edge.connect(m.Leader(best.node, boot, best.term, best.leadership))
        if edge.leader is None:
            self._search_later(line)
        else:
            self._lost.pop(line, None)

    def _search_later(self, line: LeaderRoute) -> None:
        self.transport.cluster.hasten(line.edge.group)
        if line not in self._lost:
            self._lost[line] = None
            self.transport.loop.call_later(line.search_s, lambda: self._search(line))

    def _search(self, line: LeaderRoute) -> None:
        """Nobody has come of himself: others are asked, and so is again who does not lead yet."""
        if line not in self._lost:
            return
        del self._lost[line]
        line.search_s = min(2 * line.search_s, SEARCH_S_MAX)
        line.denied = NO_LEADER
        self._ask_next(line)  # mutant: R11
        self._turn_to_leader(line)

    def _ask_next(self, line: LeaderRoute) -> None:
        """Ask a member that can be reached who leads: each says what it knows."""
        lives = self.transport.lives
        members = [each for each in line.members if each in lives and each != self.transport.node]
        if members:
            node = members[line.asked % len(members)]
            line.asked += 1
            self.transport.send(node, question(line.edge, lives[node]))

    # What leaders say

    def hear(self, frame: m.LeaderFrame) -> None:
        line = self._lines.get(frame.group)
        if line is None:
            return
        if self._unheard:
            self._hear(line)
        if not frame.term:
            self._learn(line, frame)
            return
        line.patience_beats = PATIENCE_BEATS
        asked = line.edge.leader
        events = apply_frame(line.edge, frame)
        self._waiting.pop(line, None)
        self._wait(line)
        others: list[Event] = []
        for event in events:
            if not isinstance(event, WrongLeader):
                others.append(event)
            elif asked is not None:
                line.denied = KnownLeader(*asked.reign, asked.node)
                self._told(line, KnownLeader(event.term, event.leadership, event.leader))
        if len(others) == len(events):
            line.search_s = SEARCH_S
        self._tell(line, others)
        if line.edge.has_output:
            line.touch()
        elif line.edge.untold_bytes:
            self._tell_later(line)
        if self._on_rest is not do_nothing:
            self._see_whether_at_rest()

    def _tell_later(self, line: LeaderRoute) -> None:
        if not self._untold:
            self.transport.loop.call_later(TELL_S, self._tell_received)
        self._untold[line] = None

    def _tell_received(self) -> None:
        """Whatever a leader sends is kept there until it knows that it has arrived."""
        untold, self._untold = self._untold, {}
        for line in untold:
            if line.edge.untold_bytes:
                line.edge.owes = True
            line.edge.put_off = 0  # mutant: R6b
            if line.edge.has_output:
                line.touch()

    def _learn(self, line: LeaderRoute, frame: m.LeaderFrame) -> None:
        """The answer to who leads, or the word of who does.

        Of whatever node: it may have become a member so lately that it is not known here.
        """
        if frame.receiver == self.transport.boot:
            for message in frame.messages:
                if isinstance(message, m.NotLeader):
                    known = KnownLeader(message.term, message.leadership, message.leader)
                    self._heed_denial(line, frame.sender, known)
                    self._told(line, known)

    def _heed_denial(self, line: LeaderRoute, sender: m.Boot, known: KnownLeader) -> None:
        """Who is asked leads no more, and says so itself."""
        asked = line.edge.leader
        if asked is None or asked.boot != sender or known.term < asked.term:
            return
        if known.node != asked.node:
            line.denied = KnownLeader(*asked.reign, asked.node)
            line.edge.connect(None)

    def _told(self, line: LeaderRoute, known: KnownLeader) -> None:
        if known.node:
            line.told = max(line.told, known)
        self._turn_to_leader(line)

    def _tell(self, line: LeaderRoute, events: list[Event]) -> None:
        """What fails there is a bug of a channel: the others go on."""
        if events:
            call_listener(partial(line.on_events, events))

    # A turn

    def send(self) -> None:
        """Send what was asked for, to leaders on this node and on others.

        What there is no room for waits, in front of what is asked for later: each has its turn.
        """
        if self._unheard:
            for line in self._unheard.first(TOLD_MAX):
                self._hear(line)
            if self._unheard:
                self.transport.turn.touch_consensus()
        touched, self.touched = self.touched, {}
        for line in touched:
            if self._unheard:
                self._hear(line)
            edge = line.edge
            if edge.leader is None:
                self._connect(line)
            while edge.leader is not None and edge.has_output:
                if not self.transport.has_room(edge.leader.node):  # mutant: L1
                    self.touched[line] = None
                    break
                if (sent := edge.output()) is not None:
                    self._wait(line)
                    self.transport.send(*sent)
        if self._on_rest is not do_nothing:
            self._see_whether_at_rest()

    def _wait(self, line: LeaderRoute) -> None:
        """From now on, if not for long already, while there is anything without an outcome, or
        anybody who waits for messages."""
        if line.edge.pending.operations or (line.edge.consumers and not line.home):
            self._waiting.setdefault(line, self._beat)
            if not self._is_beating:
                self._is_beating = True
                self.transport.loop.call_later(BEAT_S, self._on_beat)

    def _on_beat(self) -> None:
        """Begin anew where nothing was heard for too long, while anything is asked for."""
        self._beat += 1
        self._is_beating = bool(self._waiting)
        if self._is_beating:
            self.transport.loop.call_later(BEAT_S, self._on_beat)
        for line, since in list(self._waiting.items()):
            if self._beat - since < line.patience_beats:
                continue
            del self._waiting[line]
            line.patience_beats = min(2 * line.patience_beats, PATIENCE_BEATS_MAX)
            leader = line.edge.leader
            if leader is None:
                continue
            if line.edge.pending.operations:
                line.edge.connect(leader)
                line.touch()
            elif line.edge.consumers:
                self.transport.send(leader.node, question(line.edge, leader.boot))
                self._wait(line)


def question(edge: SessionClient, receiver: m.Boot) -> m.ClientFrame:
    """Who leads?  In no term, so that it is answered and changes nothing."""
    return m.ClientFrame(
        group=edge.group,
        term=0,
        leadership=0,
        sender=edge.boot,
        receiver=receiver,
        session=edge.session,
        opening=0,
        received=0,
        known=edge.pending.first,
        messages=[],
    )


def session_boot(boot: LinkBoot) -> Boot:
    """A life of a node, as streams know it."""
    return Boot(boot.count, int.from_bytes(boot.nonce) >> 8 * len(boot.nonce) - NONCE_BITS)


class SessionRouter:
    """A `SessionDirectory` that passes frames on.  Called from one thread."""

    __slots__ = (
        "_early",
        "_queries",
        "_transport",
        "after_consensus",
        "boot",
        "leading",
        "lines",
        "peek",
    )

    def __init__(
        self, transport: SessionTransport, *, queue_failed: OnFailure = log_failure
    ) -> None:
        """`queue_failed`: an error has ended the leadership of a queue; it is to end more if this
        raises it."""
        self._transport = transport
        self.boot = transport.boot
        """This life of the node."""
        self._early: dict[NodeId, list[ClientFrame]] = {}
        self.leading = transport.leading = LocalLeaders(transport, queue_failed)
        """The queues that may be led here."""
        self.after_consensus = self.leading.send
        """What is known now is told."""
        self.lines = transport.lines = LeaderRoutes(transport, self.leading.known)
        """The edges of this node."""
        self._queries = LeaderQueries(transport, self.leading, self.lines)
        self.peek = self._queries.peek

    # For channels

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> LeaderRoute:
        return self.lines.open(definition, on_events)

    def close(self, queue: QueueId) -> None:
        self.lines.close(queue)

    def counts_here(self, queue: QueueId) -> LeaderCounts | None:
        served = led_here(self.leading, queue)
        return served.counts if served is not None else None

    def ask_counts(self, queue: QueueId, done: OnCounts, *, in_use: bool = False) -> None:
        self._queries.count(queue, done, in_use=in_use)

    # Who leads

    def redefined(self, definition: QueueDefinition) -> None:
        """A queue has other members."""
        self.lines.redefine(definition)

    def leader_changed(self, queue: QueueId) -> None:
        """What is known here of who leads a queue is otherwise than before."""
        self.lines.changed(queue)
        self._queries.changed(queue)
        self.leading.speak(queue)

    def removed(self, node: NodeId) -> None:
        """It is no node of this cluster any more."""
        self.leading.removed(node)

    # What comes over links

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        transport = self._transport
        boot = transport.cluster.boot_of(node) if is_up else None
        if boot is None:
            if transport.lives.pop(node, None) is not None:
                self.leading.unlinked(node)
                self.lines.unlinked(node)
            return
        transport.lives[node] = boot
        self.leading.linked(node, boot)
        for frame in self._early.pop(node, ()):
            self.leading.take(node, frame)
        self.lines.linked(node)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A frame of a stream.  Raises `BadFrame`."""
        frame = decode(payload)
        if not isinstance(frame, ClientFrame):
            self.lines.hear(frame)
        elif node in self._transport.lives:
            self.leading.take(node, frame)
        else:
            early = self._early.setdefault(node, [])
            if len(early) < EARLY_MAX:
                early.append(frame)

    def receive_question(self, node: NodeId, payload: bytes) -> None:
        """A frame of `LeaderQueries`.  Raises `BadFrame`."""
        self._queries.receive(node, payload)

    # A turn

    def before_consensus(self) -> None:
        """What was asked for goes to leaders; those that are here propose."""
        self.leading.is_pump_coming = self.leading.is_output_coming = True
        self.lines.send()
        self.leading.pump()
