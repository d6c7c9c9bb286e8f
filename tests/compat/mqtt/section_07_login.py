"""Section 7: who may connect, and what he may do."""

from __future__ import annotations

from tests.compat.estate import PASSWORD
from tests.compat.mqtt.configuration import NOBODY, OUTSIDER, READER, REPORTER, VHOST, WRITER
from tests.compat.mqtt.packets import Connect, Kind
from tests.compat.mqtt.scenario import AMQP, Peer, scenario
from tests.compat.mqtt.section_01_wire import VERSIONS


def logged_in(user: str, vhost: str = VHOST) -> dict[str, str]:
    """The fields of a CONNECT of a user of the estate."""
    return {"user": f"{vhost}:{user}", "password": PASSWORD.format(user)}


@scenario("7", of=AMQP)
def credentials(peer: Peer) -> None:
    """Log in with each kind of credentials; refused logins wait at the same time."""
    waiting = []
    for version in VERSIONS.values():
        cases: dict[str, dict[str, str]] = {
            "nobody named": {},
            "guest": {"user": "guest", "password": "guest"},
            "wrong password": {"user": "guest", "password": "wrong"},
            "unknown user": {"user": "no such", "password": "guest"},
            "empty password": {"user": "guest", "password": ""},
            "no password": {"user": "guest"},
            "guest in a vhost": {"user": f"{VHOST}:guest", "password": "guest"},
            "guest in /": {"user": "/:guest", "password": "guest"},
            "unknown vhost": {"user": "nowhere:guest", "password": "guest"},
            "vhost not allowed": logged_in(OUTSIDER),
            "a user of the vhost": logged_in(READER),
        }
        for name, fields in cases.items():
            client = peer.client(f"{name} in {version}", version)
            client.connect()
            client.send(Connect(client.client_id, version, **fields).encode())  # type: ignore[arg-type]
            waiting.append(client)
    for client in waiting:
        client.expect(Kind.CONNACK)
        client.settle()


@scenario("7", of=AMQP)
def the_same_identifier_in_two_virtual_hosts(peer: Peer) -> None:
    client = peer.open("client")
    other = peer.client("in the other vhost")
    other.client_id = client.client_id
    other.open(user=f"{VHOST}:guest", password="guest")
    client.settle()
    other.settle()


@scenario("7", of=AMQP)
def what_permissions_refuse_to_subscribers(peer: Peer) -> None:
    for version in VERSIONS.values():
        for user in (WRITER, NOBODY, READER):
            client = peer.client(f"{user} in {version}", version)
            client.open(**logged_in(user))
            client.subscribe((peer.topic("a"), 1))
            client.settle()


@scenario("7", of=AMQP)
def what_permissions_refuse_to_publishers(peer: Peer) -> None:
    for version in VERSIONS.values():
        for user in (WRITER, NOBODY, READER):
            for qos in (0, 1):
                client = peer.client(f"{user}, QoS {qos} in {version}", version)
                client.open(**logged_in(user))
                client.publish(peer.topic("a"), "a", qos=qos)
                client.settle()


@scenario("7", of=AMQP)
def what_topic_permissions_refuse(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.client(f"reads in {version}", version)
        client.open(**logged_in(REPORTER))
        client.subscribe(("news/of", 1))
        client.settle()
        for topic in ("other/a", "#", "news"):
            client = peer.client(f"reads {topic} in {version}", version)
            client.open(**logged_in(REPORTER))
            client.subscribe((topic, 1))
            client.settle()
        client = peer.client(f"writes in {version}", version)
        client.client_id = f"reporter{version}"
        client.open(**logged_in(REPORTER))
        client.publish(f"news/reporter{version}", "own", qos=1)
        client.settle()
        client.publish("news/of/others", "others", qos=1)
        client.settle()


@scenario("7", of=AMQP)
def some_filters_are_allowed(peer: Peer) -> None:
    client = peer.client("client")
    client.open(**logged_in(REPORTER))
    client.subscribe(("news/a", 1), ("other", 1), ("news/b", 1))
    client.settle()
