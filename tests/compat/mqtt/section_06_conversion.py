"""Sections 6.3 and 6.4: what is rare in properties, and messages that have died."""

from __future__ import annotations

from typing import Any

from tests.compat.mqtt.packets import FIVE, Property
from tests.compat.mqtt.scenario import AMQP, Peer, scenario
from tests.compat.mqtt.section_01_wire import VERSIONS
from tests.compat.mqtt.section_06_amqp import PERSISTENT, TOPIC, bound, got

NO_RETAINED = 0x20
"""Retain Handling 2: others have left some."""


@scenario("6.3", of=AMQP)
def properties_with_the_names_of_others(peer: Peer) -> None:
    """User properties whose headers mean something in AMQP, or stand for other properties."""
    it = bound(peer, peer.name, f"{peer.name}.#")
    client = peer.open("client")
    cases: dict[str, tuple[tuple[int, Any], ...]] = {
        "routing": ((Property.USER, ("CC", "other")), (Property.USER, ("BCC", "other"))),
        "correlations": (
            (Property.CORRELATION_DATA, b"\xff"),
            (Property.USER, ("x-correlation-id", "mine")),
        ),
        "correlation of a user": ((Property.USER, ("x-correlation-id", "mine")),),
        "responses": (
            (Property.RESPONSE_TOPIC, "r/1.2"),
            (Property.USER, ("x-reply-to-topic", "mine")),
        ),
        "names by octets": tuple((Property.USER, (name, "")) for name in ("é", "z", "Z", "a/b")),
        "longest expiry": ((Property.MESSAGE_EXPIRY, 0xFFFF_FFFF),),
    }
    for name, properties in cases.items():
        client.publish(peer.topic("a"), name, qos=1, properties=properties)
        got(it, peer.name)


@scenario("6.4", of=AMQP)
def values_of_headers(peer: Peer) -> None:
    client = peer.open("client")
    client.subscribe((peer.topic("a"), 1))
    it = peer.amqp()
    it.confirms()
    cases: dict[str, dict[str, Any]] = {
        "floats": {"headers": {"double": ("d", 2.5), "float": ("f", 0.5)}},
        "integers": {"headers": {tag: (tag, 7) for tag in "bBsuIil"}},
        "lines": {"headers": {"trace": "first\nsecond"}},
        "names": {"headers": {"é": "1", "": "2"}},
        "counts": {"headers": {"x-delivery-count": 3, "x-acquired-count": 4}},
        "empty": {"content_type": "", "correlation_id": ""},
        "expiration": {"expiration": "60000"},
    }
    for name, properties in cases.items():
        it.publish(TOPIC, f"{peer.name}.a", name, delivery_mode=PERSISTENT, **properties)
        it.expect("Basic.Ack")
        client.take(1)


@scenario("6.4", of=AMQP)
def an_amqp_message_that_has_died(peer: Peer) -> None:
    clients = [peer.open(f"in {version}", version) for version in VERSIONS.values()]
    for client in clients:
        client.subscribe((peer.topic("dead"), 1))
    it = peer.amqp()
    arguments = {
        "x-message-ttl": 1,
        "x-dead-letter-exchange": TOPIC,
        "x-dead-letter-routing-key": f"{peer.name}.dead",
    }
    it.declare(peer.name, arguments, exclusive=True)
    it.confirms()
    it.publish("", peer.name, "died", delivery_mode=PERSISTENT, headers={"mine": "1"})
    it.expect("Basic.Ack")
    for client in clients:
        client.take(1)


@scenario("6.3", "6.4", of=AMQP)
def an_mqtt_message_that_has_died(peer: Peer) -> None:
    """On its way through a queue of AMQP, once with its own key and once with another."""
    client = peer.open("client", FIVE)
    client.subscribe((peer.topic("dead"), 1), (f"other/{peer.name}/a", 1))
    it = peer.amqp()
    dead = {"x-message-ttl": 1, "x-dead-letter-exchange": TOPIC}
    named = {**dead, "x-dead-letter-routing-key": f"{peer.name}.dead"}
    it.declare(peer.name, named, exclusive=True)
    it.bind(peer.name, TOPIC, f"{peer.name}.a")
    publisher = peer.open("publisher", FIVE)
    properties = (
        (Property.CONTENT_TYPE, "text/plain"),
        (Property.USER, ("b", "1")),
        (Property.USER, ("a", "2")),
        (Property.USER, ("b", "3")),
    )
    publisher.publish(peer.topic("a"), "died", qos=1, properties=properties)
    client.take(1)


@scenario("6.4", of=AMQP)
def keys_that_are_no_topics(peer: Peer) -> None:
    client = peer.open("client")
    client.subscribe(("#", 1 | NO_RETAINED))
    it = peer.amqp()
    it.confirms()
    for key in ("", "\x01", f"{peer.name}.*.#"):
        it.publish(TOPIC, key, repr(key), delivery_mode=PERSISTENT)
        it.expect("Basic.Ack")
    it.publish(TOPIC, f"{peer.name}.end", "end", delivery_mode=PERSISTENT)
    it.expect("Basic.Ack")
    client.until(b"end")
