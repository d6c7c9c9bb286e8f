"""Topics of MQTT as routing keys, and back.

    topic            routing key        filter           routing key of a binding
    a/b              a.b                a/+/#            a.*.#
    spBv1.0/g/d      spBv1___0.g.d      with sparkplug alone

What is sent from MQTT to MQTT never goes through this: `a.b` and `a/b` are two topics with one
routing key.  AMQP knows a message by its key, and topics of what AMQP has published are made of it.

Source: rabbit_mqtt_util of RabbitMQ 4.0.5.
"""

from __future__ import annotations

import re

TO_KEY = str.maketrans("/+", ".*")
TO_TOPIC = str.maketrans(".*", "/+")

SPARKPLUG_TOPIC = re.compile(r"sp[AB]v[0-9]+\.[0-9]+/")
SPARKPLUG_KEY = re.compile(r"sp[AB]v[0-9]+___[0-9]+\.")

SYS = "$SYS"
"""First level of the topics that the broker alone publishes to."""

BRIDGE_STATE = re.compile(rf"{re.escape(SYS)}/broker/connection/[^/]*/state")
"""Topics below it that are clients': a bridge of mosquitto says there whether it is connected."""


class TopicTranslator:
    """Translation of topics and topic filters to routing keys, and of routing keys to topics."""

    __slots__ = ("sparkplug",)

    def __init__(self, *, sparkplug: bool = False) -> None:
        self.sparkplug = sparkplug
        """True if the version in the first level of Sparkplug's topics keeps its dot."""

    def routing_key(self, topic: str) -> str:
        """Return the routing key of a topic, or of a topic filter; of any length."""
        if self.sparkplug and SPARKPLUG_TOPIC.match(topic):
            topic = topic.replace(".", "___", 1)
        return topic.translate(TO_KEY)

    def topic(self, routing_key: str) -> str:
        """Return the topic of a routing key."""
        topic = routing_key.translate(TO_TOPIC)
        if self.sparkplug and SPARKPLUG_KEY.match(routing_key):
            topic = topic.replace("___", ".", 1)
        return topic


PLAIN = TopicTranslator()


def is_plain(topic: str) -> bool:
    """True if `PLAIN` gives a topic back for its routing key."""
    return "." not in topic and "*" not in topic


def is_reserved(topic: str) -> bool:
    """Return whether a topic, or one that a filter matches, is the broker's own: `$SYS`, or below
    it, but for the states of bridges.  mosquitto lets clients publish the same."""
    if not topic.startswith(SYS) or topic[len(SYS) : len(SYS) + 1] not in ("", "/"):
        return False
    return BRIDGE_STATE.fullmatch(topic) is None
