"""Messages of QoS 1 and 2 from a client to another, while the node is killed between any two
steps."""

from __future__ import annotations

from random import Random

import pytest

from fluffle.protocol.mqtt.packets import Suback, Subscribe
from tests.suite.seeds import seeds
from tests.support.mqtt_peers import Peer, Publisher, StepByStep, Subscriber, at_each_step
from tests.support.mqtt_restarts import RestartedMqtt


class Conversation(StepByStep):
    """A publisher, a subscriber, and a node between them, moved step by step."""

    def __init__(self, qos: int) -> None:
        self.node = RestartedMqtt()
        self.publisher, self.subscriber = Publisher(self.node, qos), Subscriber(self.node, qos)
        line = self.node.connect("s", clean_start=False, expiry_s=3600, receive_max=2)
        line.send(Subscribe(1, [("t", qos)]))
        self.node.settle()
        line.expect(Suback)
        line.lose()
        self.node.settle()
        self.subscriber.was_present = True

    def node_steps(self) -> dict[str, bool]:
        node = self.node
        return {"wake": node.is_committed, "commit": node.has_work and not node.is_committed}

    def node_step(self, name: str) -> None:
        (self.node.wake if name == "wake" else self.node.commit)()

    def kill(self) -> None:
        self.node.kill()
        self.publisher.lose()
        self.subscriber.lose()

    def cut(self, peer: Peer) -> None:
        """Cut one line."""
        if peer.line is not None:
            peer.line.lose()
        peer.lose()

    def check(self, expected: list[bytes]) -> None:
        taken = self.subscriber.taken
        if self.publisher.qos == 2:
            assert taken == expected
            assert not self.subscriber.held
        else:
            firsts = list(dict.fromkeys(taken))
            assert firsts == expected, taken
        state = self.node.mqtt.server.states.find(("/", "s"))
        assert state is not None
        assert not state.packet_ids.used
        assert not self.node.mqtt.edge.vhost.client_sessions.packets
        assert not self.node.mqtt.edge.vhost.queues["mqtt-subscription-sqos1"].ready_count


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("is_lazy", [False, True], ids=["commits first", "commits last"])
def test_the_node_is_killed_once_at_each_step(qos: int, is_lazy: bool) -> None:
    steps = at_each_step(lambda: Conversation(qos), Conversation.kill, is_lazy=is_lazy)
    assert steps > 20


@pytest.mark.parametrize("qos", [1, 2])
@seeds(50)
def test_the_node_is_killed_and_lines_are_cut_at_random(qos: int, seed: int) -> None:
    random = Random(seed)
    conversation = Conversation(qos)
    for _ in range(150):
        drawn = random.random()
        if drawn < 0.04:
            conversation.kill()
        elif drawn < 0.07:
            conversation.cut(random.choice((conversation.publisher, conversation.subscriber)))
        elif steps := conversation.steps():
            conversation.step(random.choice(steps))
    conversation.finish()
