"""Section 2.6: options of subscriptions that change, or outlive a connection."""

from __future__ import annotations

from tests.compat.mqtt.packets import FIVE, Property
from tests.compat.mqtt.scenario import Peer, scenario
from tests.compat.mqtt.section_02_messages import AS_PUBLISHED, NEVER, NO_LOCAL, ONLY_IF_NEW
from tests.compat.mqtt.section_02_sessions import lasting


@scenario("2.1", "2.6")
def options_outlive_a_connection_in_another_version(peer: Peer) -> None:
    """No Local, Retain As Published and an identifier: version 3.1.1 knows none of them."""
    client = peer.client("client")
    client.quietly(**lasting(FIVE))
    topic, end = peer.topic("a"), peer.topic("end")
    identifier = ((Property.SUBSCRIPTION_ID, 7),)
    client.subscribe((topic, 1 | NO_LOCAL | AS_PUBLISHED), properties=identifier)
    client.subscribe((end, 0))
    other = peer.open("other")
    for version in (4, FIVE):
        client.leave()
        client.version = version
        client.quietly(**lasting(version))
        client.publish(topic, f"own in {version}")
        other.publish(topic, f"of another in {version}", qos=1, retain=True)
        other.publish(topic, "", qos=1, retain=True)
        client.take(2)
        other.publish(end, f"end in {version}", qos=1)
        client.until(f"end in {version}".encode())


@scenario("2.6", "4")
def retain_handling_that_changes(peer: Peer) -> None:
    """Retained messages come with a subscription again as its new options say."""
    topic, end = peer.topic("a"), peer.topic("end")
    peer.open("publisher").publish(topic, "kept", qos=1, retain=True)
    client = peer.open("client")
    client.subscribe((end, 0))
    for number, options in enumerate((NEVER, ONLY_IF_NEW, 0, NEVER, 0, ONLY_IF_NEW)):
        client.subscribe((topic, options))
        client.publish(end, f"end {number}")
        client.until(f"end {number}".encode())
    client.unsubscribe(topic)
    client.subscribe((topic, ONLY_IF_NEW))
    client.publish(end, "last")
    client.until(b"last")


@scenario("2.6")
def a_filter_again_loses_nothing(peer: Peer) -> None:
    """Messages that wait are sent though their filter is subscribed to again meanwhile."""
    window = ((Property.RECEIVE_MAXIMUM, 1),)
    client = peer.open("client", properties=window)
    topic = peer.topic("a")
    client.subscribe((topic, 1))
    other = peer.open("other")
    for number in range(3):
        other.publish(topic, f"{number}", qos=1)
    (first,) = client.take(1, acknowledge=False)
    client.subscribe((topic, 1 | AS_PUBLISHED))
    client.acknowledge(first)
    client.take(2)
    client.settle()
