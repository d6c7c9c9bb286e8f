"""Edges, two nodes that lead a queue in turn, and a network between them, all by hand.

Frames are bytes.  They keep their order within a link; a link that is reset leaves a tail that may
arrive late, or never.  A leader that was replaced does not know it: it goes on taking frames, and
nothing that it decides is ever committed.  One whose entry was not taken begins anew in its term;
edges may hear of that only when they ask.  What clients see is checked at once, against the log.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeVar

from fluffle.broker.cluster.queue_sessions.codec import decode, encode
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient
from fluffle.broker.cluster.queue_sessions.session_server import SessionServer
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.broker.queues.quorum.state import QueueImage
from tests.broker.cluster.queue_sessions.queue_client import QueueClient, UniqueNames
from tests.broker.cluster.queue_sessions.reference_model import ReferenceModel, check_rest
from tests.broker.queues.quorum.image_digest import image_digest
from tests.support.leader_services import FakeLeaderServices
from tests.support.payloads import joined

GROUP = 7
LEADERS = ("left", "right")
PLAIN = QueueSpec("q")

T = TypeVar("T")


class LeaderWithSessions(FakeLeaderServices):
    """Leadership of the queue and its sessions, on a node of its own."""

    def __init__(
        self,
        own: m.Leader,
        image: QueueImage,
        log: list[bytes],
        now_ms: int,
        *,
        spec: QueueSpec = PLAIN,
        group: int = GROUP,
    ) -> None:
        super().__init__(spec, log)
        self.own = own
        self.image = image
        self.leadership = Leadership(image, self, self, term=0)
        self.sessions = SessionServer(group, own, image.state, self.leadership, now_ms)

    def wake(self, delay_ms: int) -> None:
        raise AssertionError("nothing is due by time")

    def room(self, holder: int) -> int:
        return self.sessions.room(holder)

    def release(self, effects: list[m.Effect]) -> None:
        self.sessions.release(effects)

    def turn(self) -> None:
        while self.is_touched:
            self.is_touched = False
            self.leadership.pump()


@dataclass
class ManualLink:
    """Direction of a link, and what is left of earlier connections."""

    links: list[deque[bytes]] = field(default_factory=lambda: [deque()])

    def put(self, payload: bytes) -> None:
        self.links[-1].append(payload)

    def reset(self) -> None:
        self.links = [*(link for link in self.links if link), deque()]

    @property
    def is_empty(self) -> bool:
        return not any(self.links)


class SessionHarness:
    """Clients at several nodes, leaders of their queue in turn, and the links between them."""

    def __init__(self, nodes: tuple[str, ...] = ("near", "left"), spec: QueueSpec = PLAIN) -> None:
        self.spec = spec
        self.group = GROUP
        self.log: list[bytes] = []
        self.model = ReferenceModel()
        self.follower = QueueImage()
        self.now_ms = 0
        self.term = 0
        self.names = UniqueNames()
        self.boots = {
            node: m.SessionBoot(1, 100 + at) for at, node in enumerate((*nodes, *LEADERS))
        }
        self.clients = {node: self.start(node) for node in nodes}
        self.wires: dict[tuple[str, str, int], ManualLink] = {}
        """Links by client node, direction and term: a leader is on one node for its term."""
        self.up: set[str] = set()
        self.leds: dict[int, LeaderWithSessions] = {}
        """Last leader of each term: all that lead, or believe to."""
        self.lead(QueueImage())

    # Leading

    @property
    def led(self) -> LeaderWithSessions:
        return self.leds[self.term]

    def begin(self, image: QueueImage, number: int = 1) -> None:
        """A leadership of this term."""
        own = LEADERS[self.term % 2]
        leader = m.Leader(own, self.boots[own], self.term, number)
        self.leds[self.term] = LeaderWithSessions(
            leader, image, self.log, self.now_ms, spec=self.spec, group=self.group
        )

    def lead(self, image: QueueImage) -> None:
        self.term += 1
        self.begin(image)
        self.up.clear()
        for node in self.clients:
            self.link(node)

    def change_leader(self, kept: int = 0) -> None:
        """Change the leader; `kept` of the entries under way are in the next one's log."""
        for payload, _on_outcome in list(self.led.proposals)[:kept]:
            self.apply(payload, [self.follower])
        image, self.follower = self.follower, restored_image(take_snapshot(self.follower)[1])
        self.lead(image)

    def lead_anew(self, kept: int = 0) -> None:
        """Accept `kept` of the entries under way, and refuse the next; see `Member`."""
        while kept and self.led.proposals:
            kept -= 1
            self.commit()
        led = self.led
        led.leadership.end()
        self.begin(led.image, led.own.leadership + 1)
        for node in self.up:
            self.led.sessions.linked(node, self.boots[node])
        self.pump()

    def delete(self) -> None:
        """The queue is gone for good, which all hear, and another of its name begins."""
        for client in self.clients.values():
            client.reported(client.session.deleted())
            assert not client.consumers
        self.model.all_known()
        assert not self.model.unacked
        self.group += 1
        self.log, self.model, self.follower = [], ReferenceModel(), QueueImage()
        self.term = 0
        self.leds.clear()
        self.clients = {node: self.start(node) for node in self.clients}
        self.lead(QueueImage())

    def turn_to_leader(self, node: str) -> None:
        """An edge hears who leads, and has a link there."""
        if node in self.up:
            self.clients[node].session.connect(self.led.own)
            self.pump()

    def apply(self, payload: bytes, images: list[QueueImage]) -> None:
        self.log.append(payload)
        self.model.applied(payload)
        for image in images:
            image.apply(len(self.log), payload)
            image.state.check()

    def commit(self) -> None:
        """The first entry that the leader has under way."""
        led = self.led
        if led.proposals:
            payload, on_outcome = led.proposals.popleft()
            self.apply(payload, [led.image, self.follower])
            on_outcome(True)
            self.pump()

    # Links

    def wire(self, node: str, *, to_leader: bool, term: int | None = None) -> ManualLink:
        key = (node, "to" if to_leader else "from", term or self.term)
        return self.wires.setdefault(key, ManualLink())

    def link(self, node: str) -> None:
        """A new link to the leader is open at both ends."""
        for to_leader in (True, False):
            self.wire(node, to_leader=to_leader).reset()
        self.up.add(node)
        self.led.sessions.linked(node, self.boots[node])
        self.clients[node].session.connect(self.led.own)
        self.pump()

    def cut(self, node: str) -> None:
        """Cut the link to a node."""
        self.up.discard(node)
        self.led.sessions.unlinked(node, self.now_ms)
        self.clients[node].session.connect(None)

    def lose_all(self, node: str) -> None:
        """Whatever is on its way to a node, from whoever leads or led."""
        for (whose, direction, _term), wire in self.wires.items():
            if (whose, direction) == (node, "from"):
                wire.links = [deque()]

    def pump(self) -> None:
        """Whatever has something to send gives it to the network."""
        for node, client in self.clients.items():
            while (sent := client.session.output()) is not None:
                self.wire(node, to_leader=True, term=client.session.term).put(
                    joined(encode(sent[1]))
                )
        for term, led in self.leds.items():
            led.turn()
            for node, frame in led.sessions.output(lambda _node: True):
                self.wire(node, to_leader=False, term=term).put(joined(encode(frame)))

    def arrive(self, at: int = 0, link: int = 0) -> list[Event]:
        """The first frame of some link: what its edge learns."""
        busy = [(key, wire) for key, wire in self.wires.items() if not wire.is_empty]
        if not busy:
            return []
        (node, direction, term), wire = busy[at % len(busy)]
        links = [each for each in wire.links if each]
        frame = decode(links[link % len(links)].popleft())
        events: list[Event] = []
        if isinstance(frame, m.ClientFrame):
            assert direction == "to"
            led = self.leds.get(term, self.led)  # what was sent to who led a queue that is gone
            led.sessions.receive(node, frame)
        else:
            events = self.clients[node].hear(frame)
            if not frame.term or any(isinstance(event, m.NotLeader) for event in events):
                self.turn_to_leader(node)
        self.pump()
        return events

    def drop(self, at: int = 0) -> None:
        """The tail of a link that is no more is lost."""
        tails = [wire for wire in self.wires.values() if any(wire.links[:-1])]
        if tails:
            wire = tails[at % len(tails)]
            wire.links = [wire.links[-1]]

    # Edges

    def start(self, node: str) -> QueueClient:
        return QueueClient(
            node, SessionClient(self.group, self.boots[node]), self.model, self.names
        )

    def restart(self, node: str, counter: int = 1) -> None:
        """The process of an edge ends, and begins anew; `counter` 0: from an old disk."""
        boot = self.boots[node]
        self.boots[node] = m.SessionBoot(boot.counter + counter, boot.nonce + 1_000)
        self.model.died(node)
        self.clients[node] = self.start(node)
        self.link(node)

    def publish(self, node: str, count: int = 1, size: int = 0) -> int:
        return self._sent(self.clients[node].publish(count, size))

    def attach(
        self, node: str, *, credit: int = 100, no_ack: bool = False, prefetch: int = 0
    ) -> int:
        client = self.clients[node]
        return self._sent(client.attach(credit=credit, no_ack=no_ack, prefetch=prefetch))

    def get(self, node: str, channel: int, *, no_ack: bool = False) -> int:
        return self._sent(self.clients[node].get(channel, no_ack=no_ack))

    def get_once(self, node: str, channel: int, *, no_ack: bool = False) -> int | None:
        return self._sent(self.clients[node].get_once(channel, no_ack=no_ack))

    def channels_of(self, node: str) -> list[int]:
        return self.clients[node].channels()

    def end_channel(self, node: str, channel: int) -> None:
        self.clients[node].end_channel(channel)
        self.pump()

    def detach(self, node: str, consumer: int) -> None:
        self.clients[node].detach(consumer)
        self.pump()

    def give_up(self, node: str) -> None:
        self.clients[node].give_up()
        self.pump()

    def purge(self, node: str) -> None:
        self.clients[node].purge()
        self.pump()

    def settle(self, node: str, tokens: list[m.Token], outcome: Outcome = Outcome.ACKED) -> None:
        self.clients[node].settle(tokens, outcome)
        self.pump()

    def hurry(self, node: str) -> None:
        """Send what a client node has put off."""
        self.clients[node].session.deferrable = 0
        self.pump()

    def in_hands(self, node: str) -> list[m.Token]:
        return self.clients[node].in_hands()

    def _sent(self, asked: T) -> T:
        """Send what was requested."""
        self.pump()
        return asked

    def tick(self) -> None:
        self.led.sessions.tick(self.now_ms)
        self.pump()

    # At rest

    def rest(self) -> None:
        """All links are whole, and everything arrives; nothing waits any more."""
        for node in self.clients:
            self.hurry(node)
            if node not in self.up:
                self.link(node)
            elif self.clients[node].session.leader != self.led.own:
                self.turn_to_leader(node)
        for _ in range(10_000):
            self.pump()
            if not any(not wire.is_empty for wire in self.wires.values()):
                if not self.led.proposals:
                    break
                self.commit()
            self.arrive()
        else:
            raise AssertionError("it never comes to rest")
        self.check()

    def check(self) -> None:
        state = self.led.image.state
        assert image_digest(self.led.image) == image_digest(self.follower)
        lives = {(node, *self.boots[node]) for node in self.clients}
        check_rest(state, [client.session for client in self.clients.values()], lives)
        self.model.at_rest()
