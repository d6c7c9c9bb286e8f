"""Topics and routing keys, and names of queues."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.protocols.mqtt.topics import (
    PLAIN,
    TopicTranslator,
    is_plain,
    subscription_queue,
)

SPARKPLUG = TopicTranslator(sparkplug=True)
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300)


@pytest.mark.parametrize(
    ("topic", "key"),
    [
        ("a/b", "a.b"),
        ("/a//", ".a.."),
        ("a/+/#", "a.*.#"),
        ("a.b", "a.b"),
        ("ä/漢", "ä.漢"),
        ("spBv1.0/g", "spBv1.0.g"),
    ],
)
def test_a_topic_is_a_routing_key_with_dots(topic: str, key: str) -> None:
    assert PLAIN.routing_key(topic) == key


@pytest.mark.parametrize(
    ("key", "topic"), [("a.b", "a/b"), ("a/b", "a/b"), ("*.#", "+/#"), ("", "")]
)
def test_a_routing_key_is_a_topic_with_slashes(key: str, topic: str) -> None:
    assert PLAIN.topic(key) == topic


@pytest.mark.parametrize(
    ("topic", "key"),
    [
        ("spAv1.0/g/d.x", "spAv1___0.g.d.x"),
        ("spBv12.34/+", "spBv12___34.*"),
        ("spBv1.0", "spBv1.0"),
        ("spCv1.0/g", "spCv1.0.g"),
        ("x/spBv1.0/g", "x.spBv1.0.g"),
    ],
)
def test_the_version_of_sparkplug_keeps_its_dot(topic: str, key: str) -> None:
    assert SPARKPLUG.routing_key(topic) == key
    if "___" in key and "." not in topic.partition("/")[2]:
        assert SPARKPLUG.topic(key) == topic


@given(st.text("ab./+*#_sB1v0p"))
def test_plain_topics_come_back(topic: str) -> None:
    assert (PLAIN.topic(PLAIN.routing_key(topic)) == topic) is is_plain(topic)


def test_queues_of_a_session_are_named_by_its_client() -> None:
    assert subscription_queue("meter 7", 0) == "mqtt-subscription-meter 7qos0"
    assert subscription_queue("meter 7", 1) == "mqtt-subscription-meter 7qos1"
    assert subscription_queue("meter 7", 2) == "mqtt-subscription-meter 7qos1"


def test_the_longest_name_is_not_shortened() -> None:
    name = subscription_queue("x" * (255 - 18 - 4), 1)
    assert name == f"mqtt-subscription-{'x' * 233}qos1"
    longer = subscription_queue("x" * 234, 1)
    digest = sha256(b"x" * 234).hexdigest()[:32]
    assert longer == f"mqtt-subscription-{'x' * 200}~{digest}qos1"
    assert len(longer) == 255


def test_a_client_that_is_called_like_a_digest_has_a_queue_of_its_own() -> None:
    victim = subscription_queue("x" * 300, 1)
    thief = victim.removeprefix("mqtt-subscription-").removesuffix("qos1")
    assert subscription_queue(thief, 1) != victim


@given(st.lists(IDS, min_size=2, max_size=2, unique=True))
def test_each_client_has_its_queues(clients: list[str]) -> None:
    names = {subscription_queue(client, qos) for client in clients for qos in (0, 1)}
    assert len(names) == 4
    assert max(len(name.encode()) for name in names) <= 255
