"""Sections 2.1 to 2.4: sessions, takeover, wills, keep alive."""

from __future__ import annotations

from typing import Any

from tests.compat.mqtt.client import Client
from tests.compat.mqtt.packets import FIVE, Property, Will
from tests.compat.mqtt.scenario import Oracle, Peer, scenario
from tests.compat.mqtt.section_01_wire import VERSIONS

LASTING = ((Property.SESSION_EXPIRY, 300),)


def lasting(version: int) -> dict[str, Any]:
    """The fields of a CONNECT whose session outlives it."""
    return {"clean": False, "properties": LASTING if version == FIVE else ()}


@scenario("2.1")
def a_session_is_there_again(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        client.open(**lasting(version))
        client.subscribe((peer.topic(f"{version}"), 1))
        client.leave()
        client.open(**lasting(version))
        client.publish(peer.topic(f"{version}"), "end")
        client.until(b"end")
        client.leave()
        client.open(clean=True)
        client.leave()
        client.open(**lasting(version))


@scenario("2.1")
def a_session_without_subscriptions_is_there_again(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        client.open(**lasting(version))
        client.leave()
        client.open(**lasting(version))


@scenario("2.1")
def a_session_that_ends_with_its_connection(peer: Peer) -> None:
    cases: dict[str, dict[str, Any]] = {
        "no expiry": {"clean": False},
        "expiry 0": {"clean": False, "properties": ((Property.SESSION_EXPIRY, 0),)},
        "clean": {"clean": True},
    }
    for name, options in cases.items():
        client = peer.client(name)
        client.open(**options)
        client.subscribe((peer.topic(name), 1))
        client.leave()
        client.open(clean=False)


@scenario("2.1", of=(Oracle.MOSQUITTO,))
def a_disconnect_that_ends_a_session(peer: Peer) -> None:
    """RabbitMQ refuses who comes back with 0x83, if it has not deleted the queues yet."""
    client = peer.client("client")
    client.open(**lasting(FIVE))
    client.subscribe((peer.topic("a"), 1))
    client.leave(0, ((Property.SESSION_EXPIRY, 0),))
    client.open(**lasting(FIVE))


@scenario("2.1")
def what_comes_while_a_client_is_away(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        client.open(**lasting(version))
        topic = peer.topic(f"{version}")
        client.subscribe((topic, 1))
        client.leave()
        other = peer.open(f"other of {version}", version)
        for number in range(5):
            other.publish(topic, f"{number}", qos=1)
        client.open(**lasting(version))
        client.take(5)
        client.settle()


@scenario("2.1", "3")
def what_was_not_acknowledged_comes_again(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        client.open(**lasting(version))
        topic = peer.topic(f"{version}")
        client.subscribe((topic, 1))
        other = peer.open(f"other of {version}", version)
        for number in range(4):
            other.publish(topic, f"{number}", qos=1)
        first, *_ = client.take(4, acknowledge=False)
        client.acknowledge(first)
        client.settle()
        client.close()
        client.open(**lasting(version))
        client.take(3)
        client.settle()


@scenario("2.1")
def a_session_goes_on_in_another_version(peer: Peer) -> None:
    client = peer.client("client", 4)
    topic = peer.topic("a")
    client.open(clean=False)
    client.subscribe((topic, 1))
    client.leave()
    client.version = FIVE
    client.open(**lasting(FIVE))
    client.publish(topic, "in 5")
    client.until(b"in 5")
    client.leave()
    client.version = 4
    client.open(clean=False)
    client.publish(topic, "in 4")
    client.until(b"in 4")


@scenario("2.2")
def who_connects_with_an_identifier_takes_it_over(peer: Peer) -> None:
    for version in VERSIONS.values():
        name = f"in {version}"
        first = peer.open(name, version)
        second = Client(peer.addresses.mqtt, first.client_id, version)
        peer.clients[f"second {name}"] = second
        second.open()
        first.ended()
        second.settle()


@scenario("2.2", "2.3")
def a_takeover_publishes_the_will(peer: Peer) -> None:
    watcher = peer.open("watcher")
    watcher.subscribe((peer.topic("will/#"), 1))
    for name, will in {
        "plain": Will(peer.topic("will/plain"), "plain"),
        "delayed": Will(
            peer.topic("will/delayed"), "delayed", properties=((Property.WILL_DELAY, 300),)
        ),
    }.items():
        for clean in (True, False):
            first = peer.open(f"{name} {clean}", will=will, properties=LASTING, clean=clean)
            second = Client(peer.addresses.mqtt, first.client_id)
            peer.clients[f"second {name} {clean}"] = second
            second.open(clean=clean, properties=LASTING)
            first.ended()
            mark = peer.topic("will/mark")
            second.publish(mark, f"{name} {clean}", qos=1)
            watcher.until(f"{name} {clean}".encode())
            second.leave(0, ((Property.SESSION_EXPIRY, 0),))
    watcher.transcript.sort()  # whether a will comes before what the second publishes is nobody's


@scenario("2.2")
def identifiers_differ_in_case(peer: Peer) -> None:
    upper, lower = peer.open("NAME"), peer.open("name")
    upper.settle()
    lower.settle()


@scenario("2.2")
def a_long_identifier(peer: Peer) -> None:
    for size in (200, 300, 60_000):
        client = Client(peer.addresses.mqtt, "x" * size)
        peer.clients[f"{size} bytes"] = client
        client.open()
        client.subscribe((peer.topic(f"{size}"), 1))
        client.publish(peer.topic(f"{size}"), "a")
        client.until(b"a")


def watched(peer: Peer, version: int) -> Client:
    """A client that hears all wills."""
    watcher = peer.open(f"watcher in {version}", version)
    watcher.subscribe((peer.topic(f"{version}/#"), 2))
    return watcher


@scenario("2.3")
def a_will_is_published_when_a_client_is_gone(peer: Peer) -> None:
    for version in VERSIONS.values():
        watcher = watched(peer, version)
        for qos in (0, 1):
            will = Will(peer.topic(f"{version}/{qos}"), f"{qos}", qos)
            peer.open(f"of QoS {qos} in {version}", version, will=will).close()
            watcher.until(f"{qos}".encode())


@scenario("2.3", of=(Oracle.MOSQUITTO,))
def a_will_of_qos_2(peer: Peer) -> None:
    for version in VERSIONS.values():
        watcher = watched(peer, version)
        will = Will(peer.topic(f"{version}/2"), "2", 2)
        peer.open(f"in {version}", version, will=will).close()
        watcher.until(b"2")


@scenario("2.3")
def who_says_goodbye_has_no_will(peer: Peer) -> None:
    for version in VERSIONS.values():
        watcher = watched(peer, version)
        will = Will(peer.topic(f"{version}/will"), "will")
        client = peer.open(f"in {version}", version, will=will)
        client.leave()
        watcher.publish(peer.topic(f"{version}/end"), "end")
        watcher.until(b"end")


@scenario("2.3")
def a_disconnect_with_will(peer: Peer) -> None:
    watcher = watched(peer, FIVE)
    for code in (0x04, 0x80):
        will = Will(peer.topic(f"5/{code}"), f"{code}")
        client = peer.open(f"0x{code:02x}", will=will)
        client.leave(code)
        watcher.publish(peer.topic("5/end"), f"end {code}")
        watcher.until(f"end {code}".encode())


@scenario("2.3", "2.6")
def a_will_that_is_retained_and_has_properties(peer: Peer) -> None:
    watcher = watched(peer, FIVE)
    properties = (
        (Property.PAYLOAD_FORMAT, 1),
        (Property.CONTENT_TYPE, "text/plain"),
        (Property.RESPONSE_TOPIC, "answer/here"),
        (Property.CORRELATION_DATA, b"\1\2"),
        (Property.USER, ("a", "b")),
    )
    will = Will(peer.topic("5/r"), "retained", 1, retain=True, properties=properties)
    peer.open("client", will=will).close()
    watcher.until(b"retained")
    late = peer.open("late")
    late.subscribe((peer.topic("5/r"), 1))
    late.take(1)


@scenario("2.3")
def a_delayed_will_waits_and_is_called_off(peer: Peer) -> None:
    watcher = watched(peer, FIVE)
    delayed = ((Property.WILL_DELAY, 300),)
    will = Will(peer.topic("5/delayed"), "delayed", properties=delayed)
    client = peer.client("client")
    client.quietly(will=will, properties=LASTING, clean=False)
    client.close()
    client.open(properties=LASTING, clean=False)
    watcher.publish(peer.topic("5/end"), "end")
    watcher.until(b"end")


@scenario("2.3")
def a_delayed_will_comes_with_the_end_of_its_session(peer: Peer) -> None:
    watcher = watched(peer, FIVE)
    will = Will(peer.topic("5/w"), "delayed", properties=((Property.WILL_DELAY, 300),))
    client = peer.client("client")
    client.quietly(will=will, properties=LASTING, clean=False)
    client.subscribe((peer.topic("a"), 1))
    client.close()
    client.open(clean=True)
    client.publish(peer.topic("5/end"), "end", qos=1)
    watcher.until(b"end")


@scenario("2.3")
def a_delay_of_a_second(peer: Peer) -> None:
    watcher = watched(peer, FIVE)
    will = Will(peer.topic("5/w"), "a second later", properties=((Property.WILL_DELAY, 1),))
    peer.open("client", will=will, properties=LASTING, clean=False).close()
    watcher.until(b"a second later")


@scenario("2.3")
def the_topic_of_a_will_is_wrong(peer: Peer) -> None:
    for version in VERSIONS.values():
        for name, topic in {"wildcard": "a/#", "plus": "+", "empty": ""}.items():
            client = peer.client(f"{name} in {version}", version)
            client.open(will=Will(topic))
            client.settle()


@scenario("2.4")
def silence_ends_a_connection(peer: Peer) -> None:
    watchers = {version: watched(peer, version) for version in VERSIONS.values()}
    clients = {}
    for version in VERSIONS.values():
        will = Will(peer.topic(f"{version}/silent"), "silent")
        clients[version] = peer.open(f"in {version}", version, keep_alive_s=1, will=will)
    for version, client in clients.items():
        client.ended()
        watchers[version].until(b"silent")
