"""Messages of QoS 1 and 2 from a client to another in a cluster, while nodes are killed and clients
move between any two steps: definitions and messages come true one after the other."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from fluffle.protocol.mqtt.codes import PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Disconnect, Suback, Subscribe, Will
from fluffle.protocol.mqtt.reader import Acks, Publishes
from tests.suite.seeds import seeds
from tests.support.mqtt_edge import MqttClient
from tests.support.mqtt_nodes import MqttNodes
from tests.support.mqtt_peers import (
    MovingPublisher,
    MovingSubscriber,
    Peer,
    StepByStep,
    at_each_step,
)


class Home:
    """Node to which a client connects, which may be another the next time."""

    def __init__(self, nodes: MqttNodes, name: str) -> None:
        self.nodes = nodes
        self.name = name

    def begin(self, client_id: str, **terms: Any) -> MqttClient:
        del terms
        return self.nodes.begin(self.name, client_id, receive_max=2)


class Exchange(StepByStep):
    """A publisher, a subscriber, and two nodes between them, moved step by step."""

    def __init__(self, qos: int) -> None:
        self.nodes = nodes = MqttNodes()
        self.homes = {"p": Home(nodes, "a"), "s": Home(nodes, "b")}
        self.publisher = MovingPublisher(self.homes["p"], qos)
        self.subscriber = MovingSubscriber(self.homes["s"], qos)
        line = nodes.begin("b", "s", receive_max=2)
        nodes.settle()
        line.packets()
        line.send(Subscribe(1, [("t", qos)]))
        nodes.settle()
        line.expect(Suback)
        line.lose()
        nodes.settle()
        self.subscriber.was_present = True

    @property
    def peers(self) -> tuple[Peer, Peer]:
        return self.publisher, self.subscriber

    def node_steps(self) -> dict[str, bool]:
        return {"commit": self.nodes.has_work}

    def node_step(self, name: str) -> None:
        assert name == "commit"
        self.nodes.commit()

    def kill(self, node: str) -> None:
        """Kill a node; its clients come back at the other."""
        self.nodes.kill(node)
        for name, peer in zip("ps", self.peers, strict=True):
            if self.homes[name].name == node:
                peer.lose()
                self.homes[name].name = "ab".replace(node, "")

    def move(self, name: str) -> None:
        """Have a client connect to the other node, and leave the connection before as it is."""
        home, peer = self.homes[name], dict(zip("ps", self.peers, strict=True))[name]
        home.name = "ab".replace(home.name, "")
        peer.lose()

    def check(self, expected: list[bytes]) -> None:
        taken = self.subscriber.taken
        if self.publisher.qos == 2:
            assert sorted(taken) == expected
            assert not self.subscriber.held
        else:
            assert sorted(set(taken)) == expected, taken
        assert not self.nodes.edge.vhost.queues["mqtt-subscription-sqos1"].ready_count


def test_who_starts_anew_at_another_node_takes_over_the_session_that_ends() -> None:
    nodes = MqttNodes()
    before = nodes.begin("a", "c")
    nodes.settle()
    before.expect(Connack)
    after = nodes.begin("b", "c", clean_start=True, expiry_s=0)
    nodes.settle()
    assert not after.expect(Connack).session_present
    assert before.packets() == [Disconnect(ReasonCode.SESSION_TAKEN_OVER)]
    assert after.packets() == []


@pytest.mark.parametrize("delay_s", [0, 30])
def test_who_comes_elsewhere_ends_a_session_that_ends_with_its_connection(delay_s: int) -> None:
    """So it is not present, as at one node, and the will of it comes though it was to wait."""
    nodes = MqttNodes()
    watcher = nodes.begin("b", "watcher")
    nodes.settle()
    watcher.send(Subscribe(1, [("w", 1)]))
    nodes.begin("a", "c").lose()
    nodes.settle()
    watcher.packets()
    before = nodes.begin("a", "c", expiry_s=0, will=Will(b"w", b"gone", 1, delay_s=delay_s))
    nodes.settle()
    assert before.expect(Connack).session_present
    after = nodes.begin("b", "c", expiry_s=60)
    nodes.settle()
    assert not after.expect(Connack).session_present
    assert before.packets() == [Disconnect(ReasonCode.SESSION_TAKEN_OVER)]
    assert watcher.messages() == [("w", b"gone", 1)]


def test_who_comes_elsewhere_while_it_subscribes_is_let_in() -> None:
    """Its exclusive queue is there, and no binding yet says that it is of a subscription."""
    nodes = MqttNodes()
    before = nodes.begin("a", "c", expiry_s=0)
    before.send(Subscribe(1, [("t", 1)]))
    nodes.commit()
    queue = nodes.edge.vhost.queues["mqtt-subscription-cqos1"]
    assert queue.owner is not None
    line = nodes.begin("b", "c", expiry_s=0)
    nodes.settle()
    assert line.expect(Connack).code is ReasonCode.SUCCESS
    assert queue.name not in nodes.edge.vhost.queues


def overtake_before_it_is_answered() -> None:
    """A client comes to another node, and to a third before the second has heard that the session
    is its own: the will of the first connection is on no record any more."""
    nodes, late = MqttNodes(), list[Callable[[], None]]()
    watcher = nodes.begin("a", "watcher")
    nodes.settle()
    watcher.send(Subscribe(1, [("w", 1)]))
    nodes.settle()
    nodes.begin("a", "c", will=Will(b"w", b"first", 1))
    nodes.settle()
    watcher.packets()
    nodes.nodes["b"].metadata.hear = late.append
    overtaken = nodes.begin("b", "c", will=Will(b"w", b"second", 1))
    nodes.settle()
    nodes.begin("a", "c")
    nodes.settle()
    for hear in late:
        hear()
    nodes.settle()
    assert overtaken.expect(Connack).code is ReasonCode.SERVER_UNAVAILABLE
    came = [payload for _, payload, _ in watcher.messages()]
    assert sorted(came) == [b"first", b"second"]


def test_the_will_of_a_connection_comes_though_who_ends_it_is_overtaken() -> None:
    overtake_before_it_is_answered()


def test_who_publishes_to_a_session_that_is_gone_is_not_kept_waiting() -> None:
    """His node has missed that it ended: it has come to what is so now in one go."""
    nodes = MqttNodes()
    client = nodes.begin("a", "c")
    nodes.settle()
    client.expect(Connack)
    del nodes.edge.vhost.client_sessions.by_client["c"]
    client.publish("t", b"x", 2)
    nodes.settle()
    assert client.packets() == [Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)]


def test_the_end_of_a_connection_is_not_on_record_of_a_session_that_has_moved() -> None:
    nodes = MqttNodes()
    before = nodes.begin("a", "c")
    nodes.settle()
    nodes.begin("b", "c")
    before.lose()
    nodes.settle()
    kept = nodes.edge.vhost.client_sessions.by_client["c"]
    assert (kept.node, kept.ended_at_ms) == ("b", 0)


def test_a_session_that_has_moved_is_not_remembered_where_it_was() -> None:
    nodes = MqttNodes()
    before = nodes.begin("a", "c")
    nodes.settle()
    before.lose()
    nodes.settle()
    nodes.begin("b", "c")
    nodes.settle()
    assert [[state.client_id for state in node.server.states] for node in nodes.nodes.values()] == [
        [],
        ["c"],
    ]


def test_a_retained_message_whose_node_is_lost_is_released_elsewhere() -> None:
    """A message that is in no queue is not sent again; its client may hold it."""
    nodes = MqttNodes()
    publisher, subscriber = nodes.begin("a", "p"), nodes.begin("b", "s")
    nodes.settle()
    publisher.publish("t", b"x", 2, retain=True)
    nodes.settle()
    subscriber.expect(Connack)
    subscriber.send(Subscribe(1, [("t", 2)]))
    nodes.settle()
    subscriber.expect(Suback)
    [packet_id] = subscriber.expect(Publishes).packet_ids
    nodes.kill("b")
    subscriber = nodes.begin("a", "s")
    nodes.settle()
    assert subscriber.expect(Connack).session_present
    acks = subscriber.expect(Acks)
    assert (acks.kind, [*acks.packet_ids]) == (PacketType.PUBREL, [packet_id])


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_is_answered_once_it_is_retained(qos: int) -> None:
    nodes = MqttNodes()
    client = nodes.begin("a", "c")
    nodes.settle()
    client.expect(Connack)
    client.publish("t", b"x", qos, retain=True)
    while nodes.has_work:
        assert not client.acks()
        nodes.commit()
        if client.transport.writes[1:]:
            break
    assert nodes.edge.vhost.retained.count == 1
    nodes.settle()
    assert len(client.acks()) == 1


FAULTS = ("kill a", "kill b", "move p", "move s")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("is_lazy", [False, True], ids=["commits first", "commits last"])
def test_one_fault_at_each_step(fault: str, qos: int, is_lazy: bool) -> None:
    act, name = fault.split()
    steps = at_each_step(
        lambda: Exchange(qos), lambda exchange: getattr(exchange, act)(name), is_lazy=is_lazy
    )
    assert steps > 15


@pytest.mark.parametrize("qos", [1, 2])
@seeds(50)
def test_faults_at_random(qos: int, seed: int) -> None:
    random = Random(seed)
    exchange = Exchange(qos)
    for _ in range(150):
        drawn = random.random()
        if drawn < 0.04:
            exchange.kill(random.choice("ab"))
        elif drawn < 0.07:
            exchange.move(random.choice("ps"))
        elif steps := exchange.steps():
            exchange.step(random.choice(steps))
    exchange.finish()
