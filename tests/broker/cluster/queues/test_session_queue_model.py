"""Whatever clients of one node do with a queue that is led elsewhere, and whatever becomes of its
leader: the model of a child.

Every message is in the queue, in one client's hands, or gone for a reason that a client knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from fluffle.protocol.methods import Basic, Channel, Confirm, Queue, encode_method, make
from tests.broker.cluster.queues.session_queue_harness import QueueHarness
from tests.suite.seeds import seeds
from tests.support.edge import Arrival, Client

SEEDS = 40
STEPS = 80
CLIENTS = 3


@dataclass
class Person:
    """Client with one channel."""

    client: Client
    published: list[bytes] = field(default_factory=list)
    """Bodies by publish number."""
    confirmed: int = 0
    held: dict[int, bytes] = field(default_factory=dict)
    """Bodies by delivery tag."""
    tags: set[str] = field(default_factory=set)
    """Tags of its consumers."""
    waits: bool = False
    """True while it waits for an answer."""
    cancelling: int = 0
    """Number of cancels without an answer."""
    is_behind: bool = False
    """True if it has published or settled anything behind such a cancel."""
    is_closing: bool = False
    """True while its channel closes, and another is to be opened."""


class Harness:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.harness = QueueHarness()
        self.people = [self.newcomer() for _ in range(CLIENTS)]
        self.published: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.seen: set[bytes] = set()
        self.purged = 0

    def newcomer(self) -> Person:
        client = self.harness.node.connect()
        client.confirm_select()
        return Person(client)

    # What happens

    def step(self) -> None:
        acts = [self.publish, self.settle, self.settle, self.get, self.consume]
        acts += [self.cancel, self.end, self.purge, self.disturb]
        act = self.random.choices(acts, weights=[8, 8, 4, 3, 3, 1, 1, 0.5, 3])[0]
        person = self.random.choice(self.people)
        if act == self.disturb or not person.waits:
            act(person)
        self.harness.node.run()
        self.look()

    def send(self, person: Person, *methods: Any) -> None:
        person.client.feed(*(encode_method(1, method) for method in methods))

    def publish(self, person: Person) -> None:
        count = self.random.choice((1, 1, 3, 20))
        bodies = [b"%d" % n for n in range(len(self.published), len(self.published) + count)]
        self.published.update(bodies)
        person.published += bodies
        person.is_behind |= person.cancelling > 0
        person.client.publish(*bodies)

    def settle(self, person: Person) -> None:
        if not person.held:
            return
        tag = self.random.choice(sorted(person.held))
        multiple = self.random.random() < 0.3
        tags = [each for each in person.held if each == tag or (multiple and each < tag)]
        how = self.random.choice(("ack", "ack", "requeue", "refuse", "reject"))
        bodies = [person.held.pop(each) for each in tags]
        person.is_behind |= person.cancelling > 0
        if how in ("ack", "reject"):
            self.gone.update(bodies)
        if how == "ack":
            self.send(person, Basic.Ack(tag, multiple))
        elif how == "refuse" and not multiple:
            self.send(person, Basic.Reject(tag, True))
        else:
            self.send(person, Basic.Nack(tag, multiple, how != "reject"))

    def get(self, person: Person) -> None:
        person.waits = True
        self.send(person, Basic.Get(queue="q"))

    def purge(self, person: Person) -> None:
        person.waits = True
        self.send(person, make(Queue.Purge, queue="q"))

    def consume(self, person: Person) -> None:
        tag = f"c{len(person.tags)}"
        if tag in person.tags:
            return
        person.waits = True
        prefetch = self.random.choice((0, 1, 2, 10))
        consume = make(Basic.Consume, queue="q", consumer_tag=tag)
        self.send(person, Basic.Qos(prefetch_count=prefetch), consume)

    def cancel(self, person: Person) -> None:
        if person.tags:
            tag = self.random.choice(sorted(person.tags))
            person.tags.discard(tag)
            person.cancelling += 1
            self.send(person, make(Basic.Cancel, consumer_tag=tag))

    def end(self, person: Person) -> None:
        """End a client; the outcome of a get or purge under way is unknown, so it is awaited.

        So is that of what a channel has yet to do when its socket goes, as it does all in order and
        a cancel waits for the leader: by RabbitMQ's rules what was published and not confirmed may
        be lost with the connection, and what was acknowledged may come again.
        """
        how = self.random.choice(("socket", "channel"))
        if how == "socket" and person.is_behind:
            return
        if how == "channel":
            self.send(person, Channel.Close(200, "", 0, 0), Channel.Open(), Confirm.Select())
            person.waits = person.is_closing = True
            person.held.clear()
        else:
            person.client.transport.lose()
            self.people[self.people.index(person)] = self.newcomer()

    def disturb(self, person: Person) -> None:
        del person
        far = self.harness.far
        how = self.random.choice((far.elect, far.cut, far.link, self.hold, self.commit))
        how()

    def hold(self) -> None:
        self.harness.far.is_committing = False

    def commit(self) -> None:
        self.harness.far.is_committing = True
        self.harness.far.touch()

    # What clients see

    def look(self) -> None:
        for person in self.people:
            for arrival in person.client.arrivals():
                self.see(person, arrival)

    def see(self, person: Person, arrival: Arrival) -> None:
        if person.is_closing:
            self.see_last(person, arrival)
        else:
            self.see_open(person, arrival)

    def see_last(self, person: Person, arrival: Arrival) -> None:
        """Handle what comes before a channel is closed, which may wait for settlements."""
        if isinstance(arrival.method, Basic.Deliver):
            self.seen.add(arrival.body)
        elif isinstance(arrival.method, Channel.CloseOk):
            person.is_closing = person.waits = person.is_behind = False
            person.cancelling = 0
            person.tags.clear()
            person.published.clear()
            person.confirmed = 0

    def see_open(self, person: Person, arrival: Arrival) -> None:
        method = arrival.method
        if isinstance(method, Basic.Deliver | Basic.GetOk):
            self.take(person, arrival)
        if isinstance(method, Basic.GetOk | Basic.GetEmpty | Queue.PurgeOk | Basic.ConsumeOk):
            person.waits = False
        if isinstance(method, Queue.PurgeOk):
            self.purged += method.message_count or 0
        elif isinstance(method, Basic.ConsumeOk):
            person.tags.add(str(method.consumer_tag))
        elif isinstance(method, Basic.CancelOk):
            person.cancelling -= 1
            person.is_behind &= person.cancelling > 0
        elif isinstance(method, Basic.Ack):
            last = method.delivery_tag or 0
            assert method.multiple or last == person.confirmed + 1
            assert person.confirmed < last <= len(person.published)
            person.confirmed = last
        else:
            assert not isinstance(method, Basic.Nack | Basic.Cancel | Channel.Close), str(arrival)

    def take(self, person: Person, arrival: Arrival) -> None:
        body = arrival.body
        assert body in self.published
        assert body not in self.gone, "what is gone has come again"
        others = [each for other in self.people for each in other.held.values()]
        assert body not in others, "two have it"
        if not arrival.method["redelivered"]:
            assert body not in self.seen, "somebody has had it before"
        self.seen.add(body)
        tag = arrival.method["delivery_tag"]
        assert isinstance(tag, int)
        person.held[tag] = body

    def rest(self) -> None:
        """All is well again, and everybody goes."""
        self.commit()
        self.harness.far.link()
        self.harness.node.run()
        self.look()
        for person in self.people:
            assert person.confirmed == len(person.published)
            assert not person.waits
            person.client.transport.lose()
        last = self.newcomer()
        self.people = [last]
        ready, unacked, consumers = self.harness.counts()
        assert (unacked, consumers) == (0, 0)
        for _ in range(ready):
            self.get(last)
            self.harness.node.run()
            self.look()
        assert len(last.held) == ready
        assert len(self.published) == len(self.gone) + self.purged + ready
        edge = self.harness.far.session
        assert (len(edge.pending), edge.unwanted) == (0, {})
        assert len(self.harness.queue._receipts) == 0


@seeds(SEEDS)
def test_no_message_is_lost_or_in_two_hands(seed: int) -> None:
    world = Harness(seed)
    for _ in range(STEPS):
        world.step()
    world.rest()
