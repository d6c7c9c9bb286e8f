"""Clients of MQTT of a simulated cluster, and what they must be sent.

Publishers and subscribers come to any node, leave it with or without a word, and send again what
was not answered.  Their node is killed between any two of their steps.

- A session that was there is present.
- A message that was acknowledged comes to all subscribers of whom its node must have known; none
  comes that nobody has published.
- From QoS 2 to QoS 2 each comes once.
- Where nothing fails, messages of a publisher come in order.
- A retained message is the last that was acknowledged of its topic, or a later one.
- Once all is well, each client is connected to one node.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

from fluffle.broker.base.queue_names import is_shared, subscription_queue
from fluffle.broker.metadata.change import Kind
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.packets import Connect, Will
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.simulation.mqtt.mqtt_groups import Group
from tests.simulation.mqtt.mqtt_local_queues import (
    CleanSubscriber,
    PublisherOfQos0,
    SubscriberOfQos0,
)
from tests.simulation.mqtt.mqtt_members import (
    Member,
    RetainedReader,
    SimulatedPublisher,
    SimulatedSubscriber,
)
from tests.simulation.mqtt.mqtt_node import Line, MqttNode
from tests.simulation.mqtt.mqtt_wills import ClientWithWill, WillSubscriber
from tests.simulation.virtual_time import SECOND_US

if TYPE_CHECKING:
    from fluffle.broker.metadata.state import MetadataState
    from tests.simulation.mqtt.mqtt_cluster import MqttCluster
    from tests.simulation.workload import Workload

LOOK_S = 0.03
"""Mean time between two steps of a client."""
LONG_PATIENCE_US = 20 * SECOND_US
"""How long clients wait when all is well again: networks may be slow."""
DESTINATION = 3
"""Place of the queue in the key of a binding: see `Kind.BINDING`."""
CALM_SERVED_MIN = 3
"""Messages of each publisher of which more are acknowledged where nothing fails: in some runs links
and disks are slow, and so are answers."""
AT_REST_US = 2 * SECOND_US
"""Behind the last acknowledgement; who asks later is sent the last retained messages."""


class Clients:
    """All clients of MQTT of a run."""

    def __init__(self, mqtt_cluster: MqttCluster, chance: Random) -> None:
        self._mqtt_cluster = mqtt_cluster
        self.chance = chance
        self.other_chance = mqtt_cluster.cluster.clockwork.chance("other mqtt")
        """Chance of clients that came to be later: without them all is as it was."""
        self.rate = chance.choice((0.05, 0.3, 1.0))
        """How often a publisher publishes that may, in a step."""
        self.reads_share = chance.choice((1.0, 1.0, 0.3))
        self.leaves_share = chance.choice((0.0, 0.001, 0.01))
        self.strikes_share = chance.choice((0.0, 0.003, 0.01))
        """How often a node is killed behind a step of one of its clients."""
        self.patience_us = chance.choice((2, 5, 10)) * SECOND_US
        self.is_over = False
        self.is_calm = False
        """True in a run in which nothing fails."""
        self.has_ended = False
        self.acknowledged_us = 0
        self._served: dict[str, int] = {}
        """How many messages of a publisher were acknowledged when all was to be well again."""
        self._served_min = 0
        """So many messages of each publisher are acknowledged in a run, however slow it is."""
        self.publishers = [SimulatedPublisher(self, f"p{qos}", qos) for qos in (1, 2)]
        self.retaining = SimulatedPublisher(self, "r", chance.choice((1, 2)), retain=True)
        self.reader = RetainedReader(self, self.retaining)
        self.subscribers = [SimulatedSubscriber(self, f"s{qos}", "+", qos) for qos in (1, 2)]
        self.members: list[Member] = [
            *self.publishers, self.retaining, *self.subscribers, self.reader,
        ]  # fmt: skip
        self.group: Group | None = None
        self.will_clients: list[ClientWithWill] = []
        self.qos0_subscribers: list[SubscriberOfQos0] = []
        self.served_of_qos0 = 0
        """Number of the first message of QoS 0 that is published when all is well again."""
        self._workload: Workload

    def add_others(self, share: float) -> None:
        """Have other clients, of each kind with this probability."""
        chance = self.other_chance
        if chance.random() < share:
            self.group = Group(self)
            self.members += self.group.members
        if chance.random() < share:
            watcher = WillSubscriber(self)
            self.will_clients = watcher.others
            self.members += watcher, *watcher.others
        if chance.random() < share:
            self.qos0_subscribers.append(SubscriberOfQos0(self))
            publisher = PublisherOfQos0(self)
            self.publishers.append(publisher)
            self.members += publisher, *self.qos0_subscribers
        if chance.random() < share:
            self.members += (CleanSubscriber(self, chance.choice((1, 2))),)

    def be_calm(self) -> None:
        """Have nothing fail."""
        self.leaves_share = self.strikes_share = 0.0
        self.patience_us = 1_000 * SECOND_US
        self.is_calm = True
        self._served_min = CALM_SERVED_MIN

    @property
    def now_us(self) -> int:
        return self._mqtt_cluster.cluster.clockwork.now_us

    @property
    def rests_at_us(self) -> int:
        """Time from which on what is retained is what was acknowledged last."""
        is_at_rest = self.is_over and self.retaining.is_done
        return self.acknowledged_us + AT_REST_US if is_at_rest else self.now_us + 1

    @property
    def may_publish(self) -> bool:
        """True if all subscribers have subscribed."""
        return all(each.is_subscribed for each in self.subscribers)

    def wants_more(self, publisher: SimulatedPublisher) -> bool:
        """True if a publisher has yet to be served when all is well again."""
        served = max(self._served.get(publisher.name, 0), self._served_min)
        return self.is_over and len(publisher.acknowledged) <= served

    def wants_message(self) -> bool:
        """True if a publisher is to publish in this step."""
        return self.may_publish and self.chance.random() < self.rate

    @property
    def has_no_death(self) -> bool:
        """True if no process has ended, nor was taken to have."""
        cluster = self._mqtt_cluster
        return self.is_calm or not (cluster.deaths or cluster.is_impatient)

    def disks(self) -> dict[str, int]:
        """Return which disk each node has."""
        machines = self._mqtt_cluster.cluster.machines
        return {node: machine.disk.file.inode for node, machine in machines.items()}

    def defined(self, definitions: MetadataState) -> None:
        """Definitions have changed."""
        for each in self.will_clients:
            each.defined(definitions)

    def queue_given_up(self, queue: str) -> None:
        """A queue is lost with the disks of a majority: what it has is, too."""
        for each in self.members:
            is_its = queue == subscription_queue(each.name, 1)
            if isinstance(each, SimulatedSubscriber) and is_its:
                each.may_be_lost = True
            if isinstance(each, WillSubscriber) and is_its:
                each.was_lost = True
        if self.group is not None and is_shared(queue):
            self.group.is_lost = True

    def bound_since(self, queue: str) -> int:
        """Return the revision of the first binding of a queue that is there; 0 if none is."""
        revisions = [
            known.revision
            for (kind, key), known in self._mqtt_cluster.definitions.values().items()
            if kind is Kind.BINDING and key[DESTINATION] == queue
        ]
        return min(revisions, default=0)

    def connects(self) -> tuple[int, ...]:
        return tuple(each.connects for each in self.members)

    def some_nodes(self) -> list[MqttNode]:
        """Return nodes to which clients may connect; of paused ones they would get no answer."""
        machines = self._mqtt_cluster.cluster.machines
        return [
            each
            for each in self._mqtt_cluster.open_nodes()
            if isinstance(each, MqttNode)
            and each.mqtt is not None
            and not machines[each.process.node].is_paused
        ]

    def begin(
        self,
        client_id: str,
        *,
        clean_start: bool,
        expiry_s: int,
        receive_max: int,
        will: Will | None = None,
    ) -> Line:
        """A client that has sent CONNECT to some node."""
        line = Line(self.chance.choice(self.some_nodes()), self._delay_s)
        properties = Properties()
        properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
        properties.values[PropertyId.RECEIVE_MAXIMUM] = receive_max
        line.send(
            Connect(
                MQTT_5, client_id, clean_start, 0,
                user="guest", password=b"guest", will=will, properties=properties,
            )
        )  # fmt: skip
        return line

    def _delay_s(self) -> float:
        return self.chance.expovariate(1 / 0.001)

    # A run

    def start(self, workload: Workload) -> None:
        self._workload = workload
        for member in self.members:
            self._look_later(member)

    def _look_later(self, member: Member) -> None:
        delay_us = int(self.chance.expovariate(1 / LOOK_S) * SECOND_US)
        self._mqtt_cluster.cluster.clockwork.after(delay_us, self._look, member)

    def _look(self, member: Member) -> None:
        if self._workload.is_stopped and not self.is_over:
            self.is_over = True
            self.leaves_share, self.patience_us = 0.0, LONG_PATIENCE_US
            for each in (*self.publishers, self.retaining):
                self._served[each.name] = len(each.acknowledged)
            self.served_of_qos0 = self.publishers[-1].next_number
        if not self.has_ended:
            member.look()
            self._look_later(member)

    def strike(self, node: MqttNode) -> None:
        """Kill a node behind a step of a client, now and then, if all others run."""
        cluster, name = self._mqtt_cluster.cluster, node.process.node
        if self._workload.is_steady or self.chance.random() >= self.strikes_share:
            return
        if len(cluster.alive()) == len(cluster.names):
            soon_us = int(self.chance.choice((0, 0.002, 0.02)) * self.chance.random() * SECOND_US)
            back_us = soon_us + int((0.2 + self.chance.random()) * SECOND_US)
            cluster.clockwork.after(soon_us, partial(cluster.kill, name, is_silent=False))
            cluster.clockwork.after(back_us, cluster.start, name)

    def unfinished(self) -> str | None:
        """Return what is left to do, now that nothing new is published."""
        for member in self.members:
            if not (self.is_over and member.is_let_in and member.is_done):
                lacking = getattr(member, "lacking", list[str])()
                return f"{member.name} is not done: {lacking or 'it waits for answers'}"
        return self._connected_twice()

    def _connected_twice(self) -> str | None:
        """Return what is wrong with where clients are connected."""
        servers = [each.mqtt.server for each in self.some_nodes() if each.mqtt is not None]
        for member in self.members:
            count = sum(("/", member.name) in server.connected for server in servers)
            if count != 1:
                return f"{member.name} is connected to {count} nodes"
        return None

    def end(self) -> None:
        self.has_ended = True

    def __str__(self) -> str:
        acknowledged = sum(len(each.acknowledged) for each in self.publishers)
        again = sum(each.again for each in self.subscribers)
        late = sum(each.late for each in self.subscribers)
        retained = len(self.retaining.acknowledged)
        connects = sum(self.connects())
        text = (
            f"{acknowledged} acknowledged, {again} again, {late} late, {retained} retained, "
            f"{connects} connects"
        )
        if self.group is not None:
            taken = sum(len(each) for each in self.group.taken.values())
            text += f", {taken} to the group, {self.group.again} of them again"
        if self.will_clients:
            fates = [fate for each in self.will_clients for fate in each.fates.values()]
            must, never = sum(each.must for each in fates), sum(each.never for each in fates)
            text += f", {must} of {len(fates)} wills must come, {never} must not"
        return text
