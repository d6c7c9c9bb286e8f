"""Everything that there is of queues in one run, and who sees all of it: an `Application`."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from random import Random

from fluffle.broker.cluster.ports import METADATA_GROUP, Links
from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.durability.change_codec import decode_proposals
from fluffle.broker.metadata.change import Change, Kind
from fluffle.broker.metadata.state import MetadataState, ProposalOutcome
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import ARRIVALS
from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import DATA, Entry, GroupId
from fluffle.raft.output import ConfigChange
from tests.broker.cluster.queue_sessions.queue_client import UniqueNames
from tests.broker.cluster.queue_sessions.reference_model import check_rest
from tests.broker.queues.quorum.single_active_checks import SingleActiveChecks
from tests.simulation.cluster import Cluster
from tests.simulation.facts import GroupFacts, Replica, Violation
from tests.simulation.network import LinkProfile
from tests.simulation.process import GroupServices, Process
from tests.simulation.profile import Profile
from tests.simulation.queues.client_actions import draw_rates, kinds_of
from tests.simulation.queues.connections import Connections, is_quorum
from tests.simulation.queues.consumer_priority_check import ConsumerPriorityCheck
from tests.simulation.queues.dead_letter_checks import DeadLetterChecks
from tests.simulation.queues.expiring_queues import ExpiringQueues
from tests.simulation.queues.log_compaction_checks import is_left
from tests.simulation.queues.operator import Operator
from tests.simulation.queues.queue_checker import QueueChecker
from tests.simulation.queues.queue_expiry_checks import QueueExpiryChecks
from tests.simulation.queues.queue_node import QueueNode
from tests.simulation.queues.queue_time_checks import QueueTimeChecks
from tests.simulation.queues.redeclared_queues import RedeclaredQueues
from tests.simulation.queues.removal_checks import RemovalChecks
from tests.simulation.queues.rolling_upgrade import EntryVersionChecks, InstalledVersions
from tests.simulation.queues.settings_checks import PolicyHistory, SettingsChecks
from tests.simulation.queues.topology_checks import TopologyChecks
from tests.simulation.registry import GroupSpec
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.workload import Workload

DAY_MS = 24 * 3_600_000
"""Time of day at the start by a right clock: one that is an hour slow has a time of day, too."""

SUSPECTED_US = 15 * SECOND_US
"""After less nobody is given up, whatever clocks do: by theirs it takes a minute."""


class QueueCluster:
    """Application of a run about queues."""

    def __init__(self) -> None:
        self.cluster: Cluster
        self.kinds = kinds_of(self)
        self.fixed: Collection[GroupId] = (METADATA_GROUP,)
        self.frames = 0
        self.checkers: dict[GroupId, QueueChecker] = {}
        self.names = UniqueNames()
        self.dead_letter_checks = DeadLetterChecks(self._is_gone)
        self.policy_history = PolicyHistory()
        self.queue_time_checks = QueueTimeChecks()
        self.removal_checks = RemovalChecks()
        self.definitions = MetadataState()
        """Definitions as their log makes them."""
        self.chance: Random
        self.quorum = QuorumConfig()
        self._consumer_priority_check: ConsumerPriorityCheck
        self.operator: Operator
        self.connections: Connections
        self.topology_checks: TopologyChecks
        self.redeclared_queues: RedeclaredQueues
        self.haste = 1
        """How much sooner than others clients give up what they wait for."""
        self.is_impatient = False
        """True if nodes are given up after seconds: a minute is long in a run."""
        self.ambushes: list[str] = []
        """Faults for the next node that commits a delivery: see `happenings.ambush`."""
        self.is_arrival_awaited = False
        """True if whoever has sent the next dead letter that arrives dies before it hears of it."""
        self.in_the_dark: NodeId | None = None
        """Node that does not learn of a change of policies, and is to lead a queue under it."""
        self.installed_versions: InstalledVersions
        self._profile: Profile
        self._lives: dict[NodeId, m.SessionBoot] = {}
        self._linked_us: dict[tuple[NodeId, NodeId], int] = {}

    def shape(self, chance: Random, profile: Profile) -> None:
        """Links lose what they have no room for, and all that is under way when they are lost."""
        self._profile = profile
        network = profile.network
        network.is_stream, network.apart_us, network.links = True, 1, draw_links(chance)
        profile.workload.rates = draw_rates(chance)
        profile.fault_rates["set wall"] = chance.choice((0.0, 3.0, 20.0))

    def join(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.chance = cluster.clockwork.chance("town")
        apart_ms = self.chance.choice((0, 100, 3_600_000))
        for name in cluster.names:
            cluster.machines[name].wall_ahead_ms = DAY_MS + self.chance.randint(0, apart_ms)
        self.is_impatient = self.chance.random() < 0.4
        self.haste = self.chance.choice((1, 1, 20))
        self.quorum = QuorumConfig(
            leader_locator=self.chance.choice(("client-local", "balanced")),
            reconciliation=self.chance.random() < 0.5,
            reconciliation_interval_s=self.chance.choice((5, 20)),
            target_group_size=self.chance.choice((None, 3, 5)),
        )
        self._consumer_priority_check = ConsumerPriorityCheck(self, self.chance)
        self.operator = Operator(self, cluster.clockwork.chance("operator"))
        self.connections = Connections(self, cluster.clockwork.chance("connections"))
        self.expiring_queues = ExpiringQueues(self, cluster.clockwork.chance("departures"))
        self.topology_checks = TopologyChecks(self)
        self.redeclared_queues = RedeclaredQueues(self)
        self.installed_versions = InstalledVersions(cluster, cluster.clockwork.chance("fluffles"))
        if self.installed_versions.is_mixed:
            self.installed_versions.shape(self._profile)
            self.quorum = replace(self.quorum, reconciliation=False)
        cluster.vital = METADATA_GROUP
        cluster.registry.found(
            METADATA_GROUP, Configuration.initial(cluster.names), is_defined=True
        )
        cluster.watch.is_left = is_left
        cluster.watch.committed.append(self._committed)
        cluster.watch.configured.append(self._configured)
        cluster.watch.died.append(self._died)

    # Lives of processes

    def promote(self, process: Process, links: Links) -> GroupServices:
        """Make the services of a process.  As in production the counter of a first life is not 0,
        for it is the term of the classic queues there, and a frame of term 0 is a question."""
        if process.node in self._lives:
            self.installed_versions.begins_again(process.node)
        before = self._lives.get(process.node, m.SessionBoot(1, 0))
        counter = before.counter + (self.chance.random() < 0.8)
        boot = self._lives[process.node] = m.SessionBoot(counter, self.chance.getrandbits(62))
        return self.made_node(process, links, boot)

    def made_node(self, process: Process, links: Links, boot: m.SessionBoot) -> QueueNode:
        """Make the services of a process."""
        return QueueNode(process, links, boot, self)

    def _died(self, node: NodeId) -> None:
        """A process, and its clients with it."""
        for checker in self.checkers.values():
            checker.model.died(node)

    def queue_nodes(self) -> list[QueueNode]:
        """Queue nodes of the live processes."""
        found = (process.services for process in self.cluster.alive())
        return [queue_node for queue_node in found if isinstance(queue_node, QueueNode)]

    def open_nodes(self) -> list[QueueNode]:
        """Nodes with current definitions, which let clients in."""
        return [queue_node for queue_node in self.queue_nodes() if queue_node.hosting._is_current]

    def linked(self, node: NodeId, other: NodeId) -> None:
        """A node has a new link to another; each has one to itself."""
        self._linked_us[node, other] = self.cluster.clockwork.now_us

    def was_just_linked(self, other: NodeId) -> bool:
        """True if whoever may lead has a new link to this node, so that it cannot be suspected."""
        if self.is_impatient:
            return False
        since_us = self.cluster.clockwork.now_us - SUSPECTED_US
        names = self.cluster.names
        return all(self._linked_us.get((node, other), 0) > since_us for node in names)

    def wall_ahead_ms(self, node: NodeId) -> int:
        """How far the clock on a node's wall is ahead of what its machine counts."""
        return self.cluster.machines[node].wall_ahead_ms

    def counts(self) -> list[int]:
        """Milliseconds counted by all machines."""
        now_us = self.cluster.clockwork.now_us
        return [machine.clock_ms(now_us) for machine in self.cluster.machines.values()]

    def boot_of(self, node: NodeId) -> m.SessionBoot | None:
        """Boot of a live process."""
        return self._lives[node] if self.cluster.machines[node].process is not None else None

    # Queues come and go

    def checker(self, group: GroupId) -> QueueChecker:
        return self.checkers[group]

    def _is_gone(self, group: GroupId) -> bool:
        return self.cluster.registry.groups[group].is_deleted

    def _define(self, entry: Entry) -> None:
        """Definitions have changed, as all will know; and so has who is wanted where."""
        if entry.kind != DATA:
            return
        for proposal in decode_proposals(entry.payload):
            before = self.definitions.completed(proposal.change).removes
            if self.definitions.apply(proposal) is not ProposalOutcome.APPLIED:
                continue
            if any(fact.kind is Kind.POLICY for fact in (*before, *proposal.change.puts)):
                self.policy_history.note(self.definitions)
            for fact in before:
                if isinstance(fact.value, QueueDefinition) and is_quorum(fact.value):
                    self.cluster.registry.delete(self._spec_of(fact.value))
            self._know_nodes(proposal.change)
            for fact in proposal.change.puts:
                if isinstance(fact.value, QueueDefinition) and is_quorum(fact.value):
                    self._defined(fact.value)

    def _know_nodes(self, change: Change) -> None:
        """Some have come or gone: definitions are to be there, or not any more."""
        wanted = self.cluster.registry.groups[METADATA_GROUP].wanted
        wanted.difference_update(fact.key[0] for fact in change.removes if fact.kind is Kind.NODE)
        wanted.update(str(fact.key[0]) for fact in change.puts if fact.kind is Kind.NODE)

    def may_be(self, node: NodeId, incarnation: int) -> bool:
        """True if a node may still be that member of the group of definitions, or become it."""
        burnt = self.cluster.registry.groups[METADATA_GROUP].burnt
        return Member(node, incarnation) not in burnt

    def _spec_of(self, definition: QueueDefinition) -> GroupSpec:
        return self.cluster.registry.groups[definition.id]

    def _defined(self, definition: QueueDefinition) -> None:
        if definition.id not in self.checkers:
            config = Configuration.initial(definition.founders)
            self.cluster.registry.found(definition.id, config, is_defined=True)
            checker = QueueChecker(
                definition,
                self.was_just_linked,
                self.names,
                self.dead_letter_checks,
                born_us=self.cluster.clockwork.now_us,
                settings_checks=SettingsChecks(definition.spec, self.policy_history, definition.id),
                versions=EntryVersionChecks(definition, self.installed_versions.reads),
                queue_expiry_checks=QueueExpiryChecks(definition.spec, self.counts()),
            )
            if definition.spec.single_active_consumer:
                checker.single_active_checks = SingleActiveChecks()
            self.checkers[definition.id] = checker
            self._look_for_founders(definition)
        self._spec_of(definition).wanted = set(definition.wanted)
        self.removal_checks.defined(definition, self.cluster.names)

    def _configured(self, node: NodeId, change: ConfigChange) -> None:
        """A node has reported a committed configuration."""
        del node
        if change.group != METADATA_GROUP:
            groups = self.cluster.registry.groups
            burnt = groups[METADATA_GROUP].burnt
            self.removal_checks.configured(groups[change.group], change.index, change.config, burnt)

    def _look_for_founders(self, definition: QueueDefinition) -> None:
        """A queue of which half of the founders were lost before it was declared is never led.

        Of real nodes none that has lost its disk is taken for alive; here they are let in at once.
        """
        burnt = self.cluster.registry.groups[METADATA_GROUP].burnt
        lost = [node for node, life in definition.lives if Member(node, life) in burnt]
        self._spec_of(definition).burnt.update(Member(node, 1) for node in lost)
        if 2 * len(lost) >= len(definition.founders):
            self._give_up(definition)

    def _give_up(self, definition: QueueDefinition) -> None:
        """Delete a queue, as its declarer would, as long as it exists."""
        if self._spec_of(definition).is_deleted:
            return
        for queue_node in self.open_nodes()[:1]:
            queue_node.defining.delete(definition.spec.name)
        self.cluster.clockwork.after(SECOND_US, self._give_up, definition)

    def _committed(self, node: NodeId, replica: Replica, facts: GroupFacts, first: int) -> None:
        if facts.group == METADATA_GROUP:
            for index in range(first, facts.commit + 1):
                self._define(facts.entries[index, facts.committed[index]][0])
            return
        checker = self.checker(facts.group)
        self._check_queue_time()
        checker.remembers_arrivals = self._remembers_arrivals(node, checker)
        before, changes = len(checker.model.handed), checker.settings_checks.changes
        for index in range(first, facts.commit + 1):
            entry, _ = facts.entries[index, facts.committed[index]]
            digest = checker.committed(entry)
            self.queue_time_checks.check(checker.queue_model.time_ms)
            if facts.digests.setdefault(index, digest) != digest:
                raise Violation(f"G7: {node} had another image of {facts.group} at {index}")
        if self.ambushes and len(checker.model.handed) > before:
            self._strike(node, self.ambushes.pop())
        if self.in_the_dark is not None and checker.settings_checks.changes > changes:
            self._hand_over(node, facts.group, self.in_the_dark)
            self.in_the_dark = None
        if self.is_arrival_awaited and checker.sources:
            self._strike_sender(checker.sources.pop())
        checker.sources.clear()

    def _remembers_arrivals(self, node: NodeId, checker: QueueChecker) -> bool:
        """True if who leads a queue has known ever since it was there that all read of arrivals."""
        leading = [each for each in self._leading(checker.group) if each.process.node == node]
        names = self.cluster.names
        return bool(leading) and all(
            leading[0].peer_versions.since_us(name, ARRIVALS) < checker.born_us for name in names
        )

    def _watch_clocks(self) -> None:
        """Also while nothing is committed: a stamp may be older than the first that is."""
        self._check_queue_time()
        self.cluster.clockwork.after(SECOND_US // 10, self._watch_clocks)

    def _check_queue_time(self) -> None:
        """Check queue times against all present clocks."""
        days = {
            (each.process.node, each.process.boot): epoch_ms + each.clock.now_ms()
            for each in self.queue_nodes()
            if (epoch_ms := each.day._epoch_ms) is not None
        }
        self.queue_time_checks.look(self.counts(), days)

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

    def _hand_over(self, leader: NodeId, group: GroupId, successor: NodeId) -> None:
        process = self.cluster.machines[leader].process
        if process is not None:
            process.feed(transferred, process, group, successor)

    def _strike_sender(self, source: GroupId) -> None:
        """The next leader knows of no arrival, and sends anew."""
        for queue_node in self._leading(source):
            self.is_arrival_awaited = False
            self._strike(queue_node.process.node, "crash")

    # As application

    def serves(self, node: NodeId) -> bool:
        """Once it knows what all know."""
        return any(queue_node.process.node == node for queue_node in self.open_nodes())

    def begin(self, workload: Workload) -> None:
        self._watch_clocks()
        self.operator.begin(workload)
        self.connections.begin(workload)
        self.expiring_queues.begin(workload)
        self.installed_versions.upgrade(workload)
        self.topology_checks.begin(workload)
        self.redeclared_queues.begin(workload)

    def propose(self, workload: Workload, group: GroupId) -> None:
        """Propose a message from some client, or another definition."""
        queue_nodes = self.open_nodes()
        queue_node = workload.chance.choice(queue_nodes) if queue_nodes else None
        if queue_node is None:
            return
        if group == METADATA_GROUP:
            queue_node.defining.touch(self.chance.getrandbits(30))
        elif group in queue_node.clients:
            queue_node.clients[group].publish(1)

    def _know_of_others(self) -> None:
        """Check that no node takes another to be further than it is."""
        revisions = {
            each.process.node: each.metadata.state.last_revision for each in self.queue_nodes()
        }
        for queue_node in self.queue_nodes():
            for node, other in queue_node.applied_barrier._others.items():
                if other.reached > revisions.get(node, other.reached):
                    raise Violation(f"everywhere: {node} is taken to be at {other.reached}")

    def unfinished(self) -> str | None:
        """Reason why the run is not over: open requests, then messages left, then dead letters."""
        self.ambushes.clear()
        self.is_arrival_awaited, self.in_the_dark = False, None
        self.installed_versions.stay()
        if missing := self.operator.missing:
            return f"{missing} are no nodes of the cluster"
        self._know_of_others()
        for queue_node in self.queue_nodes():
            if queue_node.questions:
                return f"{queue_node.process.node} does not hear how many messages there are"
            if queue_node.metadata._pending:
                return f"{queue_node.process.node} waits for a change of definitions"
        for queue_node in self.queue_nodes():
            for client in queue_node.parted:
                if client.unpaid:
                    return f"{client.unpaid} messages of a queue that was deleted have no receipt"
            for group, client in queue_node.clients.items():
                if len(client.session.pending):
                    return f"{queue_node.process.node} waits for an answer of {group}"
                if client.model.asked:
                    return f"{client.model.asked} of {group} have no answer"
        if orphaned := self.connections.unfinished():
            return orphaned
        going = self._growing() or self._undrained() or self._consumer_priority_check.look()
        return going or self._queue_expired() or self._outdated()

    def _growing(self) -> str | None:
        """A queue that is to have more members, as its leader sees it."""
        for queue_node in self.queue_nodes():
            for definition in self._led_by(queue_node) if self.quorum.reconciliation else ():
                if queue_node.queues.reconciling._wanted("/", definition) is not None:
                    return f"{definition.id} has {definition.wanted}, and wants more"
        return None

    def _leading(self, group: GroupId) -> list[QueueNode]:
        """Leaders of a queue: maybe none, or one that has not heard of a later one."""
        return [
            queue_node
            for queue_node in self.queue_nodes()
            if group in (queues := queue_node.node_sessions.leaders.queues)
            and queues[group].sessions is not None
        ]

    def _led_by(self, queue_node: QueueNode) -> list[QueueDefinition]:
        queues = queue_node.node_sessions.leaders.queues
        return [
            clients.queue.definition
            for group, clients in queue_node.clients.items()
            if group in queues and queues[group].sessions is not None
        ]

    def _undrained(self) -> str | None:
        """Acknowledge held messages, and have consumers for the ready ones."""
        left: str | None = None
        for spec in self.cluster.registry.living():
            if spec.group == METADATA_GROUP:
                continue
            state = self.checker(spec.group).image.state
            if not {session.id[:3] for session in state.sessions.values()} <= self._alive():
                left = f"sessions of ended lives are in {spec.group}"
            count = state.live_count
            known = [queue_node.clients.get(spec.group) for queue_node in self.queue_nodes()]
            clients = [client for client in known if client is not None]
            if len(clients) < len(known):
                return f"{spec.group} is not known everywhere"
            if not count and not any(client.in_hands() for client in clients):
                continue
            left = f"{count} messages are left in {spec.group}, or clients hold what was taken away"
            for client in clients:
                if held := client.in_hands():
                    client.settle(held, Outcome.ACKED)
                for subscriber in client.subscribers.values():
                    if subscriber.is_stuck:
                        client.get_stuck(subscriber.number)
                if not client.consumers:
                    client.attach(no_ack=False, prefetch=0)
            if count == state.pending.count and (
                spec.group in self.dead_letter_checks.stranded or self._stands_still(spec.group)
            ):
                self.chance.choice(clients).purge()  # they lead nowhere, or round
        return left

    def _stands_still(self, group: GroupId) -> bool:
        """True if it is full of dead that wait for room where the same is true, and so on, round:
        that is for an operator to end, as with RabbitMQ."""
        seen = set[GroupId]()
        while group not in seen:
            seen.add(group)
            checker, following = self.checker(group), self.dead_letter_checks.leads_to.get(group)
            state = checker.image.state
            has_others = state.live_count > state.pending.count
            if has_others or following is None or not checker.limits.are_reached(state):
                return False
            group = following
        return True

    def _queue_expired(self) -> str | None:
        """A queue that goes once nobody uses it: its clients leave."""
        groups = [spec.group for spec in self.cluster.registry.living()]
        groups = [group for group in groups if group != METADATA_GROUP]
        ending = [group for group in groups if self.checker(group).queue_expiry_checks.ends]
        for group in ending:
            for queue_node in self.queue_nodes():
                if (client := queue_node.clients.get(group)) is not None:
                    client.leave()
        return f"{ending} are to go, and are there" if ending else None

    def _outdated(self) -> str | None:
        """A queue that goes by other settings than those that definitions say."""
        for spec in self.cluster.registry.living():
            if (
                spec.group != METADATA_GROUP
                and not self.checker(spec.group).settings_checks.is_up_to_date
            ):
                return f"{spec.group} goes by {self.checker(spec.group).settings_checks.settings}"
        return None

    def _alive(self) -> set[tuple[NodeId, int, int]]:
        """Lives that last."""
        return {(node, *boot) for node, boot in self._lives.items()}

    def end(self) -> None:
        """G13."""
        for spec in self.cluster.registry.living():
            if spec.group == METADATA_GROUP:
                continue
            checker = self.checker(spec.group)
            checker.compare()
            edges = [queue_node.clients[spec.group].session for queue_node in self.queue_nodes()]
            check_rest(checker.image.state, edges, self._alive())
            checker.model.at_rest()
            for queue_node in self.queue_nodes():
                queue_node.clients[spec.group].at_rest()


def transferred(process: Process, group: GroupId, successor: NodeId) -> None:
    """If it is led there, and the other may lead it."""
    if group in process.members:
        with contextlib.suppress(ProposalRefused):
            process.multi.group(group).transfer(successor)


def draw_links(chance: Random) -> LinkProfile:
    """Random link profile: that of daemons, or one that is full soon."""
    return LinkProfile(
        scale=chance.choice((1, 1 << 8, 1 << 10, 1 << 12)),
        network_bytes=chance.choice((1 << 30, 50_000, 5_000)),
    )
