"""Sections 2.5 to 2.8: flow, subscriptions, shared subscriptions, what messages carry."""

from __future__ import annotations

from tests.compat.mqtt.packets import (
    Kind,
    Property,
    Publish,
    answer,
    subscribe,
)
from tests.compat.mqtt.scenario import Oracle, Peer, scenario
from tests.compat.mqtt.section_01_wire import VERSIONS
from tests.compat.mqtt.section_02_sessions import lasting

NO_LOCAL, AS_PUBLISHED = 0x04, 0x08
ONLY_IF_NEW, NEVER = 0x10, 0x20


@scenario("2.5")
def a_receive_maximum_of_two(peer: Peer) -> None:
    client = peer.open("client", properties=((Property.RECEIVE_MAXIMUM, 2),))
    topic = peer.topic("a")
    client.subscribe((topic, 1))
    other = peer.open("other")
    for number in range(5):
        other.publish(topic, f"{number}", qos=1)
    first, second = client.take(2, acknowledge=False)
    client.settle()
    client.acknowledge(first)
    client.take(1, acknowledge=False)
    client.settle()
    client.acknowledge(second)
    client.take(1, acknowledge=False)
    client.settle()


@scenario("2.5")
def qos_0_does_not_wait_for_the_window(peer: Peer) -> None:
    client = peer.open("client", properties=((Property.RECEIVE_MAXIMUM, 1),))
    client.subscribe((peer.topic("one"), 1), (peer.topic("zero"), 0))
    other = peer.open("other")
    other.publish(peer.topic("one"), "a", qos=1)
    other.publish(peer.topic("one"), "b", qos=1)
    client.take(1, acknowledge=False)
    other.publish(peer.topic("zero"), "zero")
    client.take(1)


@scenario("2.5")
def a_message_that_is_too_large_for_its_subscriber(peer: Peer) -> None:
    for qos in (0, 1):
        small = ((Property.MAXIMUM_PACKET_SIZE, 200),)
        client = peer.open(f"QoS {qos}", properties=small)
        topic = peer.topic(f"{qos}")
        client.subscribe((topic, qos))
        other = peer.open(f"other of {qos}")
        other.publish(topic, "x" * 300, qos=qos)
        other.publish(topic, "end", qos=qos)
        client.until(b"end")


@scenario("2.5")
def topic_aliases_of_a_client(peer: Peer) -> None:
    client = peer.open("client")
    topics = [peer.topic("a"), peer.topic("b")]
    client.subscribe((topics[0], 0), (topics[1], 0))
    for topic, payload in (
        (topics[0], "named"),
        ("", "by alias"),
        (topics[1], "named otherwise"),
        ("", "by the same alias"),
    ):
        client.publish(topic, payload, properties=((Property.TOPIC_ALIAS, 3),))
    client.until(b"by the same alias")
    for name, alias in {"unknown": 4, "too large": 17, "zero": 0}.items():
        other = peer.open(name)
        other.publish("", "a", properties=((Property.TOPIC_ALIAS, alias),))
        other.settle()


@scenario("2.5")
def an_alias_is_forgotten_with_its_connection(peer: Peer) -> None:
    client = peer.open("client")
    client.publish(peer.topic("a"), properties=((Property.TOPIC_ALIAS, 1),))
    client.settle()
    client.quietly()
    client.publish("", properties=((Property.TOPIC_ALIAS, 1),))
    client.settle()


@scenario("2.6")
def wildcards(peer: Peer) -> None:
    filters = ("+", "a/+", "a/#", "#", "+/b", "a/+/c", "/+", "+/+", "/", "a//b", "a/b/#")
    topics = ("a", "a/b", "a/b/c", "/a", "a/", "/", "a//b", "a/b/c/d", "b")
    for name in filters:
        client = peer.open(name, 4)
        client.subscribe((peer.topic(name), 0))
        for topic in topics:
            client.publish(peer.topic(topic), topic)
        client.publish(peer.topic(name.replace("+", "x").replace("#", "y")), "end")
        client.until(b"end")


@scenario("2.6")
def topics_that_begin_with_a_dollar(peer: Peer) -> None:
    for name in ("#", "+/$a", "+/+", "$mine/#", "$mine/+"):
        client = peer.open(name)
        client.subscribe((name, NEVER), (peer.topic("end"), 0))
        client.publish("$mine/$a", "dollar")
        client.publish(peer.topic("end"), "end")
        client.until(b"end")


