"""MQTT server on a disk that outlives it: it can be killed at any step, and comes up again.

node = RestartedMqtt()
node.connect("meter", expiry_s=60)     # as `MqttEdge.connect`, once it is durable
node.kill()                            # what is not committed is lost
node.connect("meter", clean_start=False, expiry_s=60)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluffle.broker.access.limits import VhostSettings
from fluffle.broker.metadata.change import Kind
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.packets import Connack, Connect, Will
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.storage.disk import Disk, MemoryDisk
from tests.storage.support import ManualWriter
from tests.support.edge import WALL_MS, Edge
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.store import open_store


class RestartedMqtt:
    """MQTT server of a node that is alone, whose commits are done by hand, and its disk."""

    def __init__(self) -> None:
        self._disk = MemoryDisk()
        self._wall_ms = WALL_MS
        self._boot()
        self.mqtt.edge.durability.facts.put(Kind.VHOST, ("/",), VhostSettings())
        self.settle()

    def _boot(self) -> None:
        store = open_store(self._disk, self._make_writer)
        self.mqtt = MqttEdge(edge=Edge(store=store, wall_ms=self._wall_ms))
        self.mqtt.edge.durability.forget()
        self.mqtt.server.restore()
        self.settle()

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self._writer, self._wake = ManualWriter(disk, wake), wake
        self.is_committed = False
        return self._writer

    # Time and commits

    def settle(self) -> None:
        """Let everything happen that follows from what has happened."""
        self.mqtt.edge.run()
        while self.wake() or self.commit():
            self.mqtt.edge.run()

    @property
    def has_work(self) -> bool:
        """True if a commit is under way."""
        return self._writer.work is not None

    def commit(self) -> bool:
        """Have the commit that is under way reach the disk, and nobody know; whether there was
        one."""
        if not self.has_work or self.is_committed:
            return False
        self._writer.commit()
        self.is_committed = True
        return True

    def wake(self) -> bool:
        """Tell of the commit that has reached the disk; whether there was one."""
        if not self.is_committed:
            return False
        self.is_committed = False
        self._wake()
        self.mqtt.edge.run()
        return True

    def advance(self, seconds: float) -> None:
        self.mqtt.edge.advance(seconds)
        self.settle()

    def kill(self, *, away_s: float = 0) -> None:
        """End the process, and begin another so many seconds later."""
        self._wall_ms += round(1000 * (self.mqtt.edge.scheduler.now_s + away_s))
        self._disk = self._disk.after_power_loss()
        self._boot()

    # Clients

    def begin(
        self,
        client_id: str,
        version: int = MQTT_5,
        *,
        clean_start: bool = True,
        expiry_s: int = 0,
        will: Will | None = None,
        receive_max: int = 0,
    ) -> MqttClient:
        """A client that has sent CONNECT."""
        client, properties = self.mqtt.accept(version), Properties()
        if expiry_s:
            properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
        if receive_max:
            properties.values[PropertyId.RECEIVE_MAXIMUM] = receive_max
        connect = Connect(
            version,
            client_id,
            clean_start,
            0,
            user="guest",
            password=b"guest",
            will=will,
            properties=properties,
        )
        client.send(connect)
        return client

    def connect(self, client_id: str, version: int = MQTT_5, **terms: Any) -> MqttClient:
        """A client that has been let in."""
        client = self.begin(client_id, version, **terms)
        self.settle()
        client.connack = client.expect(Connack)
        assert not client.connack.code, client.connack
        return client
