"""The home of a classic queue, its edges, a client of its own, and a network, all by hand.

As the world of streams, with a queue that one process leads for as long as it lives, and whose
messages are durable when the test says so.
"""

from __future__ import annotations

from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions.codec import decode, encode
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient
from fluffle.broker.cluster.queues.classic_queues import ClassicQueueHost
from fluffle.broker.durability.durability import Durability
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.publish_target import EnqueueResult, PartialResult
from fluffle.broker.queues.queue_api import (
    FINAL,
    UNLIMITED,
    Consumer,
    DeliveryBatch,
    Outcome,
    SharedCredit,
)
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.settlement import HOW
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.store import Writer
from tests.broker.cluster.queue_sessions.queue_client import QueueClient, UniqueNames
from tests.broker.cluster.queue_sessions.reference_model import ReferenceModel
from tests.broker.cluster.queue_sessions.session_harness import GROUP, ManualLink
from tests.broker.queues.queue_harness import lane_of
from tests.broker.queues.quorum.sample_facts import ORIGIN
from tests.storage.support import ManualWriter
from tests.support.fakes import Scheduler
from tests.support.no_timeout import NoTimeoutSink
from tests.support.payloads import joined
from tests.support.queue_host import FakeQueueHost
from tests.support.store import open_store

HOME = "home"
GROUPS = (1, 2)


class ObservedQueue(Queue):
    """An engine of which the model hears everything."""

    model: ReferenceModel
    purged_below = 0

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool = False,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult | PartialResult:
        first = lane_of(self).numbers.next
        for place, content in enumerate(contents):
            assert content not in self.model.stored, f"{content!r} is enqueued twice"
            self.model.stored[content] = first + place
        return super().enqueue(
            origins, contents, content_bytes, persistent=persistent, expiration_ms=expiration_ms
        )

    def purge(self) -> int:
        self.purged_below = lane_of(self).numbers.next
        return super().purge()

    def account_delivery(self, delivery_batch: DeliveryBatch) -> None:
        super().account_delivery(delivery_batch)
        self.model.handed.update(
            (n, delivery_batch.counts.acquired) for n in delivery_batch.sequences
        )
        if delivery_batch.holder.no_ack:
            self.model.gone.update(delivery_batch.sequences)

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> None:
        for sequence in delivery_batch.sequences[start:stop]:
            if outcome in FINAL:
                self.model.gone.add(sequence)
            else:
                self.model.back[sequence, delivery_batch.counts.acquired] = HOW[outcome]
        super().settle(delivery_batch, start, stop, outcome)


class LocalSink(NoTimeoutSink):
    """The client of a consumer on the home itself, who acknowledges on request."""

    def __init__(self, model: ReferenceModel, room: int = UNLIMITED) -> None:
        self.model = model
        self.left = room
        self.delivery_batches: list[DeliveryBatch] = []
        self.contents: list[bytes] = []

    def room(self, consumer: Consumer) -> int:
        return self.left

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        self.left -= len(delivery_batch.contents)

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self.delivery_batches.append(delivery_batch)
        self.contents += delivery_batch.contents
        for sequence in delivery_batch.sequences:
            token = sequence, delivery_batch.counts.acquired
            assert token not in self.model.tokens, f"{token} is delivered twice"
            self.model.tokens.add(token)
            self.model.check_acked(sequence)
            assert delivery_batch.redelivered or sequence not in self.model.seen, (
                "G1: it was seen before"
            )
            self.model.seen.add(sequence)

    def cancelled(self, consumer: Consumer) -> None:
        raise AssertionError("nobody deletes the queue")

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""

    def settle(self, outcome: Outcome) -> None:
        """All that it has."""
        delivery_batches, self.delivery_batches = self.delivery_batches, []
        for delivery_batch in delivery_batches:
            for sequence in delivery_batch.sequences if outcome in FINAL else ():
                self.model.acked[sequence, delivery_batch.counts.acquired] = HOME
            delivery_batch.holder.queue.settle(
                delivery_batch, 0, len(delivery_batch.contents), outcome
            )


