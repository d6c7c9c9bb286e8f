"""Section 6: what AMQP clients see of MQTT, and MQTT clients of AMQP."""

from __future__ import annotations

from typing import Any

from tests.compat.mqtt.packets import FIVE, Property
from tests.compat.mqtt.scenario import AMQP, Peer, scenario
from tests.compat.mqtt.section_01_wire import VERSIONS
from tests.compat.mqtt.section_02_sessions import lasting
from tests.compat.verbs import Speaker

TOPIC = "amq.topic"
PERSISTENT = 2


def bound(peer: Peer, queue: str, key: str) -> Speaker:
    """A queue of an AMQP client with a binding to MQTT's exchange."""
    it = peer.amqp()
    it.declare(queue, exclusive=True)
    it.bind(queue, TOPIC, key)
    return it


def got(it: Speaker, queue: str) -> None:
    """Ask until the queue has a message."""
    while it.get(queue).name != "Basic.GetOk":
        pass
    it.forget(f"[{it.number}] Basic.GetEmpty")


@scenario("6.1", of=AMQP)
def queues_of_a_session_that_ends(peer: Peer) -> None:
    """Such queues are exclusive: another connection may not ask for them."""
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        client.subscribe((peer.topic("a"), 0), (peer.topic("b"), 1))
        for qos in (0, 1):
            it = peer.amqp(f"qos{qos} in {version}")
            it.declare(f"mqtt-subscription-{client.client_id}qos{qos}", passive=True, durable=True)


