"""amq.rabbitmq.event says of clients of MQTT what RabbitMQ's plugins say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.comparison import compare
from tests.compat.embedded import serving
from tests.compat.mqtt.client import Client
from tests.compat.mqtt.packets import FIVE, Connect
from tests.compat.oracle import RabbitMQ, free_port
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Peer, Transcript
from tests.compat.test_events import told
from tests.compat.verbs import speaker

CONFIG = """
    mqtt.listeners.tcp.1 = 127.0.0.1:{}
    mqtt.listeners.ssl = none
"""
PLUGINS = "rabbitmq_mqtt,rabbitmq_event_exchange"
COMPARED = "connection.", "user.authentication.", "queue.", "binding."
"""Begins of the events that are compared: consumers have other tags."""
CREATED, CLOSED, DELETED = "connection.created", "connection.closed", "queue.deleted"
BOUND, UNBOUND = "binding.created", "binding.deleted"
FAILED = "user.authentication.failure"
GUEST = {"user": "guest", "password": "guest"}
REFUSED = (
    ("guest", "wrong"),
    ("stranger", "guest"),
    ("half", None),
    ("nowhere:guest", "guest"),
)
"""User and password of logins; the last two fail without an event."""
LASTS_FOR_A_MINUTE = ((0x11, 60),)
USER_PROPERTIES = ((0x26, ("a", "1")), (0x26, ("b", "2")))


class Mqtt:
    """Clients that hang up at the end at the latest."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._clients: list[Client] = []

    def client(self, client_id: str, version: int = FIVE) -> Client:
        self._clients.append(Client(self._address, client_id, version))
        return self._clients[-1]

    def hang_up(self) -> None:
        for client in self._clients:
            client.close()


def clients(mqtt: Mqtt) -> Iterator[tuple[str, ...]]:
    """Actions of clients; yields begins of the last events that each brings about."""
    plain = mqtt.client("plain")
    plain.open(**GUEST, keep_alive_s=60, properties=USER_PROPERTIES)
    yield (CREATED,)
    plain.subscribe(("a", 0), ("b", 1))
    yield BOUND, BOUND
    plain.unsubscribe("b")
    yield (UNBOUND,)
    plain.leave()
    yield DELETED, DELETED, CLOSED
    for version in (3, 4):
        old = mqtt.client(f"version {version}", version)
        old.open(keep_alive_s=30)  # as no one, which is guest
        old.subscribe(("a/+", 1))
        yield CREATED, BOUND
        old.close()
        yield DELETED, CLOSED
    lasting = mqtt.client("lasting")
    lasting.open(**GUEST, properties=LASTS_FOR_A_MINUTE)
    lasting.subscribe(("a", 0), ("b", 1))
    yield CREATED, BOUND, BOUND
    taker = mqtt.client("lasting")
    taker.open(**GUEST, clean=False, properties=LASTS_FOR_A_MINUTE)
    lasting.ended()
    yield CREATED, CLOSED
    taker.close()
    yield (CLOSED,)
    anew = mqtt.client("lasting")
    anew.open(**GUEST)
    yield DELETED, DELETED, CREATED
    anew.send(b"\xf3\0")  # malformed
    anew.ended()
    yield (CLOSED,)
    refused: list[Client] = []
    for user, password in REFUSED:
        refused.append(mqtt.client(user))
        refused[-1].connect()
        refused[-1].send(Connect(user, user=user, password=password).encode())
    for each in refused:
        each.ended()
    yield FAILED, FAILED


def heard(port: int, address: tuple[str, int]) -> Transcript:
    """All of it, act by act; what one brings about is sorted, for the order may be chance."""
    peer, mqtt = Peer("127.0.0.1", port), Mqtt(address)
    watch = speaker(peer, "watch")
    watch.declare("events", exclusive=True)
    watch.bind("events", "amq.rabbitmq.event", "#")
    told(watch)
    lines: list[str] = []
    try:
        for number, expected in enumerate(clients(mqtt)):
            found: list[str] = []
            while Counter(expected) - Counter(line.partition(" ")[0] for line in found):
                found += told(watch)
            found += told(watch)
            lines += [f"-- {number}", *sorted(each for each in found if each.startswith(COMPARED))]
    finally:
        mqtt.hang_up()
        peer.hang_up()
    return {"watch": lines}


def heard_of_rabbitmq(folder: Path) -> Transcript:
    port = free_port()
    with RabbitMQ(folder, CONFIG.format(port), PLUGINS) as rabbitmq:
        return heard(rabbitmq.port, ("127.0.0.1", port))


def heard_of_fluffle(folder: Path, answers: Answers) -> Transcript:
    with serving(folder, answers, "--event-exchange", "--mqtt=127.0.0.1:0") as fluffle:
        return heard(fluffle.port, fluffle.addresses["mqtt"])


ASKED = asks("mqtt_events.heard", heard_of_rabbitmq, Peer.hang_up)


@pytest.mark.compat  # each wrong login is answered after three seconds
def test_events_of_mqtt_clients_are_those_of_rabbitmq(answers: Answers, tmp_path: Path) -> None:
    theirs, ours = answers.both(
        ASKED,
        lambda: heard_of_rabbitmq(tmp_path / "rabbitmq"),
        lambda: heard_of_fluffle(tmp_path / "fluffle", answers),
    )
    assert len(theirs["watch"]) > 30
    compare(ASKED.name, theirs, ours)