class ClassicHostHarness:
    """Host of a classic queue, its clients at other nodes and here, and the links between them."""

    def __init__(self, nodes: tuple[str, ...] = ("near", "far"), *, durable: bool = True) -> None:
        self.spec = QueueSpec("q", durable=durable)
        self.disk = MemoryDisk()
        self.model = ReferenceModel()
        self.names = UniqueNames()
        self.now_ms = 0
        self.term = 0
        self.unused = 0
        """How often the last consumer went, and it was one of an edge."""
        self.boots = {node: m.SessionBoot(1, 100 + at) for at, node in enumerate(nodes)}
        self.clients = {node: self.start(node) for node in nodes}
        self.wires: dict[tuple[str, str], ManualLink] = {}
        """Links by client node and direction."""
        self.up: set[str] = set()
        self.begin()
        for node in nodes:
            self.link(node)

    # The home

    def begin(self) -> None:
        """A life of the home's process."""
        self.term += 1
        self.scheduler = Scheduler()
        turn = Turn(self.scheduler.call_soon)
        durability = Durability(open_store(self.disk, self.make_writer), turn)
        journals = durability.journals
        journal = (journals.create if self.term == 1 else journals.reopen)(GROUPS)
        definition = QueueDefinition(self.spec, GROUPS, id=GROUP, home=HOME)
        self.queue = ObservedQueue(
            self.spec,
            FakeQueueHost(turn.touch_queue),
            QueueStores(journal if self.spec.durable else None),
            definition=definition,
        )
        self.queue.model = self.model
        if self.spec.durable and self.term > 1:
            self.queue.recover()
        self.own = m.Leader(HOME, m.SessionBoot(self.term, 7), self.term)
        self.classic_host = ClassicQueueHost(
            self.queue,
            self.own,
            vhost="/",
            commits=durability.commits,
            on_unused=self.on_unused,
            on_output=lambda: None,
        )
        self.neighbours: list[LocalSink] = []

    def make_writer(self, disk: Disk, wake: object) -> Writer:
        assert callable(wake)
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def on_unused(self, queue: Queue) -> None:
        assert queue.consumer_count == 0
        self.unused += 1

    def commit(self) -> None:
        """Commit on the home node."""
        self.writer.step()
        self.pump()

    def stored(self) -> dict[bytes, int]:
        """Content of the home node's disk, read without changing it."""
        durability = Durability(open_store(self.disk), Turn(Scheduler().call_soon))
        journal = durability.journals.reopen(GROUPS)
        return {
            content: sequence
            for stretch in journal.recover().stored
            for part in journal.load(stretch.first, stretch.stop)
            for sequence, content in zip(part.sequences, part.contents, strict=True)
        }

    def restart_home(self) -> None:
        """Kill the home's process and start it again; client nodes learn that when they are linked
        again."""
        stored, before = self.stored(), self.model
        for content in before.confirmed:
            sequence = before.stored[content]
            is_done = sequence in before.gone or sequence < self.queue.purged_below
            assert is_done or content in stored, f"{content!r} was confirmed, and is lost"
        for client in self.clients.values():
            client.reported(client.session.lost())
        self.model = ReferenceModel(
            stored=stored, unknown_below=max(stored.values(), default=0) + 1
        )
        for client in self.clients.values():
            client.model = self.model
            client.getting.clear()
            assert client.consumers == []
        self.wires.clear()
        self.begin()
        for node in self.clients:
            self.link(node)

    def neighbour(
        self, room: int = UNLIMITED, *, prefetch: int = 0, priority: int = 0
    ) -> LocalSink:
        """A consumer on the home itself."""
        sink = LocalSink(self.model, room)
        consumer = Consumer(
            "own", self.queue, sink, shared=SharedCredit(), prefetch=prefetch, priority=priority
        )
        self.queue.attach(consumer)
        self.neighbours.append(sink)
        self.pump()
        return sink

    def publish_here(self, count: int = 1) -> None:
        """Publish by a client of the home node."""
        contents = self.names.contents(count)
        self.queue.enqueue([ORIGIN] * count, contents, sum(map(len, contents)), persistent=True)
        self.pump()

    # Links

    def wire(self, node: str, direction: str) -> ManualLink:
        return self.wires.setdefault((node, direction), ManualLink())

    def link(self, node: str) -> None:
        """A new link to the home is open at both ends."""
        for direction in ("to", "from"):
            self.wire(node, direction).reset()
        self.up.add(node)
        self.classic_host.sessions.linked(node, self.boots[node])
        self.clients[node].session.connect(self.own)
        self.pump()

    def cut(self, node: str) -> None:
        """Cut the link to a node."""
        self.up.discard(node)
        self.classic_host.sessions.unlinked(node, self.now_ms)
        self.clients[node].session.connect(None)

    def pump(self) -> None:
        """Whatever has something to send gives it to the network."""
        for node, client in self.clients.items():
            while (sent := client.session.output()) is not None:
                self.wire(node, "to").put(joined(encode(sent[1])))
        self.scheduler.run()
        for node, frame in self.classic_host.sessions.output(lambda _node: True):
            self.wire(node, "from").put(joined(encode(frame)))

    def arrive(self, at: int = 0, link: int = 0) -> None:
        """The first frame of some link."""
        busy = [(key, wire) for key, wire in self.wires.items() if not wire.is_empty]
        if not busy:
            return
        (node, _direction), wire = busy[at % len(busy)]
        links = [each for each in wire.links if each]
        frame = decode(links[link % len(links)].popleft())
        if isinstance(frame, m.ClientFrame):
            self.classic_host.sessions.receive(node, frame)
        else:
            self.clients[node].hear(frame)
        self.pump()

    def drop(self, at: int = 0) -> None:
        """The tail of a link that is no more is lost."""
        tails = [wire for wire in self.wires.values() if any(wire.links[:-1])]
        if tails:
            wire = tails[at % len(tails)]
            wire.links = [wire.links[-1]]

    def lose_all(self, node: str) -> None:
        """Whatever is on its way to a node."""
        self.wires[node, "from"] = ManualLink()

    # Edges

    def start(self, node: str) -> QueueClient:
        return QueueClient(node, SessionClient(GROUP, self.boots[node]), self.model, self.names)

    def restart(self, node: str) -> None:
        """The process of an edge ends, and begins anew."""
        counter, nonce = self.boots[node]
        self.boots[node] = m.SessionBoot(counter + 1, nonce + 1_000)
        self.model.died(node)
        self.clients[node] = self.start(node)
        self.link(node)

    def tick(self) -> None:
        self.classic_host.sessions.tick(self.now_ms)
        self.pump()

    # At rest

    def rest(self) -> None:
        """All links are whole, everything arrives, and everything is durable; nothing waits."""
        for node, client in self.clients.items():
            client.session.deferrable = 0
            if node not in self.up:
                self.link(node)
        for _ in range(10_000):
            self.pump()
            if any(not wire.is_empty for wire in self.wires.values()):
                self.arrive()
            elif self.writer.step():
                self.pump()
            else:
                break
        else:
            raise AssertionError("it never comes to rest")
        self.check()

    def check(self) -> None:
        """G13: nothing is pending, and hands are as the home has it."""
        home = self.classic_host.home
        lives = {(node, *boot) for node, boot in self.boots.items()}
        assert {session[:3] for session in home.sessions.ids()} <= lives
        sessions = [home.sessions.key_of(each) or 0 for each in home.sessions.ids()]
        keys = [key for session in sessions for key in home.holders.of_session(session)]
        on_record: dict[int, tuple[int, int]] = {}
        served = []
        for key in keys:
            held = home.holders.get(key)
            assert held is not None
            if isinstance(held.holder, Consumer) and not held.is_detached:
                served.append(key)
            for _holder, ordinal, run in home.holders.tokens_of(key):
                on_record |= dict.fromkeys(run, (key, ordinal))
        held_there: dict[int, tuple[int, int]] = {}
        for client in self.clients.values():
            assert list(client.session.pending) == []
            for holder, ordinal, run in client.session.unacked:
                held_there |= dict.fromkeys(run, (holder, ordinal))
        assert held_there == on_record
        assert sorted(served) == sorted(
            key for client in self.clients.values() for key in client.session.consumers
        )
        assert self.queue.consumer_count == len(served) + len(self.neighbours)
        self.model.at_rest()
