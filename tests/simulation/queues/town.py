"""Everything that there is of queues in one run, and who sees all of it: a `Trade`."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from random import Random

from fluffle.broker.cluster.owner import METADATA_GROUP
from fluffle.broker.cluster.ports import Links
from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.queues.handout import Outcome
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import Config, NodeId
from fluffle.raft.records import GroupId
from tests.broker.cluster.streams.ghost import check_rest
from tests.simulation.clockwork import SECOND_US
from tests.simulation.cluster import Cluster
from tests.simulation.facts import GroupFacts, Replica, Violation
from tests.simulation.process import Process, Tenant
from tests.simulation.profile import Profile
from tests.simulation.queues.book import Book
from tests.simulation.queues.happenings import draw_rates, kinds_of
from tests.simulation.queues.station import Station
from tests.simulation.workload import Workload

SUSPECTED_US = 15 * SECOND_US
"""After less nobody is given up, whatever clocks do: by theirs it takes a minute."""


class Town:
    """One run about queues."""

    def __init__(self) -> None:
        self.cluster: Cluster
        self.kinds = kinds_of(self)
        self.fixed: Collection[GroupId] = (METADATA_GROUP,)
        self.frames = 0
        self.books: dict[GroupId, Book] = {}
        self.chance: Random
        self.is_impatient = False
        """Whether nodes are given up after seconds: a minute is long in a run."""
        self.ambushes: list[str] = []
        """What befalls whoever commits a hand-out next: see `happenings.ambush`."""
        self._lives: dict[NodeId, m.Boot] = {}
        self._offsets_ms: dict[NodeId, int] = {}
        self._linked_us: dict[tuple[NodeId, NodeId], int] = {}

    def shape(self, chance: Random, profile: Profile) -> None:
        """Streams are made for links that lose nothing but with themselves."""
        profile.network.is_stream, profile.network.apart_us = True, 1
        profile.workload.rates = draw_rates(chance)

    def join(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.chance = cluster.clockwork.chance("town")
        apart_ms = self.chance.choice((0, 100, 3_600_000))
        self._offsets_ms = {name: self.chance.randint(0, apart_ms) for name in cluster.names}
        self.is_impatient = self.chance.random() < 0.4
        cluster.watch.committed.append(self._committed)

    # Lives of processes

    def settle_in(self, process: Process, links: Links) -> Tenant:
        before = self._lives.get(process.node, m.Boot(0, 0))
        counter = before.counter + (self.chance.random() < 0.8)
        boot = self._lives[process.node] = m.Boot(counter, self.chance.getrandbits(62))
        for book in self.books.values():
            book.ghost.died(process.node)
        return Station(process, links, boot, self)

    def stations(self) -> list[Station]:
        """Of the processes that live."""
        found = (process.tenant for process in self.cluster.alive())
        return [station for station in found if isinstance(station, Station)]

    def linked(self, node: NodeId, other: NodeId) -> None:
        """A node has a new link to another; each has one to itself."""
        self._linked_us[node, other] = self.cluster.clockwork.now_us

    def was_just_linked(self, other: NodeId) -> bool:
        """Whether whoever may lead has a new link to this node, so that it cannot be suspected."""
        if self.is_impatient:
            return False
        since_us = self.cluster.clockwork.now_us - SUSPECTED_US
        names = self.cluster.names
        return all(self._linked_us.get((node, other), 0) > since_us for node in names)

    def wall_offset_ms(self, node: NodeId) -> int:
        """How far the clock on a node's wall is ahead of what its machine counts."""
        return self._offsets_ms[node]

    def boot_of(self, node: NodeId) -> m.Boot | None:
        """Of a process that lives."""
        return self._lives[node] if self.cluster.machines[node].process is not None else None

    # Queues come and go

    def defined(self, definition: QueueDefinition) -> None:
        self.cluster.registry.found(definition.id, Config.initial(definition.founders))

    def members_of(self, group: GroupId) -> tuple[tuple[NodeId, int], ...]:
        """Those that have not lost what they had."""
        spec = self.cluster.registry.groups[group]
        return tuple(member for member in spec.config.members if member not in spec.burnt)

    def undefined(self, group: GroupId) -> None:
        self.cluster.registry.delete(self.cluster.registry.groups[group])

    def book(self, group: GroupId) -> Book:
        book = self.books.get(group)
        if book is None:
            book = self.books[group] = Book(group, self.was_just_linked)
        return book

    def _committed(self, node: NodeId, replica: Replica, facts: GroupFacts, first: int) -> None:
        if facts.group == METADATA_GROUP:
            return
        book = self.book(facts.group)
        before = len(book.ghost.handed)
        for index in range(first, facts.commit + 1):
            entry, _ = facts.entries[index, facts.committed[index]]
            digest = book.committed(entry)
            if facts.digests.setdefault(index, digest) != digest:
                raise Violation(f"G7: {node} had another image of {facts.group} at {index}")
        if self.ambushes and len(book.ghost.handed) > before:
            self._strike(node, self.ambushes.pop())

    def _strike(self, leader: NodeId, ambush: str) -> None:
        """Messages are handed out, and mostly are not where they are to be."""
        clockwork, delay_us = self.cluster.clockwork, self.cluster.network.profile.delay_us
        soon_us = int(self.chance.random() * 3 * delay_us)
        if ambush == "reset":
            other = self.chance.choice([name for name in self.cluster.names if name != leader])
            clockwork.after(soon_us, self.cluster.network.reset, leader, other)
        else:
            clockwork.after(soon_us, partial(self.cluster.kill, leader, is_silent=False))
            back_us = soon_us + int((0.5 + self.chance.random()) * SECOND_US)
            clockwork.after(back_us, self.cluster.start, leader)

    # As trade

    def begin(self, workload: Workload) -> None:
        self.cluster.registry.create(list(self.cluster.names))

    def propose(self, workload: Workload, group: GroupId) -> None:
        """One message from anybody, or another definition."""
        stations = self.stations()
        station = workload.chance.choice(stations) if stations else None
        if station is None:
            return
        if group == METADATA_GROUP:
            station.touch_definitions(self.chance.getrandbits(30))
        elif group in station.clients:
            station.clients[group].publish(1)
            station.ports[group].touch()

    def unfinished(self) -> str | None:
        """Everybody is answered; then all that is left is consumed, and nothing is of the dead."""
        self.ambushes.clear()
        for station in self.stations():
            if station.questions:
                return f"{station.process.node} is not told how many messages there are"
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
            if spec.group == METADATA_GROUP:
                continue
            state = self.book(spec.group).image.state
            if not {session.id[:3] for session in state.sessions.values()} <= self._alive():
                left = f"sessions of ended lives are in {spec.group}"
            count = state.live_count
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

    def _alive(self) -> set[tuple[NodeId, int, int]]:
        """Lives that last."""
        return {(node, *boot) for node, boot in self._lives.items()}

    def end(self) -> None:
        """G13."""
        for spec in self.cluster.registry.living():
            if spec.group == METADATA_GROUP:
                continue
            book = self.book(spec.group)
            book.compare()
            edges = [station.clients[spec.group].edge for station in self.stations()]
            check_rest(book.image.state, edges, self._alive())
            book.ghost.at_rest()
