"""Routes of this node's sessions, each to the leader of its queue.

The leader is known from the member of the queue's group on this node, if there is one, or from
replies of other nodes: a reply that names another leader turns the session to that one.  Without
any trace the members are asked in turn.  A session without requests and consumers has no leader:
ten thousand of them cost nothing when a node goes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain

from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.clock import EventLoop
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.replies import apply_frame
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient
from fluffle.broker.cluster.queues.ports import (
    NO_LEADER,
    KnownLeader,
    OnEvents,
    QueueId,
    Reachability,
)
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.runtime.turn import do_nothing
from fluffle.raft.config import NodeId, majority_of
from fluffle.raft.multiraft import PendingNews

NOTIFIED_MAX = 64
"""Unused routes that learn in one turn that a link has come or gone."""

SEARCH_S = 0.02
SEARCH_S_MAX = 1.0
"""First and longest delay between searches for a leader, which double: a leader that has just won
may not serve yet, and in a minority there is none."""

BEAT_S = 1.0
SILENT_BEATS = 5
SILENT_BEATS_MAX = 60
"""A session that has got no reply for so many beats begins anew: an answer that stands
beside the others may be lost.  Likewise twice as many each time.  One that has asked for nothing
and has consumers asks its leader whether it still leads."""

REPORT_S = 0.05
"""A leader gets a report after this that messages have arrived, if none went with their settlement,
and what clients have acknowledged, if no other request went before."""

AWAY_S = 0.5
"""A home node that was not reached for so long is down, for clients of its queues, if its machine
says that it does not run.  RabbitMQ has it down at once."""
AWAY_S_MAX = 10.0
"""Time after which an unreachable home node counts as dead without a sign of that: it may only be
cut off, and what clients did there would be lost."""


def ignore_events(_events: list[Event]) -> None:
    """Drop events of a queue that is deleted."""


class LeaderRoute:
    """A session of this node, and the leader its frames go to: a `SessionPort`."""

    __slots__ = (
        "_routes", "asked", "denied", "home", "home_boot", "is_away", "members", "on_events",
        "reported", "search_s", "session", "silent_beats_max",
    )  # fmt: skip

    def __init__(self, session: SessionClient, on_events: OnEvents, routes: LeaderRoutes) -> None:
        self.session = session
        self.on_events = on_events
        self._routes = routes
        self.members: tuple[NodeId, ...] = ()
        """The nodes that may lead."""
        self.home: NodeId = ""
        """Home node of a queue that one node leads for as long as it lives."""
        self.home_boot: m.SessionBoot | None = None
        """Boot of the home node in which it was asked last."""
        self.is_away = False
        """True if its home has not been reached for a while."""
        self.reported = NO_LEADER
        """The leader, as other nodes have it."""
        self.denied = NO_LEADER
        """The leader that has said of itself that it leads no more: not asked again at once."""
        self.asked = 0
        """How many members were asked."""
        self.search_s = SEARCH_S
        self.silent_beats_max = SILENT_BEATS

    def touch(self) -> None:
        """Have what the session was asked for sent before this turn ends; acknowledgements alone in
        a while.

        A caller asks first and touches then: what is asked for later would wait as long as they.
        """
        session, routes = self.session, self._routes
        if session.deferrable and not session.has_output:
            routes.reports.add(self)
            return
        routes.touched[self] = None
        routes.transport.turn.touch_consensus()

    def is_of(self, node: NodeId) -> bool:
        """True if a link to that node matters: the route uses it, or looks for a leader."""
        session = self.session
        if session.leader is None:
            return self.is_wanted or session.is_remembered
        return session.leader.node == node

    @property
    def is_wanted(self) -> bool:
        """True if anything is asked for, or held."""
        session = self.session
        return bool(session.pending.operations or session.consumers or session.unacked)


class DeferredReports:
    """Reports of what sessions have received, each made a while after it was asked for."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self.routes: dict[LeaderRoute, None] = {}
        """Routes that may have to report; while there are any, a timer runs."""

    def add(self, route: LeaderRoute) -> None:
        """Have what a session has received reported in a while, with that of others."""
        if not self.routes:
            self._loop.call_later(REPORT_S, self._report)
        self.routes[route] = None

    def _report(self) -> None:
        """Report what has arrived: a leader keeps all that it sent until then."""
        routes, self.routes = self.routes, {}
        for route in routes:
            if route.session.unreported_bytes:
                route.session.owes_report = True
            route.session.deferrable = 0  # mutant: R6b
            if route.session.has_output:
                route.touch()


