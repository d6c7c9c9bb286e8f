"""Node of a simulated cluster that takes clients of MQTT: what a node has for them in production,
on the services for queues of a `QueueNode`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, cast

from fluffle.broker.access import access as users
from fluffle.broker.access.passwords import hashed
from fluffle.broker.access.users import EVERYTHING, User
from fluffle.broker.alarms.alarms import Alarms, watermarks_of
from fluffle.broker.config.config import Config, Limits
from fluffle.broker.core.connections import Connections, ForcedCloses
from fluffle.broker.core.direct_reply_to import ReplyTargets
from fluffle.broker.core.services import Services, server_properties
from fluffle.broker.definitions.retained import RetainedLimits, RetainedStore
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.packets import Packet, encode
from fluffle.raft.config import NodeId
from tests.simulation.facts import Violation
from tests.simulation.process import Process
from tests.simulation.queues.connections import is_quorum
from tests.simulation.queues.node_fakes import CancelledFlag
from tests.simulation.queues.node_registration import VHOST, NodeRegistration
from tests.simulation.queues.queue_node import QueueNode
from tests.support.edge import Edge
from tests.support.fakes import Scheduler
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.runtime import fake_runtime

if TYPE_CHECKING:
    from fluffle.broker.cluster.ports import Links
    from fluffle.broker.queues.dead_letters import DeadMessages
    from fluffle.broker.queues.quorum.messages import SessionBoot
    from tests.simulation.mqtt.mqtt_cluster import MqttCluster

GUEST = User("guest", hashed(b"guest"), ())
RETAINED_LIMITS = RetainedLimits(messages_max=1_000, size_bytes_max=1 << 20)


class NodeLoop:
    """Rounds of the event loop of a node: what is to be done soon is done in that order."""

    def __init__(self, queue_node: QueueNode) -> None:
        self._queue_node = queue_node
        self._soon: deque[Callable[[], None]] = deque()

    @property
    def now_s(self) -> float:
        return self._queue_node.clock.now_ms() / 1000

    def call_soon(self, act: Callable[[], None]) -> None:
        if not self._soon:
            self._queue_node.call_later(0.0, self._round)
        self._soon.append(act)

    def call_later(self, seconds: float, act: Callable[[], None]) -> CancelledFlag:
        return self._queue_node.call_later(seconds, act)

    def _round(self) -> None:
        acts, self._soon = self._soon, deque()
        for act in acts:
            if self._queue_node.process.is_alive:
                act()


class ClientRegistration(NodeRegistration):
    """Registration of a node in a cluster that has a user."""

    def _next(self) -> Change:
        """The first node that finds the virtual host makes the user, too."""
        catalogue = self._catalogue
        if VHOST in catalogue.vhosts and GUEST.name not in catalogue.access.users:
            return users.put_user(GUEST).joined(users.put_permission(GUEST.name, VHOST, EVERYTHING))
        return super()._next()


class MqttNode(QueueNode):
    """Node that lets clients of MQTT in, once it knows what all know."""

    mqtt_cluster: MqttCluster

    def __init__(
        self, process: Process, links: Links, boot: SessionBoot, mqtt_cluster: MqttCluster
    ) -> None:
        self.mqtt: MqttEdge | None = None
        """Its server, once there is one."""
        self.mqtt_cluster = mqtt_cluster
        super().__init__(process, links, boot, mqtt_cluster)
        self.scheduler = NodeLoop(self)

    def _made_registration(self) -> NodeRegistration:
        names = self._queue_cluster.cluster.names
        return ClientRegistration(
            self.process, self.metadata, self.catalogue, names,
            call_later=self.call_later, entered=self._entered,
        )  # fmt: skip

    def _begin(self) -> None:
        super()._begin()
        self.call_later(0.0, self._open)

    def _open(self) -> None:
        """Have a server, as `NodeListeners` begins one."""
        self.services_of_clients = self._made_services()
        mqtt = MqttEdge(edge=cast(Edge, ServicesOfClients(self)), durable_queue_type="quorum")
        self.catalogue.node_loss_listeners.append(mqtt.server.adoption.node_lost)
        mqtt.server.restore()
        self.mqtt = mqtt

    def _made_services(self) -> Services:
        scheduler = cast(Scheduler, self.scheduler)
        runtime = fake_runtime(scheduler, clock=self.clock)
        numbers, boot = count(1), self.boot
        return Services(
            runtime=runtime,
            limits=Limits(),
            server_properties=server_properties(Config(node_name=self.process.node)),
            access=self.catalogue.access,
            vhosts=self.catalogue.vhosts,
            nodes=self.catalogue.nodes.entries,
            metadata=self.applied_barrier,
            retained=RetainedStore(
                self.catalogue,
                self.applied_barrier,
                RETAINED_LIMITS,
                runtime,
                now_ms=self.day.wall_ms,
                is_leader=lambda: self.metadata.leads,
            ),
            replies=ReplyTargets(),
            alarms=Alarms(watermarks_of(Config())),
            random_name=lambda: f"{self.process.node}{boot.counter}x{boot.nonce}x{next(numbers)}",
            connections=Connections(now_s=lambda: scheduler.now_s),
            owners=self.connections.owners,
            forced_closes=ForcedCloses(runtime.background_tasks),
            read_barrier=self.metadata.reads,
        )

    # Queues are those of clients, which are no models

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        if not is_quorum(definition):
            raise Violation(f"mqtt: {definition} is a queue of one node")
        return self.queues.make(definition, vhost)

    def end(self, queue: QueueHandle) -> None:
        self.queues.end(queue)

    def _overhear(self, node: NodeId, payload: bytes) -> None:
        del node, payload
        self._queue_cluster.frames += 1

    def _hand_on(self, vhost: str, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        del settings, dead
        raise Violation(f"mqtt: messages of {queue!r} in {vhost!r} have died")

    def _delete_disused(
        self, vhost: str, definition: QueueDefinition, is_queue_expired: Callable[[], bool]
    ) -> None:
        del is_queue_expired
        raise Violation(f"mqtt: {definition} of {vhost!r} has expired")


class ServicesOfClients:
    """Services of a node as `MqttEdge` and its clients use an `Edge`."""

    def __init__(self, node: MqttNode) -> None:
        self.services = node.services_of_clients
        self.catalogue = node.catalogue
        self.scheduler = node.scheduler

    def run(self) -> None:
        """Do nothing: time passes by itself."""


class Line(MqttClient):
    """Connection to a node: packets are under way for a while, and arrive in order."""

    def __init__(self, node: MqttNode, delay_s: Callable[[], float]) -> None:
        assert node.mqtt is not None
        super().__init__(node.mqtt, MQTT_5)
        self.node = node
        self._delay_s = delay_s
        self._under_way: deque[bytes | None] = deque()

    def send(self, *packets: Packet | bytes) -> None:
        octets = (each if isinstance(each, bytes) else encode(each, MQTT_5) for each in packets)
        self._send(b"".join(octets))

    def lose(self) -> None:
        """Cut the connection: what is under way arrives before."""
        self._send(None)

    def _send(self, octets: bytes | None) -> None:
        self._under_way.append(octets)
        self.node.call_later(self._delay_s(), self._arrive)

    def _arrive(self) -> None:
        octets = self._under_way.popleft()
        if self.transport.is_lost:
            return
        if octets is None:
            self.transport.lose()
        else:
            self.transport.receive(octets)

    @property
    def is_cut(self) -> bool:
        """True if nothing more comes: the node has hung up, or is dead."""
        return self.transport.is_lost or not self.node.process.is_alive
