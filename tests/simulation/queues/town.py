"""Everything that there is of queues in one run, and who sees all of it: a `Trade`."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from fluffle.broker.cluster.ports import Links
from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.queues.handout import Outcome
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import Config, Member, NodeId
from fluffle.raft.records import GroupId
from tests.broker.cluster.streams.ghost import check_rest
from tests.simulation.cluster import Cluster
from tests.simulation.facts import GroupFacts, Replica, Violation
from tests.simulation.process import Process, Tenant
from tests.simulation.profile import Profile
from tests.simulation.queues.book import Book
from tests.simulation.queues.happenings import draw_rates, kinds_of
from tests.simulation.queues.station import METADATA, Station
from tests.simulation.workload import Workload


class Town:
    """One run about queues."""

    def __init__(self) -> None:
        self.cluster: Cluster
        self.kinds = kinds_of(self)
        self.fixed: Collection[GroupId] = (METADATA,)
        self.frames = 0
        self.books: dict[GroupId, Book] = {}
        self._chance: Random
        self._lives: dict[NodeId, m.Boot] = {}
        self._next_group = METADATA + 1

    def shape(self, chance: Random, profile: Profile) -> None:
        """Streams are made for links that lose nothing but with themselves."""
        profile.network.is_stream = True
        profile.workload.rates = draw_rates(chance)

    def join(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._chance = cluster.clockwork.chance("town")
        cluster.watch.committed.append(self._committed)

    # Lives of processes

    def settle_in(self, process: Process, links: Links) -> Tenant:
        before = self._lives.get(process.node, m.Boot(0, 0))
        counter = before.counter + (self._chance.random() < 0.8)
        boot = self._lives[process.node] = m.Boot(counter, self._chance.getrandbits(62))
        for book in self.books.values():
            book.ghost.died(process.node)
        return Station(process, links, boot, self)

    def stations(self) -> list[Station]:
        """Of the processes that live."""
        found = (process.tenant for process in self.cluster.alive())
        return [station for station in found if isinstance(station, Station)]

    def boot_of(self, node: NodeId) -> m.Boot | None:
        """Of a process that lives."""
        return self._lives[node] if self.cluster.machines[node].process is not None else None

    # Queues come and go

    def draw_group(self) -> tuple[GroupId, tuple[tuple[str, int], ...]]:
        """An id that nobody has, and members."""
        group, self._next_group = self._next_group, self._next_group + 1
        names = self.cluster.names
        nodes = self._chance.sample(names, min(3, len(names)))
        return group, tuple((node, 1) for node in sorted(nodes))

    def defined(self, definition: QueueDefinition) -> None:
        members = tuple(Member(*member) for member in definition.members)
        self.cluster.registry.found(definition.id, Config(members, (), 1))

    def undefined(self, group: GroupId) -> None:
        self.cluster.registry.delete(self.cluster.registry.groups[group])

    def book(self, group: GroupId) -> Book:
        book = self.books.get(group)
        if book is None:
            book = self.books[group] = Book(group)
        return book

    def _committed(self, node: NodeId, replica: Replica, facts: GroupFacts, first: int) -> None:
        if facts.group == METADATA:
            return
        book = self.book(facts.group)
        for index in range(first, facts.commit + 1):
            entry, _ = facts.entries[index, facts.committed[index]]
            digest = book.committed(entry)
            if facts.digests.setdefault(index, digest) != digest:
                raise Violation(f"G7: {node} had another image of {facts.group} at {index}")

    # As trade

    def begin(self, workload: Workload) -> None:
        self.cluster.registry.create(list(self.cluster.names))

    def propose(self, workload: Workload, group: GroupId) -> None:
        """One message from anybody, or another definition."""
        stations = self.stations()
        station = workload.chance.choice(stations) if stations else None
        if station is None:
            return
        if group == METADATA:
            station.touch_definitions(self._chance.getrandbits(30))
        elif group in station.clients:
            station.clients[group].publish(1)
            station.ports[group].touch()

    def unfinished(self) -> str | None:
        """Everybody is answered; then all that is left is consumed."""
        for station in self.stations():
            if station.metadata._pending:
                return f"{station.process.node} waits for a change of definitions"
        for station in self.stations():
            for group, client in station.clients.items():
                if len(client.edge.pending):
                    return f"{station.process.node} waits for an answer of {group}"
                if client.ghost.asked:
                    return f"{client.ghost.asked} of {group} have no answer"
        return self._undrained()

    def _undrained(self) -> str | None:
        """What is in hands is acknowledged, and somebody is there to take what is not."""
        left: str | None = None
        for spec in self.cluster.registry.living():
            if spec.group == METADATA:
                continue
            count = self.book(spec.group).image.state.live_count
            clients = [(s.clients.get(spec.group), s) for s in self.stations()]
            if any(client is None for client, _ in clients):
                return f"{spec.group} is not known everywhere"
            if not count:
                continue
            left = f"{count} messages are left in {spec.group}"
            for client, station in clients:
                assert client is not None
                if held := client.in_hands():
                    client.settle(held, Outcome.ACKED)
                if not client.consumers:
                    client.attach(credit=1_000, no_ack=False, prefetch=0)
                station.ports[spec.group].touch()
        return left

    def end(self) -> None:
        """G13."""
        lives = {(node, *boot) for node, boot in self._lives.items()}
        for spec in self.cluster.registry.living():
            if spec.group == METADATA:
                continue
            book = self.book(spec.group)
            book.compare()
            edges = [station.clients[spec.group].edge for station in self.stations()]
            check_rest(book.image.state, edges, lives)
            book.ghost.at_rest()