@scenario("6.1", of=AMQP)
def queues_of_a_session_that_lasts(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        client.quietly(**lasting(version))
        client.subscribe((peer.topic("a"), 0), (peer.topic("b"), 1))
        client.leave()
        for qos in (0, 1):
            name = f"mqtt-subscription-{client.client_id}qos{qos}"
            it = peer.amqp(f"qos{qos} in {version}")
            it.declare(name, passive=True)
            expires = 300_000 if version == FIVE else 86_400_000
            it.another().declare(name, {"x-expires": expires}, durable=True)
            it.another().declare(name, durable=True)


@scenario("6.1", of=AMQP)
def a_client_that_only_publishes_has_no_queue(peer: Peer) -> None:
    client = peer.open("client", **lasting(FIVE))
    client.publish(peer.topic("a"), qos=1)
    for qos in (0, 1):
        it = peer.amqp(f"qos{qos}")
        it.declare(f"mqtt-subscription-{client.client_id}qos{qos}", passive=True)


@scenario("6.1", of=AMQP)
def an_amqp_client_takes_what_waits_for_a_session(peer: Peer) -> None:
    client = peer.client("client")
    client.quietly(**lasting(FIVE))
    client.subscribe((peer.topic("a"), 1))
    client.leave()
    peer.open("publisher").publish(peer.topic("a"), "waits", qos=1)
    it = peer.amqp()
    got(it, f"mqtt-subscription-{client.client_id}qos1")


@scenario("6.1", of=AMQP)
def a_message_to_the_queue_of_a_session(peer: Peer) -> None:
    client = peer.open("client")
    client.subscribe((peer.topic("a"), 1))
    it = peer.amqp()
    it.confirms()
    name = f"mqtt-subscription-{client.client_id}qos1"
    it.publish("", name, "direct", delivery_mode=PERSISTENT)
    it.expect("Basic.Ack")
    client.take(1)


@scenario("6.1", of=AMQP)
def a_message_that_a_client_refuses_is_a_dead_letter(peer: Peer) -> None:
    """A PUBACK of 0x80 and more settles it; the client gets the next."""
    client = peer.open("client")
    client.subscribe((peer.topic("a"), 1))
    other = peer.open("other")
    other.publish(peer.topic("a"), "refused", qos=1)
    (heard,) = client.take(1, acknowledge=False)
    client.send(b"\x40\x03" + heard.packet_id.to_bytes(2) + b"\x80")
    other.publish(peer.topic("a"), "taken", qos=1)
    client.take(1)
    client.settle()


@scenario("6.2", "6.3", of=AMQP)
def topics_become_routing_keys(peer: Peer) -> None:
    it = bound(peer, peer.name, "#.topics_become_routing_keys.#")
    client = peer.open("client", 4)
    for rest in ("a", "a/b", "/a", "a/", "a//b", "a.b", "a b", "*", "é/ü"):
        client.publish(peer.topic(rest), rest, qos=1)
        got(it, peer.name)


@scenario("6.2", "6.4", of=AMQP)
def routing_keys_become_topics(peer: Peer) -> None:
    client = peer.open("client")
    client.subscribe((peer.topic("#"), 1))
    it = peer.amqp()
    it.confirms()
    for rest in ("a", "a.b", ".a", "a.", "a..b", "a/b", "a b", "*", "#", "é"):
        it.publish(TOPIC, f"{peer.name}.{rest}", rest, delivery_mode=PERSISTENT)
        it.expect("Basic.Ack")
        client.take(1)


@scenario("6.2", of=AMQP)
def filters_match_routing_keys(peer: Peer) -> None:
    it = peer.amqp()
    it.confirms()
    for rest in ("+", "#", "a/+", "a/#", "+/b"):
        client = peer.open(rest)
        client.subscribe((peer.topic(f"{rest}"), 1), (peer.topic("end/x/y/z"), 1))
        for key in ("a", "a.b", "a.b.c", ""):
            it.publish(TOPIC, f"{peer.name}.{key}" if key else peer.name, key)
            it.expect("Basic.Ack")
        it.publish(TOPIC, f"{peer.name}.end.x.y.z", "end")
        it.expect("Basic.Ack")
        client.until(b"end")


@scenario("6.3", of=AMQP)
def a_plain_message_for_amqp(peer: Peer) -> None:
    it = bound(peer, peer.name, f"{peer.name}.#")
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        for qos in (0, 1):
            client.publish(peer.topic("a"), f"QoS {qos}", qos=qos)
            got(it, peer.name)
        client.publish(peer.topic("a"), "retained", qos=1, retain=True)
        got(it, peer.name)
        client.publish(peer.topic("a"), "", qos=1)
        got(it, peer.name)


@scenario("6.3", of=AMQP)
def properties_for_amqp(peer: Peer) -> None:
    it = bound(peer, peer.name, f"{peer.name}.#")
    client = peer.open("client")
    cases: dict[str, tuple[tuple[int, Any], ...]] = {
        "content type": ((Property.CONTENT_TYPE, "text/plain"),),
        "content type not ASCII": ((Property.CONTENT_TYPE, "text/é"),),
        "long content type": ((Property.CONTENT_TYPE, "x" * 256),),
        "correlation": ((Property.CORRELATION_DATA, b"id"),),
        "binary correlation": ((Property.CORRELATION_DATA, b"\xff\xfe"),),
        "long correlation": ((Property.CORRELATION_DATA, b"x" * 300),),
        "empty correlation": ((Property.CORRELATION_DATA, b""),),
        "response": ((Property.RESPONSE_TOPIC, "answers/to/me"),),
        "users": (
            (Property.USER, ("b", "1")),
            (Property.USER, ("a", "2")),
            (Property.USER, ("b", "3")),
        ),
        "user empty": ((Property.USER, ("", "")),),
        "user with a long name": ((Property.USER, ("x" * 256, "y")), (Property.USER, ("a", "z"))),
        "expiry": ((Property.MESSAGE_EXPIRY, 60),),
        "format": ((Property.PAYLOAD_FORMAT, 1),),
        "x-headers": ((Property.USER, ("x-mine", "1")), (Property.USER, ("x-death", "2"))),
        "all": (
            (Property.PAYLOAD_FORMAT, 1),
            (Property.CONTENT_TYPE, "application/json"),
            (Property.CORRELATION_DATA, b"c"),
            (Property.RESPONSE_TOPIC, "r/s"),
            (Property.USER, ("k", "v")),
        ),
    }
    for name, properties in cases.items():
        client.publish(peer.topic("a"), name, qos=1, properties=properties)
        got(it, peer.name)


@scenario("6.4", of=AMQP)
def properties_for_mqtt(peer: Peer) -> None:
    clients = [peer.open(f"in {version}", version) for version in VERSIONS.values()]
    for client in clients:
        client.subscribe((peer.topic("a"), 1))
    it = peer.amqp()
    it.confirms()
    cases: dict[str, dict[str, Any]] = {
        "nothing": {},
        "transient": {"delivery_mode": 1},
        "persistent": {"delivery_mode": PERSISTENT},
        "content type": {"content_type": "text/plain", "content_encoding": "gzip"},
        "correlation": {"correlation_id": "id"},
        "correlation header": {"headers": {"x-correlation-id": "long"}},
        "both correlations": {"correlation_id": "id", "headers": {"x-correlation-id": "long"}},
        "reply-to": {"reply_to": "queue"},
        "reply-to header": {"headers": {"x-reply-to-topic": "answers.to.*"}},
        "dropped": {
            "message_id": "m",
            "type": "t",
            "app_id": "a",
            "user_id": "guest",
            "timestamp": 7,
            "priority": 3,
        },
        "headers": {
            "headers": {
                "text": "é",
                "number": 7,
                "negative": -1,
                "yes": True,
                "no": False,
                "nothing": ("V", None),
                "list": [1],
                "table": {"a": 1},
                "bytes": ("x", b"\1"),
                "time": ("T", 1_700_000_000),
            }
        },
        "not UTF-8": {"headers": {"raw": ("S", b"\xff"), "zero": ("S", b"a\0b")}},
        "x-headers": {"headers": {"x-mine": "1", "CC": ["nowhere"]}},
    }
    for name, properties in cases.items():
        it.publish(TOPIC, f"{peer.name}.a", name, **properties)
        it.expect("Basic.Ack")
        for client in clients:
            client.take(1)


@scenario("6.4", of=AMQP)
def copies_by_cc(peer: Peer) -> None:
    client = peer.open("client")
    client.subscribe((peer.topic("+"), 1))
    it = peer.amqp()
    it.confirms()
    others = [f"{peer.name}.b", f"{peer.name}.c"]
    it.publish(TOPIC, f"{peer.name}.a", "once", delivery_mode=PERSISTENT, headers={"CC": others})
    it.expect("Basic.Ack")
    it.publish(TOPIC, f"{peer.name}.end", "end", delivery_mode=PERSISTENT)
    it.expect("Basic.Ack")
    client.until(b"end")


@scenario("6.4", of=AMQP)
def mandatory_messages_for_sessions(peer: Peer) -> None:
    client = peer.open("client")
    it = peer.amqp()
    it.confirms()
    it.publish(TOPIC, f"{peer.name}.a", "nobody", mandatory=True)
    it.expect("Basic.Ack")
    for qos in (0, 1):
        client.subscribe((peer.topic(f"{qos}"), qos))
        it.publish(TOPIC, f"{peer.name}.{qos}", f"{qos}", mandatory=True)
        it.expect("Basic.Ack")
        client.take(1)


@scenario("6.4", of=AMQP)
def an_amqp_message_waits_for_a_session(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        client.quietly(**lasting(version))
        client.subscribe((peer.topic(f"{version}"), 1))
        client.leave()
        it = peer.amqp(f"amqp for {version}")
        it.confirms()
        it.publish(TOPIC, f"{peer.name}.{version}", "waits", delivery_mode=PERSISTENT)
        it.expect("Basic.Ack")
        client.quietly(**lasting(version))
        client.take(1)


@scenario("6.1", of=AMQP)
def another_binding_of_a_session_queue(peer: Peer) -> None:
    """A message from another exchange comes with its routing key as topic."""
    client = peer.client("client")
    client.quietly(**lasting(FIVE))
    client.subscribe((peer.topic("a"), 1))
    it = peer.amqp()
    it.declare_exchange(peer.name, "direct", auto_delete=True)
    name = f"mqtt-subscription-{client.client_id}qos1"
    it.bind(name, peer.name, "other.key")
    it.confirms()
    it.publish(peer.name, "other.key", "by another way", delivery_mode=PERSISTENT)
    it.expect("Basic.Ack")
    client.take(1)
    it.delete_exchange(peer.name)


@scenario("6.1", of=AMQP)
def a_queue_of_the_type_for_qos_0(peer: Peer) -> None:
    it = peer.amqp()
    arguments = {"x-queue-type": "rabbit_mqtt_qos0_queue"}
    it.another().declare(peer.name, arguments)
    it.another().declare(peer.name, arguments, durable=True, exclusive=True)


@scenario("6.1", "11", of=AMQP)
def a_queue_is_deleted_under_its_client(peer: Peer) -> None:
    client = peer.client("client")
    client.quietly(**lasting(FIVE))
    client.subscribe((peer.topic("a"), 1))
    it = peer.amqp()
    it.delete(f"mqtt-subscription-{client.client_id}qos1")
    it.declare(f"mqtt-subscription-{client.client_id}qos1", passive=True)
    client.settle()


@scenario("6.4", "11", of=AMQP)
def an_expiration_of_amqp(peer: Peer) -> None:
    client = peer.open("client")
    client.subscribe((peer.topic("a"), 1))
    it = peer.amqp()
    it.confirms()
    for expiration in ("600000", "900"):
        it.publish(TOPIC, f"{peer.name}.a", expiration, expiration=expiration)
        it.expect("Basic.Ack")
        (heard,) = client.take(1)
        left = heard.property(Property.MESSAGE_EXPIRY)
        client.transcript[-1] = f"of {expiration} ms: {left!r}"
