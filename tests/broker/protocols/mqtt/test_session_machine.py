"""Two MQTT clients and their sessions under whatever rules choose: what each is sent is what it
must be sent, in order, and of QoS 2 exactly once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5
from tests.suite.seeds import machine_settings, seeds
from tests.support.mqtt_model import NO_LOCAL, MqttWorld

NAMES = ("a", "b")
TOPICS = ("t", "t/1", "u")
FILTERS = ("t", "t/#", "t/+", "u", "+", "#")
QOS = (0, 1, 2)
OPTIONS = (0b000, 0b100, 0b010000, 0b100000)
"""None; no local; retained messages for what is new; none of them."""

NAME, COUNT = st.sampled_from(NAMES), st.integers(1, 4)


class SessionMachine(RuleBasedStateMachine):
    """Machine of two clients: the model checks all that they are sent."""

    @initialize()
    def begin(self) -> None:
        self.world = MqttWorld()

    @rule(
        name=NAME,
        version=st.sampled_from([MQTT_5, MQTT_5, MQTT_3_1_1]),
        terms=st.fixed_dictionaries(
            {
                "clean_start": st.sampled_from([False, False, False, True]),
                "expiry_s": st.sampled_from([100, 100, 0]),
                "receive_max": st.sampled_from([0, 1, 2, 2]),
                "will": st.sampled_from([None, None, 0, 20]),
            }
        ),
    )
    def connect(self, name: str, version: int, terms: dict[str, Any]) -> None:
        self.world.connect(name, version, **terms)
        self.world.read(name, 1)

    @rule(
        name=NAME,
        topic_filter=st.sampled_from(FILTERS),
        qos=st.sampled_from(QOS),
        options=st.sampled_from(OPTIONS),
    )
    def subscribe(self, name: str, topic_filter: str, qos: int, options: int) -> None:
        self.world.subscribe(name, topic_filter, qos | options)

    @rule(name=NAME, topic_filter=st.sampled_from(FILTERS))
    def unsubscribe(self, name: str, topic_filter: str) -> None:
        self.world.unsubscribe(name, topic_filter)

    @rule(
        name=NAME,
        topic=st.sampled_from(TOPICS),
        qos=st.sampled_from(QOS),
        kind=st.sampled_from(["live", "live", "retain", "empty"]),
        count=st.integers(1, 3),
    )
    def publish(self, name: str, topic: str, qos: int, kind: str, count: int) -> None:
        for _ in range(count):
            self.world.publish(name, topic, qos, retain=kind != "live", empty=kind == "empty")

    @rule(name=NAME, count=COUNT)
    def read(self, name: str, count: int) -> None:
        self.world.read(name, count)

    @rule(name=NAME, count=COUNT)
    def flush(self, name: str, count: int) -> None:
        self.world.flush(name, count)

    @rule()
    def run(self) -> None:
        self.world.run()

    @rule(name=NAME)
    def cut(self, name: str) -> None:
        self.world.cut(name)

    @rule(name=NAME, with_will=st.booleans(), ends=st.sampled_from([False, False, True]))
    def disconnect(self, name: str, *, with_will: bool, ends: bool) -> None:
        self.world.disconnect(name, with_will=with_will, ends=ends)

    @rule()
    def kill(self) -> None:
        self.world.kill()

    @rule(seconds=st.sampled_from([7, 60]))
    def advance(self, seconds: int) -> None:
        self.world.advance(seconds)

    def teardown(self) -> None:
        self.world.finish()


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = machine_settings(stateful_step_count=60)


def walk(seed: int, steps: int) -> None:
    """Have clients do what a seed decides, mostly what has an effect."""
    random, world = Random(seed), MqttWorld()
    for _ in range(steps):
        name, client = random.choice(tuple(world.clients.items()))
        drawn = random.random()
        if client.line is None or drawn < 0.03:
            world.connect(
                name,
                random.choice((MQTT_5, MQTT_5, MQTT_3_1_1)),
                clean_start=random.random() < 0.15,
                expiry_s=random.choice((100, 100, 0)),
                receive_max=random.choice((0, 1, 2, 2)),
                will=random.choice((None, None, 0, 20)),
            )
            world.read(name, 1)
        elif drawn < 0.12:
            options = random.choice(OPTIONS)
            world.subscribe(name, random.choice(FILTERS), random.choice(QOS) | options)
        elif drawn < 0.15:
            world.unsubscribe(name, random.choice(FILTERS))
        elif drawn < 0.45:
            kind = random.choice(("live", "live", "live", "retain", "empty"))
            topic, qos = random.choice(TOPICS), random.choice((0, 1, 2, 2))
            world.publish(name, topic, qos, retain=kind != "live", empty=kind == "empty")
        elif drawn < 0.68:
            world.read(name, random.randint(1, 4))
        elif drawn < 0.90:
            world.flush(name, random.randint(1, 4))
        elif drawn < 0.94:
            world.cut(name)
        elif drawn < 0.95:
            world.disconnect(name, with_will=random.random() < 0.5, ends=random.random() < 0.3)
        elif drawn < 0.97:
            world.kill()
        elif drawn < 0.985:
            world.advance(random.choice((7, 60)))
        else:
            world.run()
    world.finish()


@seeds(50)
def test_sessions_keep_their_promises(seed: int) -> None:
    walk(seed, 150)


def connected(topic_filter: str = "t", options: int = 0, **terms: Any) -> MqttWorld:
    """A client that has connected and subscribed."""
    world = MqttWorld()
    world.connect("a", **terms)
    world.read("a")
    world.subscribe("a", topic_filter, options)
    world.run()
    return world


def test_what_is_retained_for_one_filter_comes_with_what_is_retained_by_then() -> None:
    """Messages of QoS 1 and 2 wait for room; those for a filter of QoS 0 wait for none."""
    world = MqttWorld()
    for name, receive_max in (("a", 1), ("b", 2)):
        world.connect(name, receive_max=receive_max)
        world.read(name)
    world.publish("b", "t", 0, retain=True)
    world.subscribe("a", "u", 1)
    world.run()
    world.publish("b", "u", 1)
    world.flush("b")
    world.subscribe("a", "#", 2)
    world.subscribe("a", "+", 0)
    world.flush("a", 2)
    world.publish("b", "t", 2, retain=True)
    world.flush("b")
    world.run()
    world.finish()


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 0)])
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_message_is_sent_again_with_the_qos_that_it_had(
    before: int, after: int, *, is_killed: bool
) -> None:
    world = connected(options=before)
    world.publish("a", "t", 2)
    world.flush("a")
    world.read("a", 9)
    assert world.clients["a"].read, "it has come"
    world.clients["a"].outbox.clear()  # so that it is not answered
    world.subscribe("a", "t", after)
    world.flush("a")
    if is_killed:
        world.kill()
    else:
        world.cut("a")
    world.finish()


def test_no_local_holds_beside_a_filter_of_qos_0() -> None:
    world = connected(options=NO_LOCAL | 1)
    world.subscribe("a", "+", 0)
    world.run()
    world.publish("a", "t", 1)
    world.finish()


def test_retained_messages_go_on_once_pubcomp_is_durable() -> None:
    world = connected("other", receive_max=1)
    for topic in TOPICS:
        world.publish("a", topic, 2, retain=True)
    world.run()
    world.subscribe("a", "#", 2)
    world.finish()