@scenario("2.6")
def overlapping_filters(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        topic = peer.topic(f"{version}")
        client.subscribe((f"{topic}/a", 1), (f"{topic}/+", 1), (f"{topic}/#", 1))
        other = peer.open(f"other of {version}", version)
        other.publish(f"{topic}/a", "over", qos=1)
        other.publish(f"{topic}/end", "end", qos=1)
        client.until(b"end")


@scenario("2.6")
def overlapping_filters_of_different_qos(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        topic = peer.topic(f"{version}")
        client.subscribe((f"{topic}/a", 0), (f"{topic}/+", 1))
        other = peer.open(f"other of {version}", version)
        other.publish(f"{topic}/a", "over", qos=1)
        client.take(1)
        client.settle()


@scenario("2.6")
def identifiers_of_subscriptions(peer: Peer) -> None:
    client = peer.open("client")
    topic = peer.topic("a")
    client.subscribe((f"{topic}/b", 1), properties=((Property.SUBSCRIPTION_ID, 7),))
    other = peer.open("other")
    other.publish(f"{topic}/b", "one", qos=1)
    client.take(1)
    client.subscribe((f"{topic}/b", 1), properties=((Property.SUBSCRIPTION_ID, 8),))
    other.publish(f"{topic}/b", "another", qos=1)
    client.take(1)
    client.subscribe((f"{topic}/b", 1))
    other.publish(f"{topic}/b", "none", qos=1)
    client.take(1)


@scenario("2.6")
def no_local(peer: Peer) -> None:
    client = peer.open("client")
    topic = peer.topic("a")
    client.subscribe((topic, 0 | NO_LOCAL), (peer.topic("end"), 0))
    client.publish(topic, "own")
    client.publish(peer.topic("end"), "own end")
    client.until(b"own end")
    peer.open("other").publish(topic, "of another", qos=1)
    client.until(b"of another")


@scenario("2.6")
def retain_as_published(peer: Peer) -> None:
    for options in (0, AS_PUBLISHED):
        client = peer.open(f"options {options}")
        topic = peer.topic(f"{options}")
        client.subscribe((topic, 0 | options))
        other = peer.open(f"other {options}")
        other.publish(topic, "retained", retain=True)
        other.publish(topic, "", retain=True)
        other.publish(topic, "plain")
        client.until(b"plain")


@scenario("2.6", "4")
def retain_handling(peer: Peer) -> None:
    topic = peer.topic("a")
    peer.open("publisher").publish(topic, "kept", qos=1, retain=True)
    for name, options in {"always": 0, "if new": ONLY_IF_NEW, "never": NEVER}.items():
        client = peer.open(name)
        client.subscribe((peer.topic("end"), 0))
        for number in range(2):
            client.subscribe((topic, options))
            client.publish(peer.topic("end"), f"end {number}")
            client.until(f"end {number}".encode())


@scenario("2.6")
def a_filter_again_with_another_qos(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        topic = peer.topic(f"{version}")
        other = peer.open(f"other of {version}", version)
        for qos in (1, 0, 1):
            client.subscribe((topic, qos))
            other.publish(topic, f"granted {qos}", qos=1)
            client.until(f"granted {qos}".encode())


@scenario("2.6")
def unsubscribed_filters_are_gone(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        topic = peer.topic(f"{version}")
        client.subscribe((topic, 1), (f"{topic}/end", 1))
        client.unsubscribe(topic)
        other = peer.open(f"other of {version}", version)
        other.publish(topic, "nobody hears this", qos=1)
        other.publish(f"{topic}/end", "end", qos=1)
        client.until(b"end")


@scenario("2.7", "11", of=(Oracle.MOSQUITTO,))
def a_message_of_a_group_goes_to_one_member(peer: Peer) -> None:
    for version in VERSIONS.values():
        group = peer.topic(f"{version}/+")
        members = [peer.open(f"{each} in {version}", version) for each in ("one", "two")]
        for member in members:
            member.subscribe((f"$share/g/{group}", 1), (peer.topic("end"), 1))
            del member.transcript[:]
        other = peer.open(f"other in {version}", version)
        for number in range(10):
            other.publish(peer.topic(f"{version}/{number}"), f"{number}", qos=1)
        other.publish(peer.topic("end"), "end", qos=1)
        heard = [each for member in members for each in member.until(b"end")]
        payloads = sorted(str(each.publish and each.publish.payload) for each in heard)
        peer.note(f"{version}: {payloads}")
        for member in members:
            member.transcript[:] = ["some of them"]


@scenario("2.7", of=(Oracle.MOSQUITTO,))
def groups_that_are_wrong(peer: Peer) -> None:
    wrong = ("$share/g", "$share//x", "$share/g/", "$share/g+/x", "$share/g#/x", "$share/g/a#")
    for version in VERSIONS.values():
        for name in wrong:
            client = peer.open(f"{name} in {version}", version)
            client.subscribe((name, 1))
            client.settle()
    client = peer.open("no local")
    client.subscribe((f"$share/g/{peer.topic('a')}", 1 | NO_LOCAL))
    client.settle()


@scenario("2.7", of=(Oracle.MOSQUITTO,))
def a_group_gets_nothing_that_was_retained(peer: Peer) -> None:
    topic = peer.topic("a")
    peer.open("publisher").publish(topic, "kept", qos=1, retain=True)
    client = peer.open("client")
    client.subscribe((f"$share/g/{topic}", 1))
    peer.open("other").publish(topic, "end", qos=1)
    client.until(b"end")


@scenario("2.7", of=(Oracle.MOSQUITTO,))
def what_a_member_of_a_group_is_sent(peer: Peer) -> None:
    """With its own QoS, identifier and options, and beside what it has subscribed to alone."""
    for version in VERSIONS.values():
        topic = peer.topic(f"{version}")
        publisher = peer.open(f"publisher in {version}", version)
        for options in (0, 1, 2 | AS_PUBLISHED if version == 5 else 2):
            client = peer.open(f"{options} in {version}", version)
            identifier = ((Property.SUBSCRIPTION_ID, options + 1),) if version == 5 else ()
            client.subscribe((f"$share/{options}/{topic}/+", options), properties=identifier)
            client.subscribe((f"$share/{options}/{topic}/+", options), properties=identifier)
            for qos in (0, 1, 2):
                publisher.publish(f"{topic}/a", f"{qos}", qos=qos, retain=True)
            publisher.publish(f"{topic}/b", "end", qos=1)
            client.until(b"end")
            client.leave()


@scenario("2.7", of=(Oracle.MOSQUITTO,))
def a_member_leaves_a_group(peer: Peer) -> None:
    for version in VERSIONS.values():
        topic = peer.topic(f"{version}")
        client = peer.open(f"in {version}", version)
        client.subscribe((f"$share/g/{topic}", 1), (topic, 0))
        client.unsubscribe(f"$share/h/{topic}")
        client.unsubscribe(f"$share/g/{topic}")
        client.unsubscribe(f"$share/g/{topic}")
        peer.open(f"other of {version}", version).publish(topic, "end", qos=1)
        client.take(1)
        client.settle()


@scenario("2.7", of=(Oracle.MOSQUITTO,))
def the_only_member_of_a_group_is_away(peer: Peer) -> None:
    for version in VERSIONS.values():
        topic = peer.topic(f"{version}")
        client = peer.client(f"in {version}", version)
        client.quietly(**lasting(version))
        client.subscribe((f"$share/g/{topic}", 2))
        client.leave()
        other = peer.open(f"other of {version}", version)
        for qos in (1, 2):
            other.publish(topic, f"{qos}", qos=qos)
        client.open(**lasting(version))
        client.take(2)


@scenario("2.7", "3", of=(Oracle.MOSQUITTO,))
def the_only_member_of_a_group_has_not_acknowledged(peer: Peer) -> None:
    """It is sent the same again, under its old identifiers."""
    for version in VERSIONS.values():
        for qos in (1, 2):
            topic = peer.topic(f"{version}/{qos}")
            client = peer.client(f"QoS {qos} in {version}", version)
            client.quietly(**lasting(version))
            client.subscribe((f"$share/g/{topic}", 2))
            other = peer.open(f"other of {qos} in {version}", version)
            for number in range(2):
                other.publish(topic, f"{number}", qos=qos)
            client.take(2, acknowledge=False)
            client.close()
            client.open(**lasting(version))
            client.take(2)


@scenario("2.7", "3", of=(Oracle.MOSQUITTO,))
def a_member_ends_and_has_not_acknowledged(peer: Peer) -> None:
    for version in VERSIONS.values():
        topic = peer.topic(f"{version}")
        first = peer.open(f"first in {version}", version)
        first.subscribe((f"$share/g/{topic}", 1))
        peer.open(f"other in {version}", version).publish(topic, "had by the first", qos=1)
        first.take(1, acknowledge=False)
        second = peer.open(f"second in {version}", version)
        second.subscribe((f"$share/g/{topic}", 1))
        first.leave()
        peer.open(f"last in {version}", version).publish(topic, "end", qos=1)
        second.until(b"end")


@scenario("2.8")
def properties_of_a_message_pass_unaltered(peer: Peer) -> None:
    topic = peer.topic("a")
    clients = [peer.open(f"in {version}", version) for version in VERSIONS.values()]
    for client in clients:
        client.subscribe((topic, 1))
    properties = (
        (Property.PAYLOAD_FORMAT, 1),
        (Property.CONTENT_TYPE, "text/plain; charset=utf-8"),
        (Property.RESPONSE_TOPIC, "answers/to/me"),
        (Property.CORRELATION_DATA, b"\0\xff\1"),
        (Property.USER, ("b", "1")),
        (Property.USER, ("a", "2")),
        (Property.USER, ("b", "3")),
        (Property.USER, ("", "")),
    )
    peer.open("publisher").publish(topic, "a", qos=1, properties=properties)
    for client in clients:
        client.take(1)


@scenario("2.8")
def a_message_that_expires(peer: Peer) -> None:
    """A message is delivered with its remaining expiry interval."""
    topic = peer.topic("a")
    client = peer.client("client")
    client.quietly(clean=False, properties=((Property.SESSION_EXPIRY, 300),))
    client.subscribe((topic, 1))
    client.leave()
    expires = ((Property.MESSAGE_EXPIRY, 10_000),)
    peer.open("publisher").publish(topic, "a", qos=1, properties=expires)
    client.quietly(clean=False, properties=((Property.SESSION_EXPIRY, 300),))
    (heard,) = client.take(1)
    left = heard.property(Property.MESSAGE_EXPIRY)
    client.transcript.pop()
    client.note(f"left: {isinstance(left, int) and 9_900 < left <= 10_000}")


@scenario("2.8")
def who_asks_for_no_reasons(peer: Peer) -> None:
    client = peer.open("client", properties=((Property.REQUEST_PROBLEM, 0),))
    client.subscribe(("a/#/b", 0))
    client.settle()


@scenario("2.5", "3", of=(Oracle.MOSQUITTO,))
def an_identifier_in_use(peer: Peer) -> None:
    """A PUBLISH of QoS 1 whose number a message of QoS 2 has, and a SUBSCRIBE."""
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        topic = peer.topic(f"{version}")
        client.send(Publish(topic, "two", 2, 9).encode(version))
        client.expect(Kind.PUBREC)
        client.send(subscribe(9, [(topic, 0)], version))
        client.expect(Kind.SUBACK)
        client.send(answer(Kind.PUBREL, 9))
        client.expect(Kind.PUBCOMP)
        client.settle()


@scenario("2.5", of=(Oracle.MOSQUITTO,))
def more_messages_than_the_broker_takes_at_once(peer: Peer) -> None:
    """Publish more messages of QoS 2 than the broker takes without a release; only the end is
    compared."""
    client = peer.open("client")
    topic = peer.topic("a")
    client.send(*(Publish(topic, "x", 2, number).encode(5) for number in range(1, 1_200)))
    client.settle()
    del client.transcript[:-2]


@scenario("2.5")
def aliases_for_a_client_that_takes_some(peer: Peer) -> None:
    client = peer.open("client", properties=((Property.TOPIC_ALIAS_MAXIMUM, 5),))
    client.subscribe((peer.topic("+"), 0))
    other = peer.open("other")
    for number in range(4):
        other.publish(peer.topic(f"{number % 2}"), f"{number}")
    client.take(4)


@scenario("2.1", "3", of=(Oracle.RABBITMQ,))
def messages_of_qos_0_for_who_is_away(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        client.quietly(**lasting(version))
        client.subscribe((peer.topic(f"{version}"), 0), (peer.topic(f"end/{version}"), 1))
        client.leave()
        other = peer.open(f"other of {version}", version)
        other.publish(peer.topic(f"{version}"), "of QoS 0")
        other.publish(peer.topic(f"{version}"), "of QoS 1", qos=1)
        client.quietly(**lasting(version))
        client.take(2)


@scenario("1.2", "6.2")
def long_topics(peer: Peer) -> None:
    for size in (255, 256, 1_000, 30_000):
        topic = f"{peer.topic('')}{'x' * size}"
        client = peer.open(f"{size} bytes")
        client.subscribe((topic, 1))
        peer.open(f"other of {size} bytes").publish(topic, f"{size}", qos=1)
        heard = client.take(1)
        topics = [each.publish and each.publish.topic for each in heard]
        client.transcript[-1] = f"the same topic: {topics == [topic]}"


@scenario("6.2", "11")
def dots_and_stars_are_characters(peer: Peer) -> None:
    """Between clients of MQTT."""
    for name in ("a/b", "a.b", "a/*", "a/+", "*", "a.b/#"):
        client = peer.open(name)
        client.subscribe((peer.topic(name), NEVER), (peer.topic("end"), 0))
        for topic in ("a/b", "a.b", "a/*", "*", "b"):
            client.publish(peer.topic(topic), topic)
        client.publish(peer.topic("end"), "end")
        client.until(b"end")