class LeaderRoutes:
    """Routes of this node's sessions, by the id of the queue."""

    def __init__(
        self, transport: SessionTransport, known: Callable[[QueueId], KnownLeader]
    ) -> None:
        """`known`: which node leads a queue, as far as it is known here without asking."""
        self.transport = transport
        self._known = known
        self._by_queue: dict[QueueId, LeaderRoute] = {}
        self._members: dict[tuple[NodeId, ...], tuple[NodeId, ...]] = {}
        """Each that there is or was once, for all queues that have them."""
        self.touched: dict[LeaderRoute, None] = {}
        self._lost: dict[LeaderRoute, None] = {}
        """Routes with requests and without a reachable leader; each has a timer."""
        self._waiting: dict[LeaderRoute, int] = {}
        """Routes with pending requests or with consumers: the beat of their last reply or
        request."""
        self.reports = DeferredReports(transport.loop)
        self._link_news: PendingNews[LeaderRoute, NodeId] = PendingNews()
        """Links that have come or gone, by node, for those that have not looked at them yet."""
        self._missed: set[NodeId] = set()
        """Home nodes that cannot be reached, and are waited for."""
        self._beat = 0
        self._is_beating = False
        self._on_rest: Callable[[], None] = do_nothing
        """Called when nothing is pending, if that is waited for."""

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> LeaderRoute:
        route = LeaderRoute(SessionClient(definition.id, self.transport.boot), on_events, self)
        self._by_queue[definition.id] = route
        self.redefine(definition)
        if not definition.members:
            route.home = definition.home
            self._find_home(route)
        return route

    def redefine(self, definition: QueueDefinition) -> None:
        """Take the members of a queue from its definition."""
        if (route := self._by_queue.get(definition.id)) is not None:
            members = tuple(node for node, _incarnation in definition.members)
            members = members or (definition.home,)
            route.members = self._members.setdefault(members, members)

    def close(self, queue: QueueId) -> None:
        route = self._by_queue.pop(queue)
        self.touched.pop(route, None)
        self._lost.pop(route, None)
        self._waiting.pop(route, None)
        self.reports.routes.pop(route, None)
        self._link_news.take(route)
        self._give_events(route, route.session.deleted())  # mutant: R22
        route.on_events = ignore_events
        self._look_whether_at_rest()

    def leader_of(self, queue: QueueId) -> KnownLeader:
        """Leader of a queue, as far as this node or a reply knows it."""
        route = self._by_queue.get(queue)
        return max(route.reported if route is not None else NO_LEADER, self._known(queue))

    def search(self, queue: QueueId) -> None:
        """Ask a member that can be reached which node leads a queue."""
        if (route := self._by_queue.get(queue)) is not None:
            self._ask_next(route)

    def reachable(self, queue: QueueId) -> Reachability:
        """Reachability of a queue's members, or of its home node."""
        route = self._by_queue.get(queue)
        if route is None or route.home:
            return Reachability.NONE if route is not None and route.is_away else Reachability.ENOUGH
        here = sum(node in self.transport.boots for node in route.members)
        return (
            Reachability.ENOUGH if here >= majority_of(len(route.members)) else Reachability.TOO_FEW
        )

    def rest(self, done: Callable[[], None]) -> None:
        """Send requests that were deferred, and call `done` when nothing is pending.

        Requests that reach no node are not waited for; a reply may never come all the same.
        """
        self._on_rest = done
        for route in self.reports.routes:
            route.session.deferrable = 0
            route.touch()
        self._see_whether_at_rest()

    def _look_whether_at_rest(self) -> None:
        """In the next turn, if that is waited for: what was pending may have ended otherwise."""
        if self._on_rest is not do_nothing:
            self.transport.turn.touch_consensus()

    def _see_whether_at_rest(self) -> None:
        """Call back once all that is pending was sent, or is to be, or waits for a leader."""
        concerned = chain(self._waiting, self.touched, self._lost, self.reports.routes)
        if any(map(self._is_under_way, concerned)):
            return
        on_rest, self._on_rest = self._on_rest, do_nothing
        on_rest()

    def _is_under_way(self, route: LeaderRoute) -> bool:
        """True if anything is pending, and there is a node that may answer or know which does."""
        boots, own = self.transport.boots, self.transport.node
        return bool(route.session.pending.operations) and (
            route.session.leader is not None
            or any(node in boots and node != own for node in route.members)
        )

    # Leaders

    def changed(self, queue: QueueId) -> None:
        """React to a change of a queue's known leader."""
        if (route := self._by_queue.get(queue)) is not None:
            self._turn_to_leader(route)

    def linked(self, node: NodeId) -> None:
        """Handle a new link to a node: what was sent over an earlier one may be lost."""
        for route in self._by_queue.values():
            if route.home == node:
                self._find_home(route)
        self._note_link(node)

    def unlinked(self, node: NodeId) -> None:
        self._note_link(node)
        self._miss(node)
        self._look_whether_at_rest()

    def _note_link(self, node: NodeId) -> None:
        """Have all with that leader, or without one, look at a link: those with requests at once,
        the others some in each turn."""
        concerned = [route for route in self._by_queue.values() if route.is_of(node)]
        self._link_news.add(concerned, node)
        for route in concerned:
            if route.is_wanted:
                self._apply_link_news(route)
        if self._link_news:
            self.transport.turn.touch_consensus()

    def _apply_link_news(self, route: LeaderRoute) -> None:
        """Look at links that have come or gone, each of which is now there or not."""
        boots = self.transport.boots
        for node in dict.fromkeys(self._link_news.take(route)):
            leader = route.session.leader
            if leader is None:
                self._turn_to_leader(route)
            elif leader.node == node:
                boot = boots.get(node)
                route.session.connect(None if boot is None else leader._replace(boot=boot))
                self._turn_to_leader(route)

    # Queues that live on one node

    def _find_home(self, route: LeaderRoute) -> None:
        """Route to the home node, which leads for as long as it lives; requests to an earlier boot
        are lost."""
        home_boot = self.transport.boots.get(route.home)
        if home_boot is None:
            self._miss(route.home)
            return
        route.is_away = False
        route.reported = KnownLeader(home_boot.counter, 1, route.home)
        if route.home_boot not in (None, home_boot):
            route.session.connect(None)
            self._give_events(route, route.session.lost())
        route.home_boot = home_boot

    def _miss(self, home: NodeId) -> None:
        if home not in self._missed:
            self._missed.add(home)
            self._look_later(home, AWAY_S)

    def _look_later(self, home: NodeId, since_s: float) -> None:
        self.transport.loop.call_later(AWAY_S, lambda: self._look(home, since_s))

    def _look(self, home: NodeId, since_s: float) -> None:
        """End the sessions with queues of a home node, unless it is back, or may be soon."""
        is_back, cluster = home in self.transport.boots, self.transport.cluster
        if not is_back and since_s < AWAY_S_MAX and not cluster.is_not_running(home):
            self._look_later(home, since_s + AWAY_S)
            return
        self._missed.discard(home)
        if is_back:
            return
        for route in self._by_queue.values():
            if route.home == home:
                route.is_away = True
                self._give_events(route, route.session.lost())

    # Connecting

    def _turn_to_leader(self, route: LeaderRoute) -> None:
        self._connect(route)
        if route.session.has_output:
            route.touch()

    def _connect(self, route: LeaderRoute) -> None:
        """Connect to the leader; search for it, if there are requests."""
        session, best = route.session, max(route.reported, self._known(route.session.group))
        if session.leader is not None and session.leader.leader_epoch >= best[:2]:
            return
        session.connect(None)
        boot = self.transport.boots.get(best.node)
        if not route.is_wanted and not (session.is_remembered and boot is not None):
            self._lost.pop(route, None)
            return
        if boot is not None and best != route.denied:
            session.connect(m.Leader(best.node, boot, best.term, best.leadership))
        if session.leader is None:
            self._search_later(route)
        else:
            self._lost.pop(route, None)

    def _search_later(self, route: LeaderRoute) -> None:
        self.transport.cluster.hasten(route.session.group)
        if route not in self._lost:
            self._lost[route] = None
            self.transport.loop.call_later(route.search_s, lambda: self._search(route))

    def _search(self, route: LeaderRoute) -> None:
        """Ask a member, and again the leader that did not serve yet."""
        if route not in self._lost:
            return
        del self._lost[route]
        route.search_s = min(2 * route.search_s, SEARCH_S_MAX)
        route.denied = NO_LEADER
        self._ask_next(route)  # mutant: R11
        self._turn_to_leader(route)

    def _ask_next(self, route: LeaderRoute) -> None:
        """Ask a member that can be reached which node leads: each says what it knows."""
        boots = self.transport.boots
        members = [each for each in route.members if each in boots and each != self.transport.node]
        if members:
            node = members[route.asked % len(members)]
            route.asked += 1
            self.transport.send(node, question(route.session, boots[node]))

    # Replies

    def receive(self, frame: m.LeaderFrame) -> None:
        """Take replies of a leader, on this node or another, and give their events to the queue."""
        route = self._by_queue.get(frame.group)
        if route is None:
            return
        if self._link_news:
            self._apply_link_news(route)
        if not frame.term:
            self._learn(route, frame)
            return
        route.silent_beats_max = SILENT_BEATS
        asked = route.session.leader
        events = apply_frame(route.session, frame)
        self._waiting.pop(route, None)
        self._wait(route)
        others: list[Event] = []
        for event in events:
            if not isinstance(event, m.NotLeader):
                others.append(event)
            elif asked is not None:
                route.denied = KnownLeader(*asked.leader_epoch, asked.node)
                self._learned(route, KnownLeader(event.term, event.leadership, event.leader))
        if len(others) == len(events):
            route.search_s = SEARCH_S
        self._give_events(route, others)
        if route.session.has_output:
            route.touch()
        elif route.session.unreported_bytes:
            self.reports.add(route)
        if self._on_rest is not do_nothing:
            self._see_whether_at_rest()

    def _learn(self, route: LeaderRoute, frame: m.LeaderFrame) -> None:
        """Take the reply to `question`, or the notice of a new leader.

        Any node may send it: it may have become a member so lately that it is not known here.
        """
        if frame.receiver == self.transport.boot:
            for message in frame.messages:
                if isinstance(message, m.NotLeader):
                    known = KnownLeader(message.term, message.leadership, message.leader)
                    self._heed_denial(route, frame.sender, known)
                    self._learned(route, known)

    def _heed_denial(self, route: LeaderRoute, sender: m.SessionBoot, known: KnownLeader) -> None:
        """Leave a leader that says of itself that it leads no more."""
        asked = route.session.leader
        if asked is None or asked.boot != sender or known.term < asked.term:
            return
        if known.node != asked.node:
            route.denied = KnownLeader(*asked.leader_epoch, asked.node)
            route.session.connect(None)

    def _learned(self, route: LeaderRoute, known: KnownLeader) -> None:
        if known.node:
            route.reported = max(route.reported, known)
        self._turn_to_leader(route)

    def _give_events(self, route: LeaderRoute, events: list[Event]) -> None:
        """Give events to the queue.  An error there is a bug of one channel; the others go on."""
        if events:
            call_listener(partial(route.on_events, events))

    # A turn

    def send(self) -> None:
        """Send what was asked for, to leaders on this node and on others.

        What there is no room for waits, in front of what is asked for later: each has its turn.
        """
        if self._link_news:
            for route in self._link_news.first(NOTIFIED_MAX):
                self._apply_link_news(route)
            if self._link_news:
                self.transport.turn.touch_consensus()
        touched, self.touched = self.touched, {}
        for route in touched:
            if self._link_news:
                self._apply_link_news(route)
            session = route.session
            if session.leader is None:
                self._connect(route)
            while session.leader is not None and session.has_output:
                if not self.transport.has_room(session.leader.node):  # mutant: L1
                    self.touched[route] = None
                    break
                if (sent := session.output()) is not None:
                    self._wait(route)
                    self.transport.send(*sent)
        if self._on_rest is not do_nothing:
            self._see_whether_at_rest()

    def _wait(self, route: LeaderRoute) -> None:
        """Expect a reply from now on, while there is a request without an outcome or a consumer."""
        if route.session.pending.operations or (route.session.consumers and not route.home):
            self._waiting.setdefault(route, self._beat)
            if not self._is_beating:
                self._is_beating = True
                self.transport.loop.call_later(BEAT_S, self._on_beat)

    def _on_beat(self) -> None:
        """Begin anew where no reply came for too long."""
        self._beat += 1
        self._is_beating = bool(self._waiting)
        if self._is_beating:
            self.transport.loop.call_later(BEAT_S, self._on_beat)
        for route, since in list(self._waiting.items()):
            if self._beat - since < route.silent_beats_max:
                continue
            del self._waiting[route]
            route.silent_beats_max = min(2 * route.silent_beats_max, SILENT_BEATS_MAX)
            leader = route.session.leader
            if leader is None:
                continue
            if route.session.pending.operations:
                route.session.connect(leader)
                route.touch()
            elif route.session.consumers:
                self.transport.send(leader.node, question(route.session, leader.boot))
                self._wait(route)


def question(session: SessionClient, receiver: m.SessionBoot) -> m.ClientFrame:
    """Question for the leader.  Its term is 0, so that it is answered and changes nothing."""
    return m.ClientFrame(
        group=session.group,
        term=0,
        leadership=0,
        sender=session.boot,
        receiver=receiver,
        session=session.counter,
        opening=0,
        received=0,
        known=session.pending.first,
        messages=[],
    )
