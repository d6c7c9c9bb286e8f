"""Section 3: what each quality of service promises, and section 4: retained messages."""

from __future__ import annotations

from tests.compat.mqtt.packets import FIVE, Kind, Property, Publish, answer
from tests.compat.mqtt.scenario import Oracle, Peer, scenario
from tests.compat.mqtt.section_01_wire import VERSIONS
from tests.compat.mqtt.section_02_sessions import lasting

MOSQUITTO = (Oracle.MOSQUITTO,)


@scenario("3")
def each_quality_to_each(peer: Peer) -> None:
    for version in VERSIONS.values():
        for granted in (0, 1):
            client = peer.open(f"granted {granted} in {version}", version)
            topic = peer.topic(f"{version}/{granted}")
            client.subscribe((topic, granted))
            other = peer.open(f"other {granted} in {version}", version)
            for qos in (0, 1):
                other.publish(topic, f"{qos}", qos=qos)
                client.until(f"{qos}".encode())


@scenario("3", "11")
def a_subscription_of_qos_2(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        client.subscribe((peer.topic("a"), 2))


@scenario("3", "11")
def a_message_of_qos_2(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        client.publish(peer.topic("a"), "two", qos=2)
        client.settle()


@scenario("3", of=MOSQUITTO)
def from_qos_2_to_each(peer: Peer) -> None:
    for version in VERSIONS.values():
        other = peer.open(f"publisher in {version}", version)
        for granted in (0, 1, 2):
            client = peer.open(f"granted {granted} in {version}", version)
            topic = peer.topic(f"{version}/{granted}")
            client.subscribe((topic, granted))
            for qos in (0, 1, 2):
                other.publish(topic, f"{qos}", qos=qos)
                client.until(f"{qos}".encode())


@scenario("3", of=MOSQUITTO)
def a_message_of_qos_2_that_is_sent_twice(peer: Peer) -> None:
    """Before PUBREL the same number is the same message, with DUP or without."""
    for version in VERSIONS.values():
        for dup in (True, False):
            watcher = peer.open(f"watcher, dup {dup} in {version}", version)
            topic = peer.topic(f"{version}/{dup}")
            watcher.subscribe((topic, 2))
            client = peer.open(f"dup {dup} in {version}", version)
            client.send(Publish(topic, "two", 2, 5).encode(version))
            client.expect(Kind.PUBREC)
            client.send(Publish(topic, "two", 2, 5, dup=dup).encode(version))
            client.expect(Kind.PUBREC)
            for _ in range(2):
                client.send(answer(Kind.PUBREL, 5))
                client.expect(Kind.PUBCOMP)
            peer.open(f"other, dup {dup} in {version}", version).publish(topic, "end", qos=2)
            watcher.until(b"end")


@scenario("3", of=MOSQUITTO)
def qos_2_goes_on_after_a_cut(peer: Peer) -> None:
    """Between PUBLISH and PUBREL the publisher is cut off, and comes back."""
    for version in VERSIONS.values():
        watcher = peer.open(f"watcher in {version}", version)
        topic = peer.topic(f"{version}")
        watcher.subscribe((topic, 2))
        client = peer.client(f"in {version}", version)
        client.open(**lasting(version))
        client.send(Publish(topic, "two", 2, 5).encode(version))
        client.expect(Kind.PUBREC)
        client.close()
        client.open(**lasting(version))
        client.send(Publish(topic, "two", 2, 5, dup=True).encode(version))
        client.expect(Kind.PUBREC)
        client.send(answer(Kind.PUBREL, 5))
        client.expect(Kind.PUBCOMP)
        client.publish(topic, "end", qos=2, packet_id=6)
        watcher.until(b"end")


@scenario("3", of=MOSQUITTO)
def deliveries_of_qos_2_go_on_after_a_cut(peer: Peer) -> None:
    """Sent messages come again as PUBLISH, received ones as PUBREL, with the old identifiers."""
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        client.open(**lasting(version))
        topic = peer.topic(f"{version}")
        client.subscribe((topic, 2))
        other = peer.open(f"other in {version}", version)
        for number in range(2):
            other.publish(topic, f"{number}", qos=2)
        first, _second = client.take(2, acknowledge=False)
        client.send(answer(Kind.PUBREC, first.packet_id))
        client.expect(Kind.PUBREL)
        client.close()
        client.open(**lasting(version))
        client.expect(Kind.PUBREL)
        client.send(answer(Kind.PUBCOMP, first.packet_id))
        client.take(1)
        client.settle()


@scenario("3", of=MOSQUITTO)
def a_delivery_of_qos_2_that_is_refused(peer: Peer) -> None:
    client = peer.open("client")
    topic = peer.topic("a")
    client.subscribe((topic, 2))
    other = peer.open("other")
    other.publish(topic, "refused", qos=2)
    (heard,) = client.take(1, acknowledge=False)
    client.send(answer(Kind.PUBREC, heard.packet_id, 0x97))
    client.settle()
    other.publish(topic, "taken", qos=2)
    client.take(1)
    client.settle()


@scenario("3")
def acks_of_a_run_come_in_order(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        topic = peer.topic(f"{version}")
        numbers = (3, 1, 65_535, 2)
        client.send(*(Publish(topic, "x", 1, number).encode(version) for number in numbers))
        client.expect(Kind.PUBACK, times=len(numbers))


@scenario("3")
def messages_of_a_topic_keep_their_order(peer: Peer) -> None:
    client = peer.open("client")
    topic = peer.topic("a")
    client.subscribe((topic, 1))
    other = peer.open("other")
    other.send(*(Publish(topic, f"{each}", 1, each).encode(FIVE) for each in range(1, 200)))
    heard = client.take(199)
    payloads = [each.publish and int(each.publish.payload) for each in heard]
    del client.transcript[1:]
    client.note(f"in order: {payloads == list(range(1, 200))}")
    del other.transcript[:]


@scenario("3")
def nobody_is_subscribed(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        client.publish(peer.topic("nobody"), "a", qos=1)


# Retained messages


@scenario("4")
def a_retained_message_waits_for_subscribers(peer: Peer) -> None:
    for version in VERSIONS.values():
        publisher = peer.open(f"publisher in {version}", version)
        for qos in (0, 1):
            topic = peer.topic(f"{version}/{qos}")
            publisher.publish(topic, "first", qos=qos, retain=True)
            publisher.publish(topic, "kept", qos=qos, retain=True)
            publisher.settle()
            client = peer.open(f"{qos} in {version}", version)
            client.subscribe((topic, 1))
            client.take(1)
            client.settle()


@scenario("4")
def an_empty_message_removes_what_is_retained(peer: Peer) -> None:
    for version in VERSIONS.values():
        topic = peer.topic(f"{version}")
        publisher = peer.open(f"publisher in {version}", version)
        publisher.publish(topic, "kept", qos=1, retain=True)
        live = peer.open(f"live in {version}", version)
        live.subscribe((topic, 0))
        live.take(1)
        publisher.publish(topic, "", qos=1, retain=True)
        live.take(1)
        late = peer.open(f"late in {version}", version)
        late.subscribe((topic, 0))
        late.publish(topic, "end")
        late.until(b"end")


@scenario("4", "11", of=MOSQUITTO)
def retained_messages_match_wildcards(peer: Peer) -> None:
    for version in VERSIONS.values():
        base = peer.topic(f"{version}")
        publisher = peer.open(f"publisher in {version}", version)
        for rest in ("a", "a/b", "a/c", "d/b", "/", ""):
            publisher.publish(f"{base}/{rest}", f"{rest}", retain=True, qos=1)
        publisher.publish(f"{base}", "base", retain=True, qos=1)
        for filter_ in ("#", "+", "a/+", "+/b", "a/#", "+/+"):
            client = peer.open(f"{filter_} in {version}", version)
            client.subscribe((f"{base}/{filter_}", 0))
            client.settle()
            client.transcript[1:-1] = sorted(client.transcript[1:-1])


@scenario("4")
def retained_messages_keep_their_properties(peer: Peer) -> None:
    topic = peer.topic("a")
    properties = (
        (Property.PAYLOAD_FORMAT, 1),
        (Property.CONTENT_TYPE, "text/plain"),
        (Property.RESPONSE_TOPIC, "answer"),
        (Property.CORRELATION_DATA, b"\1"),
        (Property.USER, ("b", "1")),
        (Property.USER, ("a", "2")),
    )
    peer.open("publisher").publish(topic, "kept", qos=1, retain=True, properties=properties)
    client = peer.open("client")
    client.subscribe((topic, 1), properties=((Property.SUBSCRIPTION_ID, 5),))
    client.take(1)


@scenario("4")
def a_retained_message_comes_behind_the_suback(peer: Peer) -> None:
    topics = [peer.topic(f"{each}") for each in range(3)]
    publisher = peer.open("publisher")
    for topic in topics:
        publisher.publish(topic, "kept", qos=1, retain=True)
    client = peer.open("client")
    client.subscribe(*((topic, 1) for topic in topics))
    client.take(3)
    client.settle()


@scenario("4")
def the_expiry_of_a_retained_message(peer: Peer) -> None:
    publisher = peer.open("publisher")
    for name, seconds in {"long": 10_000, "zero": 0}.items():
        expires = ((Property.MESSAGE_EXPIRY, seconds),)
        publisher.publish(peer.topic(name), name, qos=1, retain=True, properties=expires)
    client = peer.open("client")
    client.subscribe((peer.topic("zero"), 1))
    client.settle()
    client.subscribe((peer.topic("long"), 1))
    (heard,) = client.take(1)
    left = heard.property(Property.MESSAGE_EXPIRY)
    client.transcript.pop()
    client.note(f"left: {isinstance(left, int) and 9_900 < left <= 10_000}")


@scenario("4")
def a_retained_message_in_version_4_for_version_5_and_back(peer: Peer) -> None:
    for ours, theirs in ((4, FIVE), (FIVE, 4)):
        topic = peer.topic(f"{ours}")
        peer.open(f"publisher in {ours}", ours).publish(topic, "kept", qos=1, retain=True)
        client = peer.open(f"client in {theirs}", theirs)
        client.subscribe((topic, 1))
        client.take(1)
