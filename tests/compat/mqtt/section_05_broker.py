"""Section 5: what the broker tells of itself."""

from __future__ import annotations

from tests.compat.mqtt.scenario import Oracle, Peer, scenario
from tests.compat.mqtt.section_01_wire import VERSIONS

NAMES = (
    *("version", "uptime", "clients/total", "clients/connected", "clients/active"),
    *("clients/disconnected", "clients/inactive", "clients/expired"),
    *("subscriptions/count", "retained messages/count", "messages/received", "messages/sent"),
    *("publish/messages/received", "publish/messages/sent", "publish/messages/dropped"),
    *("publish/bytes/received", "bytes/received", "bytes/sent"),
    *("load/messages/received/1min", "load/messages/sent/5min", "load/publish/dropped/15min"),
    *("load/publish/received/1min", "load/publish/sent/1min", "load/bytes/received/1min"),
    *("load/bytes/sent/1min", "load/sockets/1min", "load/connections/1min"),
)
"""Names below `$SYS/broker/` that exporters ask for, and mosquitto has from its start."""


@scenario("5", of=(Oracle.MOSQUITTO,))
def figures_of_the_broker(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        for name in NAMES:
            client.subscribe((f"$SYS/broker/{name}", 0))
            (heard,) = client.take(1)
            assert heard.publish is not None
            figure = heard.publish
            client.transcript[-1] = f"{figure.topic!r}, retained: {figure.retain}"


@scenario("5", of=(Oracle.MOSQUITTO,))
def wildcards_do_not_see_figures(peer: Peer) -> None:
    client = peer.open("client")
    for topic_filter in ("+/broker/version", "+/broker/#", "$SYS/nothing"):
        client.subscribe((topic_filter, 0))
        client.settle()


@scenario("5", of=(Oracle.MOSQUITTO,))
def publishing_what_is_the_brokers(peer: Peer) -> None:
    for version in VERSIONS.values():
        for qos in (0, 1, 2):
            client = peer.open(f"QoS {qos} in {version}", version)
            client.publish("$SYS/broker/version", "forged", qos=qos)
            client.settle()
