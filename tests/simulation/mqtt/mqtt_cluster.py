"""Whole clusters with clients of MQTT: an `Application`.

Definitions, members of queues, leaderships and sessions of queues are as in `QueueCluster`, and
every node has the MQTT server of production; clients are `mqtt_clients`.
"""

from __future__ import annotations

from random import Random

from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.ports import METADATA_GROUP, Links
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.entry_codec import VERSION
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.protocol.properties import Properties, build_content, encode_properties
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.log import Entry, GroupId
from tests.simulation.cluster import Cluster
from tests.simulation.facts import GroupFacts, Replica
from tests.simulation.mqtt.mqtt_clients import Clients
from tests.simulation.mqtt.mqtt_members import TOUCH
from tests.simulation.mqtt.mqtt_node import MqttNode
from tests.simulation.process import Process
from tests.simulation.profile import Profile
from tests.simulation.queues.connections import is_quorum
from tests.simulation.queues.queue_cluster import QueueCluster
from tests.simulation.queues.queue_node import QueueNode
from tests.simulation.queues.rolling_upgrade import HURTS
from tests.simulation.workload import Workload

KINDS = ("transfer", "compact", "read")
CONTENT = build_content(encode_properties(Properties(delivery_mode=2)), TOUCH)


class MqttCluster(QueueCluster):
    """Application of a run about sessions of MQTT."""

    clients: Clients
    others_share = 0.6
    """Probability of each kind of clients that came to be later."""

    def __init__(self) -> None:
        super().__init__()
        self.deaths = 0
        """How many processes have ended."""

    def shape(self, chance: Random, profile: Profile) -> None:
        super().shape(chance, profile)
        rates = profile.workload.rates
        profile.workload.rates = {kind: rates[kind] for kind in KINDS}

    def join(self, cluster: Cluster) -> None:
        super().join(cluster)
        self.installed_versions.stay()
        self.installed_versions.reads.update(dict.fromkeys(cluster.names, VERSION))
        self.clients = Clients(self, cluster.clockwork.chance("mqtt"))
        self.clients.add_others(self.others_share)

    def made_node(self, process: Process, links: Links, boot: SessionBoot) -> MqttNode:
        return MqttNode(process, links, boot, self)

    def _died(self, node: NodeId) -> None:
        super()._died(node)
        self.deaths += 1

    def _define(self, entry: Entry) -> None:
        super()._define(entry)
        self.clients.defined(self.definitions)

    def _give_up(self, definition: QueueDefinition) -> None:
        self.clients.queue_given_up(definition.spec.name)
        super()._give_up(definition)

    def _defined(self, definition: QueueDefinition) -> None:
        registry = self.cluster.registry
        if definition.id not in registry.groups:
            config = Configuration.initial(definition.founders)
            registry.found(definition.id, config, is_defined=True)
            self._look_for_founders(definition)
        self._spec_of(definition).wanted = set(definition.wanted)
        self.removal_checks.defined(definition, self.cluster.names)

    def _committed(self, node: NodeId, replica: Replica, facts: GroupFacts, first: int) -> None:
        if facts.group == METADATA_GROUP:
            super()._committed(node, replica, facts, first)

    # As application

    def begin(self, workload: Workload) -> None:
        self.operator.begin(workload)
        self.clients.start(workload)

    def propose(self, workload: Workload, group: GroupId) -> None:
        """Have a message put into the queue, which is for no client, or change definitions."""
        nodes = self.open_nodes()
        if not nodes:
            return
        node = workload.chance.choice(nodes)
        if group == METADATA_GROUP:
            node.defining.touch(self.chance.getrandbits(30))
            return
        vhost = node.defining.vhost
        for queue in vhost.queues.values() if vhost is not None else ():
            if queue.definition.id == group:
                origin = Origin("", queue.name)
                queue.enqueue([origin], [CONTENT], len(CONTENT), persistent=True)

    def _led_by(self, queue_node: QueueNode) -> list[QueueDefinition]:
        vhost, led = queue_node.defining.vhost, queue_node.node_sessions.leaders.queues
        definitions = [each.definition for each in (vhost.queues.values() if vhost else ())]
        return [
            each
            for each in definitions
            if is_quorum(each) and each.id in led and led[each.id].sessions is not None
        ]

    def unfinished(self) -> str | None:
        self.installed_versions.stay()
        if missing := self.operator.missing:
            return f"{missing} are no nodes of the cluster"
        self._know_of_others()
        for node in self.queue_nodes():
            if node.metadata._pending:
                return f"{node.process.node} waits for a change of definitions"
        return self.clients.unfinished() or self._growing() or self._undrained()

    def _undrained(self) -> str | None:
        """Return the queue that has messages left for a consumer: it is not idle yet."""
        for queue_node in self.queue_nodes():
            for definition in self._led_by(queue_node):
                counts = queue_node.node_sessions.leaders.queues[definition.id].counts
                if counts.consumers and (left := counts.ready + counts.unacked):
                    return f"{left} messages are left in {definition.spec.name}"
        return None

    def end(self) -> None:
        self.clients.end()


class FirstMqttCluster(MqttCluster):
    """Application of a run without lost disks, and with the first kinds of clients alone."""

    others_share = 0.0

    def shape(self, chance: Random, profile: Profile) -> None:
        super().shape(chance, profile)
        profile.fault_rates.update(dict.fromkeys(HURTS, 0.0))


class CalmMqttCluster(MqttCluster):
    """Application of a run in which nothing fails."""

    others_share = 1.0

    def shape(self, chance: Random, profile: Profile) -> None:
        super().shape(chance, profile)
        profile.network = profile.network.calmed()
        profile.fault_rates.update(dict.fromkeys(profile.fault_rates, 0.0))
        profile.workload.rates["transfer"] = 0.0
        profile.has_calm = False  # there the nodes beside a majority are cut off, or killed

    def join(self, cluster: Cluster) -> None:
        super().join(cluster)
        self.clients.be_calm()
