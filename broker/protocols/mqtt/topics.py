"""Topics of MQTT as routing keys, and back; names of the queues that subscriptions have.

    topic            routing key        filter           routing key of a binding
    a/b              a.b                a/+/#            a.*.#
    spBv1.0/g/d      spBv1___0.g.d      with sparkplug alone

What is sent from MQTT to MQTT never goes through this: `a.b` and `a/b` are two topics with one
routing key.  AMQP knows a message by its key, and topics of what AMQP has published are made of it.

Source: rabbit_mqtt_util of RabbitMQ 4.0.5.  Queue names have at most 255 bytes here, as in AMQP
0-9-1: what would be longer ends in a digest.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256

from fluffle.protocol.spec import SHORTSTR_BYTES_MAX

TO_KEY = str.maketrans("/+", ".*")
TO_TOPIC = str.maketrans(".*", "/+")

SPARKPLUG_TOPIC = re.compile(r"sp[AB]v[0-9]+\.[0-9]+/")
SPARKPLUG_KEY = re.compile(r"sp[AB]v[0-9]+___[0-9]+\.")

SYS = "$SYS"
"""First level of the topics that the broker alone publishes to."""

BRIDGE_STATE = re.compile(rf"{re.escape(SYS)}/broker/connection/[^/]*/state")
"""Topics below it that are clients': a bridge of mosquitto says there whether it is connected."""

SUBSCRIPTION_PREFIX = "mqtt-subscription-"
QUEUE_ENDINGS = "qos0", "qos1"
"""Ends of the names of the queues of a session: for subscriptions of QoS 0, and for all others."""
SHARED_PREFIX = "mqtt-shared-"

DIGEST_DIGITS = 32
"""Hexadecimal digits of a digest of 128 bits, so that no two client identifiers with the same one
can be found."""
SHORTENED = re.compile(rf"~[0-9a-f]{{{DIGEST_DIGITS}}}\Z")

UTF8_BYTES_MAX = 4
"""Bytes of a character: a text that is cut between two has up to so many less one to spare."""


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


def subscription_queue(client_id: str, qos: int) -> str:
    """Return the name of the queue for a session's subscriptions of QoS 0, or for all others."""
    return subscription_queues(client_id)[min(qos, 1)]


@lru_cache(maxsize=64)
def subscription_queues(client_id: str) -> tuple[str, str]:
    """Return the names of both queues of a session: for subscriptions of QoS 0, and for others."""
    start = f"{SUBSCRIPTION_PREFIX}{client_id}"
    size = _size(start) + len(QUEUE_ENDINGS[0])
    # A client that calls itself by another's digest does not get the queue of the other.
    is_accepted = size > SHORTSTR_BYTES_MAX - UTF8_BYTES_MAX and SHORTENED.search(client_id)
    first, second = QUEUE_ENDINGS
    if size <= SHORTSTR_BYTES_MAX and not is_accepted:
        return start + first, start + second
    digest = _digest(client_id)
    return _shortened(start, digest + first), _shortened(start, digest + second)


def shared_queue(share_name: str, topic_filter: str) -> str:
    """Return the name of the queue that clients share who subscribe to `$share/NAME/FILTER`."""
    name = f"{SHARED_PREFIX}{share_name}-{_digest(topic_filter)}"
    if _size(name) <= SHORTSTR_BYTES_MAX:
        return name
    return _shortened(f"{SHARED_PREFIX}{share_name}", _digest(f"{share_name}/{topic_filter}"))


def is_shared(queue: str) -> bool:
    """True if a queue of MQTT is one that clients share."""
    return queue.startswith(SHARED_PREFIX)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def _shortened(name: str, ending: str) -> str:
    """Return as much of a name as there is room for beside an ending."""
    room = SHORTSTR_BYTES_MAX - len(ending) - 1
    return f"{name.encode()[:room].decode(errors='ignore')}~{ending}"
