"""MQTT servers of several nodes of a cluster, whose definitions change when a test says so.

nodes = MqttNodes()
client = nodes.begin("a", "meter", expiry_s=60)     # has sent CONNECT
nodes.commit()                                      # the oldest change comes true, on all nodes
nodes.kill("a")                                     # nothing of it comes true but what it has asked

Queues are those of one engine, whoever uses them, as a leader's that outlives all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.core.connections import Connections, Owners
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import Decide, Metadata, OnLateError, ignore_done
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.packets import Connect, Will
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.support.edge import Edge
from tests.support.metadata import ManualMetadata
from tests.support.mqtt_edge import MqttClient, MqttEdge


class KnowsAll:
    """Read barrier of a node of a cluster, which has all that was defined."""

    is_complete = False
    mark = 1
    confirmed = 1

    def __init__(self) -> None:
        self.hear: Callable[[Callable[[], None]], object] = call
        """Has the node hear that it has all, at once or later."""

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        del failed
        self.hear(done)


class NodeMetadata:
    """Metadata as one node asks for changes, which hears of nothing once it is dead."""

    def __init__(self, inner: Metadata) -> None:
        self._inner = inner
        self.is_alive = True
        self.hear: Callable[[Callable[[], None]], object] = call
        """Has the node hear of what has come true, at once or later."""

    def change(
        self, decide: Decide, done: Callable[[], None], failed: Callable[[BrokerError], None]
    ) -> None:
        if self.is_alive:
            self._inner.change(self._decided(decide), self._heard(done), failed)

    def ensure(
        self,
        decide: Decide,
        done: Callable[[], None] = ignore_done,
        late: OnLateError | None = None,
    ) -> None:
        if self.is_alive:
            self._inner.ensure(self._decided(decide), self._heard(done), late)

    def _decided(self, decide: Decide) -> Decide:
        def again() -> Change:
            return decide() if self.is_alive else NOTHING

        return again

    def _heard(self, done: Callable[[], None]) -> Callable[[], None]:
        def hear() -> None:
            if self.is_alive:
                self.hear(done)

        return hear


def call(done: Callable[[], None]) -> None:
    done()


class MqttNode(MqttEdge):
    """Process of a node."""

    def __init__(self, name: str, edge: Edge) -> None:
        own = copy(edge)
        self.metadata = NodeMetadata(edge.services.metadata)
        self.read_barrier = KnowsAll()
        own.services = replace(
            edge.services,
            owners=Owners(name),
            metadata=self.metadata,
            read_barrier=self.read_barrier,
            connections=Connections(now_s=lambda: edge.scheduler.now_s),
        )
        super().__init__(edge=own)
        self.clients: list[MqttClient] = []
        self.server.restore()

    def kill(self) -> None:
        """End the process: what its clients were given comes back to the queues."""
        self.metadata.is_alive = False
        self.edge.catalogue.session_listeners.remove(self.server.session_changed)
        self.edge.catalogue.will_listeners.remove(self.server.due_wills.changed)
        for client in self.clients:
            if not client.transport.is_lost:
                client.lose()


class MqttNodes:
    """Nodes of a cluster, by name."""

    def __init__(self, names: str = "ab") -> None:
        self.edge = Edge(make_metadata=ManualMetadata)
        metadata = self.edge.services.metadata
        assert isinstance(metadata, ManualMetadata)
        self.metadata = metadata
        self.nodes = {name: MqttNode(name, self.edge) for name in names}

    def begin(
        self,
        node: str,
        client_id: str,
        version: int = MQTT_5,
        *,
        clean_start: bool = False,
        expiry_s: int = 3600,
        will: Will | None = None,
        receive_max: int = 0,
    ) -> MqttClient:
        """A client that has sent CONNECT to a node."""
        client, properties = self.nodes[node].accept(version), Properties()
        self.nodes[node].clients.append(client)
        if expiry_s:
            properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
        if receive_max:
            properties.values[PropertyId.RECEIVE_MAXIMUM] = receive_max
        client.send(
            Connect(
                version,
                client_id,
                clean_start,
                0,
                user="guest",
                password=b"guest",
                will=will,
                properties=properties,
            )
        )
        return client

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Have all that clients send meanwhile be in one turn."""
        turn = self.edge.services.runtime.turn
        assert turn.begin(), "a turn within a turn"
        yield
        turn.end()
        self.edge.run()

    @property
    def has_work(self) -> bool:
        """True if a change is under way."""
        return bool(len(self.metadata))

    def commit(self) -> None:
        """Have the oldest change come true."""
        self.metadata.commit()
        self.edge.run()

    def settle(self) -> None:
        """Have all changes come true."""
        self.edge.run()
        while self.has_work:
            self.commit()

    def kill(self, node: str) -> None:
        """End the process of a node, and begin another."""
        self.nodes[node].kill()
        self.edge.run()
        self.nodes[node] = MqttNode(node, self.edge)
        self.edge.run()
