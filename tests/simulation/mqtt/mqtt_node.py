"""Node of a simulated cluster that takes clients of MQTT: what a node has for them in production,
on the services for queues of a `QueueNode`."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, cast

from fluffle.broker.access import access as users
from fluffle.broker.access.access import User
from fluffle.broker.access.passwords import SHA256, PasswordHash
from fluffle.broker.alarms import Alarms, watermarks_of
from fluffle.broker.cluster.client_takeover import ClientTakeover
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.cluster.queues.classic_queues import ClassicQueues, ClassicQueuesEnvironment
from fluffle.broker.cluster.queues.pending_replies import Deletions
from fluffle.broker.config.config import Config, Limits
from fluffle.broker.core.connections import Connections, ForcedCloses
from fluffle.broker.core.direct_reply_to import ReplyTargets
from fluffle.broker.core.services import Services, server_properties
from fluffle.broker.definitions.ended_queues import ended_before, remove_ended
from fluffle.broker.definitions.retained import RetainedLimits, RetainedStore
from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.queue_api import FactoryByType, QueueHandle
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.runtime.turn import Turn
from fluffle.protocol.mqtt.codes import MQTT_5, PacketType
from fluffle.protocol.mqtt.packets import Packet, encode
from fluffle.raft.config import NodeId
from tests.simulation.facts import Violation
from tests.simulation.process import Process
from tests.simulation.queues.node_fakes import CancelledFlag, SimulatedSender
from tests.simulation.queues.node_registration import VHOST, NodeRegistration
from tests.simulation.queues.queue_node import QueueNode
from tests.support.definitions import EVERYTHING
from tests.support.edge import Edge
from tests.support.fakes import Scheduler
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.runtime import fake_runtime
from tests.support.store import open_store

if TYPE_CHECKING:
    from fluffle.broker.cluster.ports import Links
    from fluffle.broker.queues.dead_letters import DeadMessages
    from fluffle.broker.queues.quorum.messages import SessionBoot
    from fluffle.broker.runtime.runtime import Runtime
    from tests.simulation.mqtt.mqtt_cluster import MqttCluster

SALT = b"salt"
"""Salt of the password: drawn by no seed, it would make two runs of one seed differ."""
DIGEST = hashlib.sha256(SALT + b"guest").digest()
GUEST = User("guest", PasswordHash(base64.b64encode(SALT + DIGEST).decode(), SHA256), ())
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
        names = mqtt_cluster.cluster.names
        sender = SimulatedSender(links, FrameKind.CLIENTS, TrafficClass.URGENT, names)
        self.shared_clients = ClientTakeover(process.node, sender, self)
        self._factories = FactoryByType(
            {
                QueueType.CLASSIC: lambda: self._classic_queues,
                QueueType.MQTT_QOS0: lambda: self._classic_queues,
                QueueType.QUORUM: lambda: self.queues,
            }
        )

    @cached_property
    def scheduler(self) -> NodeLoop:
        return NodeLoop(self)

    @cached_property
    def _turn(self) -> Turn:
        return Turn(self.scheduler.call_soon)

    @cached_property
    def _durability(self) -> Durability:
        """Storage of queues that are at this node alone, of which nothing outlives the process."""
        return Durability(open_store(), self._turn)

    @cached_property
    def _runtime(self) -> Runtime:
        commits, scheduler = self._durability.commits, cast(Scheduler, self.scheduler)
        return fake_runtime(scheduler, clock=self.clock, turn=self._turn, commits=commits)

    @cached_property
    def _classic_queues(self) -> ClassicQueues:
        """Queues of QoS 0 that are here, and those of sessions that end with their connections."""
        queues = ClassicQueues(
            self.process.node,
            self.process.boot,
            LocalQueues(self._turn, self._durability.journals),
            self._durability.journals_by_id,
            draw_bits=self.mqtt_cluster.clients.other_chance.getrandbits,
        )
        queues.environment = ClassicQueuesEnvironment(
            self.node_sessions, self.call_later, self._durability.commits, self.applied_barrier,
            self.catalogue.vhosts, Deletions(self.metadata.reads, self.catalogue.vhosts),
        )  # fmt: skip
        return queues

    def _made_registration(self) -> NodeRegistration:
        names = self._queue_cluster.cluster.names
        return ClientRegistration(
            self.process, self.metadata, self.catalogue, names,
            call_later=self.call_later, entered=self._entered,
        )  # fmt: skip

    def _begin(self) -> None:
        super()._begin()
        is_ended = ended_before(self.process.node, self.process.boot)
        remove_ended(self.catalogue, self.applied_barrier, is_ended, self._open_soon)

    def _open_soon(self) -> None:
        self.call_later(0.0, self._open)

    def _open(self) -> None:
        """Have a server, as `NodeListeners` begins one."""
        self.services_of_clients = self._made_services()
        mqtt = MqttEdge(edge=cast(Edge, ServicesOfClients(self)), durable_queue_type="quorum")
        self.catalogue.node_loss_listeners.append(mqtt.server.adoption.node_lost)
        unkept = mqtt.server.unkept
        self.shared_clients.here, unkept.announce = unkept, self.shared_clients.came
        mqtt.server.restore()
        self.mqtt = mqtt

    def _made_services(self) -> Services:
        scheduler = cast(Scheduler, self.scheduler)
        runtime = self._runtime
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

    def receive(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        if kind is FrameKind.CLIENTS:
            self.shared_clients.receive(node, payload)
        else:
            super().receive(node, kind, payload)

    def link_changed(self, node: NodeId, is_up: bool) -> None:
        super().link_changed(node, is_up)
        self.shared_clients.link_changed(node, is_up)

    # Queues are those of clients, which are no models

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        return self._factories.define(spec, owner, vhost)

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._factories.make(definition, vhost)

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        self._factories.redefine(queue, definition)

    def renew_settings(self, queue: QueueHandle, vhost: str) -> None:
        self._factories.renew_settings(queue, vhost)

    def end(self, queue: QueueHandle) -> None:
        self._factories.end(queue)

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
        self.is_hung_up = False
        """True if the client has cut it: without that the node takes it for open."""
        self.has_taken_leave = False
        """True if a DISCONNECT has taken the will of the connection away."""

    def send(self, *packets: Packet | bytes) -> None:
        octets = (each if isinstance(each, bytes) else encode(each, MQTT_5) for each in packets)
        self._send(b"".join(octets))

    def lose(self) -> None:
        """Cut the connection: what is under way arrives before."""
        self.is_hung_up = True
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
            had_will = self.connection.will is not None
            self.transport.receive(octets)
            is_leave = octets[0] >> 4 == PacketType.DISCONNECT
            if is_leave and had_will and self.connection.will is None:
                self.has_taken_leave = True

    @property
    def is_cut(self) -> bool:
        """True if nothing more comes: the node has hung up, or is dead."""
        return self.transport.is_lost or not self.node.process.is_alive
