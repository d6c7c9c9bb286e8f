"""Messages of QoS 1 and 2 from a client to another in a cluster, while nodes are killed and clients
move between any two steps: definitions and messages come true one after the other.

Both clients behave as in `test_session_kills`.
"""

from __future__ import annotations

from random import Random

import pytest

from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Disconnect, Suback, Subscribe
from tests.broker.protocols.mqtt.test_session_kills import (
    MESSAGES,
    STEPS_MAX,
    Peer,
    Publisher,
    Subscriber,
)
from tests.suite.seeds import seeds
from tests.support.mqtt_edge import MqttClient
from tests.support.mqtt_nodes import MqttNodes

NOT_THE_LAST = {ReasonCode.SESSION_TAKEN_OVER, ReasonCode.SERVER_UNAVAILABLE}
"""Answers to a client that has come elsewhere later, and is let in there before."""


class Home:
    """Node to which a client connects, which may be another the next time."""

    def __init__(self, nodes: MqttNodes, name: str) -> None:
        self.nodes = nodes
        self.name = name

    def begin(self, client_id: str, **terms: object) -> MqttClient:
        del terms
        return self.nodes.begin(self.name, client_id, receive_max=2)


class MovingPeer(Peer):
    """Client that connects again when a connection of its own that was on its way is let in
    later."""

    def act(self) -> None:
        packet = self.inbox[0] if self.inbox else None
        is_answer = isinstance(packet, Disconnect | Connack)
        if is_answer and getattr(packet, "code", None) in NOT_THE_LAST:
            self.lose()
        else:
            super().act()


class MovingPublisher(MovingPeer, Publisher):
    """Publisher that moves."""


class MovingSubscriber(MovingPeer, Subscriber):
    """Subscriber that moves."""


class Exchange:
    """A publisher, a subscriber, and two nodes between them, moved step by step."""

    def __init__(self, qos: int) -> None:
        self.nodes = nodes = MqttNodes()
        self.homes = {"p": Home(nodes, "a"), "s": Home(nodes, "b")}
        self.publisher = MovingPublisher(self.homes["p"], qos)  # type: ignore[arg-type]
        self.subscriber = MovingSubscriber(self.homes["s"], qos)  # type: ignore[arg-type]
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

    def steps(self) -> list[str]:
        """Name the steps that may be next."""
        return [
            name
            for name, may in {
                "commit": self.nodes.has_work,
                "subscriber": self.subscriber.can_act,
                "publisher": self.publisher.can_act,
                "publish": self.publisher.can_publish,
            }.items()
            if may
        ]

    def step(self, name: str) -> None:
        if name == "commit":
            self.nodes.commit()
        elif name == "publish":
            self.publisher.publish()
        else:
            (self.subscriber if name == "subscriber" else self.publisher).act()

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

    def finish(self) -> None:
        """Let all that happens come to an end, and see that all is well."""
        for _ in range(STEPS_MAX):
            steps = self.steps()
            if not steps:
                break
            self.step(steps[0])
        assert not self.steps(), "it comes to no end"
        assert self.publisher.is_done
        expected = [b"%d" % number for number in range(MESSAGES)]
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


FAULTS = ("kill a", "kill b", "move p", "move s")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("is_lazy", [False, True], ids=["commits first", "commits last"])
def test_one_fault_at_each_step(fault: str, qos: int, is_lazy: bool) -> None:
    at = 0
    while True:
        exchange = Exchange(qos)
        for _ in range(at):
            steps = exchange.steps()
            if not steps:
                break
            exchange.step(steps[-1] if is_lazy else steps[0])
        else:
            print(f"{fault} at {at}")
            act, name = fault.split()
            getattr(exchange, act)(name)
            exchange.finish()
            at += 1
            continue
        break
    assert at > 15
    exchange.finish()


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
