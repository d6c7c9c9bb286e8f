"""Subscribers that come while a message is being retained, in a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from fluffle.broker.definitions.late_subscribers import TARGETS_AT_ONCE
from fluffle.broker.definitions.retained import PendingInVhost
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.publish_target import PublishReceipt
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.mqtt.codes import PacketType
from fluffle.protocol.mqtt.events import Acks, Publishes
from fluffle.protocol.mqtt.packets import Connack, Publish, Suback, Subscribe, Will
from fluffle.protocol.steps import Steps
from tests.support.mqtt_edge import MqttClient
from tests.support.mqtt_nodes import MqttNodes


@contextmanager
def elsewhere() -> Iterator[None]:
    """Have no client see what waits to be retained: subscribers are at other nodes."""
    with patch.object(PendingInVhost, "flush", lambda _pending, _readers: {}):
        yield


class Clients:
    """A publisher, a subscriber, and one that will be late, at two nodes."""

    def __init__(self) -> None:
        self.nodes = MqttNodes()
        self.publisher = self.nodes.begin("a", "p", expiry_s=0, will=Will(b"t", b"will", 1, True))
        self.before, self.late = self.nodes.begin("a", "before"), self.nodes.begin("b", "late")
        self.nodes.settle()
        for each in (self.publisher, self.before, self.late):
            each.expect(Connack)
        self.before.send(Subscribe(1, [("t", 2)]))
        self.nodes.settle()
        self.before.expect(Suback)

    def begin_to_subscribe(self) -> None:
        """Have the queue of the late subscriber, and its subscription on the way."""
        self.late.send(Subscribe(1, [("t", 2)]))
        self.nodes.edge.run()
        self.nodes.commit()

    def publish(self, payload: bytes, qos: int, *, retain: bool = True) -> None:
        packet_id = int.from_bytes(payload) if qos else 0
        self.publisher.send(Publish(b"t", payload, qos, retain, packet_id=packet_id))
        self.nodes.edge.run()


def messages(client: MqttClient) -> list[tuple[bytes, bool]]:
    """Take everything; payloads of the messages among it, and whether each was a retained one."""
    runs = [run for run in client.packets() if isinstance(run, Publishes)]
    return [(payload, run.retain) for run in runs for payload in run.payloads]


def test_who_subscribes_elsewhere_before_a_message_is_retained_gets_it() -> None:
    """The subscription is in the log between the route of the message and its change."""
    for qos in (0, 1, 2):
        for payload in (b"1", b""):
            clients = Clients()
            clients.publish(b"0", 1)
            clients.nodes.settle()
            clients.publisher.packets()
            clients.begin_to_subscribe()
            packet_id = 7 if qos else 0
            clients.publisher.send(Publish(b"t", payload, qos, True, packet_id=packet_id))
            with elsewhere():
                clients.nodes.settle()
            assert messages(clients.late) == [(b"0", True), (payload, False)], (qos, payload)
            assert messages(clients.before) == [(b"0", False), (payload, False)]
            acks = [each for each in clients.publisher.packets() if isinstance(each, Acks)]
            kinds = [PacketType.PUBACK, PacketType.PUBREC][qos - 1 : qos] if qos else []
            assert [each.kind for each in acks] == kinds


def test_who_subscribes_after_a_message_is_retained_reads_it_alone() -> None:
    clients = Clients()
    clients.publish(b"1", 1)
    clients.late.send(Subscribe(1, [("t", 1)]))
    with elsewhere():
        clients.nodes.settle()
    assert messages(clients.late) == [(b"1", True)]


def test_who_has_read_a_message_before_it_is_retained_gets_it_once() -> None:
    """A client at the node of the publisher reads what is on its way."""
    clients = Clients()
    clients.begin_to_subscribe()
    clients.publish(b"1", 1)
    clients.nodes.settle()
    assert messages(clients.late) == [(b"1", True)]
    assert messages(clients.before) == [(b"1", False)]


def test_a_later_message_does_not_overtake_one_for_late_subscribers() -> None:
    clients = Clients()
    clients.begin_to_subscribe()
    clients.publish(b"1", 1)
    with elsewhere():
        clients.nodes.commit()
        clients.publish(b"2", 1, retain=False)
        clients.nodes.settle()
    assert [payload for payload, _ in messages(clients.late)] == [b"1", b"2"]


def test_a_message_is_not_sent_behind_a_newer_one() -> None:
    """The newer one, which is routed to all, waits to be retained in the place of the first."""
    clients = Clients()
    clients.begin_to_subscribe()
    clients.publish(b"1", 1)
    with elsewhere():
        clients.nodes.commit()
        clients.publish(b"2", 1)
        clients.nodes.settle()
    assert [payload for payload, _ in messages(clients.late)] == [b"2"]
    assert [payload for payload, _ in messages(clients.before)] == [b"1", b"2"]


def test_a_will_reaches_who_subscribes_before_it_is_retained() -> None:
    clients = Clients()
    clients.begin_to_subscribe()
    clients.publisher.lose()
    with elsewhere():
        clients.nodes.settle()
    assert [payload for payload, _ in messages(clients.late)] == [b"will"]


class QueueElsewhere:
    """Queue that another node leads: it answers when a test says so."""

    def __init__(self, number: int) -> None:
        self.name = f"q{number}"
        self.definition = QueueDefinition(QueueSpec(self.name), id=number)
        self.receipts: list[PublishReceipt] = []

    def enqueue(self, *_args: object, **_options: object) -> PublishReceipt:
        self.receipts.append(PublishReceipt(1))
        return self.receipts[-1]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_publisher_hears_of_its_message_once_late_subscribers_have_it(qos: int) -> None:
    """And they are very many: others have their turns in between."""
    queues = [QueueElsewhere(number) for number in range(1, TARGETS_AT_ONCE + 2)]
    route_in_steps = VirtualHost.route_in_steps

    def route(
        vhost: VirtualHost, exchange: str, keys: Sequence[str], *rest: object
    ) -> Steps[object]:
        if keys:
            return (yield from route_in_steps(vhost, exchange, keys, *rest))  # type: ignore[arg-type]
        return queues, (), False

    clients = Clients()
    clients.begin_to_subscribe()
    with patch.object(VirtualHost, "route_in_steps", route):
        clients.publish(b"1", qos)
        clients.nodes.settle()
    assert [len(each.receipts) for each in queues] == [1] * len(queues)
    for queue in queues:
        assert not [each for each in clients.publisher.packets() if isinstance(each, Acks)]
        queue.receipts[0].known(0, 1, is_accepted=True)
        clients.nodes.settle()
    assert [*clients.publisher.expect(Acks).packet_ids] == [int.from_bytes(b"1")]
