"""The well-behaved client: it publishes with confirms, consumes, and writes down how long it took.

One message at a time on each queue, at a fixed pace.  The time of a message runs from when it was
due, so that one that had to wait for a slow one before it is slow as well.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fluffle.protocol.methods import Basic, Confirm, Queue, make
from fluffle.protocol.mqtt.codes import PacketType
from fluffle.protocol.mqtt.packets import Ack, Publish, Subscribe
from fluffle.protocol.mqtt.reader import Acks, Publishes
from fluffle.protocol.properties import Properties
from tests.support.client import Client, Closed
from tests.support.deadlines import DEADLINE_S
from tests.support.mqtt_socket import MqttSocket, MqttSocketClosed

PERIOD_S = 0.1
BODY_BYTES = 200


@dataclass(slots=True)
class Window:
    """Latencies measured in a period of time."""

    confirm_ms: list[float] = field(default_factory=list)
    deliver_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class QueueProbe:
    """Probe of one queue, and what was seen of it."""

    queue: str
    durable: bool
    window: Window = field(default_factory=Window)
    confirmed: int = 0
    delivered: int = 0
    faults: list[str] = field(default_factory=list)

    def take(self) -> Window:
        """Return and reset the measurements since the last call."""
        taken, self.window = self.window, Window()
        return taken


class GoodClient:
    """A connection for each lane, in a thread of its own."""

    def __init__(self, address: tuple[str, int], mqtt: tuple[str, int]) -> None:
        durable = QueueProbe("good durable", durable=True)
        transient = QueueProbe("good transient", durable=False)
        of_mqtt = QueueProbe("good mqtt", durable=False)
        self.lanes = (durable, transient, of_mqtt)
        self._address = address
        self._mqtt = mqtt
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(durable, self._talk)),
            threading.Thread(target=self._live, args=(transient, self._talk)),
            threading.Thread(target=self._live, args=(of_mqtt, self._talk_mqtt)),
        ]

    @property
    def faults(self) -> list[str]:
        """Faults so far; after one there is nothing more to wait for."""
        return [fault for lane in self.lanes for fault in lane.faults]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def take(self) -> Window:
        """Return and reset the measurements of all lanes."""
        windows = [lane.take() for lane in self.lanes]
        return Window(
            confirm_ms=[value for window in windows for value in window.confirm_ms],
            deliver_ms=[value for window in windows for value in window.deliver_ms],
        )

    def stop(self) -> None:
        """Finish what is under way and leave in order."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _live(self, lane: QueueProbe, talk: Callable[[QueueProbe], None]) -> None:
        try:
            talk(lane)
        except (Closed, MqttSocketClosed, OSError, AssertionError, IndexError) as error:
            lane.faults.append(f"{lane.queue}: {type(error).__name__} {error}")

    def _talk_mqtt(self, lane: QueueProbe) -> None:
        client = MqttSocket(socket.create_connection(self._mqtt, DEADLINE_S))
        try:
            client.connect("good")
            client.send(Subscribe(1, [(lane.queue, 1)]))
            client.next()
            due_s = time.monotonic()
            while not self._stop.is_set():
                exchange_mqtt(client, lane, due_s)
                due_s += PERIOD_S
                self._stop.wait(max(0.0, due_s - time.monotonic()))
        finally:
            client.close()

    def _talk(self, lane: QueueProbe) -> None:
        with Client(*self._address) as client:
            self._talk_amqp(client, lane)

    def _talk_amqp(self, client: Client, lane: QueueProbe) -> None:
        client.open(heartbeat=0)
        client.channel(1)
        expect(client.call(1, make(Queue.Declare, queue=lane.queue, durable=lane.durable)).name)
        expect(client.call(1, make(Confirm.Select)).name)
        expect(client.call(1, make(Basic.Consume, queue=lane.queue, consumer_tag="good")).name)
        number, due_s = 0, time.monotonic()
        while not self._stop.is_set():
            exchange(client, lane, number, due_s)
            client.heard.clear()
            client.transcript.clear()
            number, due_s = number + 1, due_s + PERIOD_S
            self._stop.wait(max(0.0, due_s - time.monotonic()))
        left = client.call(1, make(Queue.Delete, queue=lane.queue)).method
        if not isinstance(left, Queue.DeleteOk) or left.message_count:
            lane.faults.append(f"{lane.queue}: {left} instead of an empty queue")


def exchange(client: Client, lane: QueueProbe, number: int, due_s: float) -> None:
    """Publish a message, hear its confirm and its delivery, and acknowledge it."""
    body = f"{lane.queue} {number}".encode().ljust(BODY_BYTES)
    properties = Properties(delivery_mode=2 if lane.durable else 1)
    client.publish(1, "", lane.queue, body, properties)
    waiting: dict[str, Callable[[float], None]] = {
        "Basic.Ack": lane.window.confirm_ms.append,
        "Basic.Deliver": lane.window.deliver_ms.append,
    }
    while waiting:
        heard = client.next()
        took = waiting.pop(heard.name, None)
        if took is None:
            raise AssertionError(f"{heard} instead of {list(waiting)}")
        took((time.monotonic() - due_s) * 1000)
        if heard.name == "Basic.Ack":
            lane.confirmed += 1
        else:
            assert heard.body == body, heard
            lane.delivered += 1
            client.send(1, make(Basic.Ack, delivery_tag=number + 1))


def exchange_mqtt(client: MqttSocket, lane: QueueProbe, due_s: float) -> None:
    """Publish a message of QoS 1, hear its PUBACK and the message, and acknowledge it."""
    client.send(Publish(lane.queue.encode(), bytes(BODY_BYTES), 1, packet_id=1))
    waiting = {Acks: lane.window.confirm_ms.append, Publishes: lane.window.deliver_ms.append}
    while waiting:
        heard = client.next()
        took = waiting.pop(type(heard), None)
        assert took is not None, f"{heard} instead of {list(waiting)}"
        took((time.monotonic() - due_s) * 1000)
        if isinstance(heard, Publishes):
            lane.delivered += 1
            client.send(Ack(PacketType.PUBACK, heard.packet_ids[0]))
        else:
            lane.confirmed += 1


def expect(name: str) -> None:
    """No close may come instead of an answer."""
    assert not name.endswith(".Close"), name
