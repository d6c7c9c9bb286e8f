"""Topics and routing keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.protocols.mqtt.topics import PLAIN, TopicTranslator, is_plain

SPARKPLUG = TopicTranslator(sparkplug=True)


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
