"""MQTT over TCP, TLS and websockets with paho, and what the node says of these clients."""

from __future__ import annotations

import json
import queue
import ssl
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Literal

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.certificates import Authority
from tests.support.daemon import Daemon
from tests.support.deadlines import DEADLINE_S

LARGE = bytes(range(256)) * 1_200
"""Hundreds of kilobytes: many frames, or one that is large."""
LISTENERS = ("mqtt", "mqtts", "mqtt-ws", "mqtt-wss")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def daemon(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    options = ("mqtt", "mqtt-tls", "mqtt-ws", "mqtt-ws-tls", "management")
    daemon = Daemon(
        tmp_path_factory.mktemp("node"),
        *(f"--{name}=127.0.0.1:0" for name in options),
        f"--tls-cert={authority.cert_file}",
        f"--tls-key={authority.key_file}",
        f"--tls-ca={authority.ca_file}",
        "--tls-verify=request",
    )
    with daemon:
        yield daemon
    assert "Traceback" not in daemon.log, daemon.log


class Client:
    """A paho client that is connected and notes what comes."""

    def __init__(
        self,
        daemon: Daemon,
        listener: str,
        version: MQTTProtocolVersion,
        tls: ssl.SSLContext | None,
        *,
        client_id: str = "",
        path: str = "/ws",
    ) -> None:
        transport: Literal["tcp", "websockets"] = "websockets" if "ws" in listener else "tcp"
        self.arrived: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._subscribed: queue.Queue[None] = queue.Queue()
        connected: queue.Queue[object] = queue.Queue()
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"{listener}-{version}",
            protocol=version,
            transport=transport,
        )
        if transport == "websockets":
            self.paho.ws_set_options(path=path)
        if tls is not None:
            self.paho.tls_set_context(tls)
        self.paho.on_message = lambda _client, _data, message: self.arrived.put(message)
        self.paho.on_connect = lambda _client, _data, _flags, code, _reported: connected.put(code)
        self.paho.on_subscribe = lambda *_reported: self._subscribed.put(None)
        properties = None
        if version is MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.UserProperty = [("site", "attic"), ("site", "cellar")]
        host = "localhost" if tls is not None else "127.0.0.1"
        self.paho.connect(host, daemon.addresses[listener][1], 20, properties=properties)
        self.paho.loop_start()
        assert str(connected.get(timeout=DEADLINE_S)) == "Success"

    def subscribe(self, topic_filter: str, qos: int) -> None:
        self.paho.subscribe(topic_filter, qos)
        self._subscribed.get(timeout=DEADLINE_S)

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@pytest.mark.parametrize(
    "version",
    [MQTTProtocolVersion.MQTTv31, MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5],
)
@pytest.mark.parametrize("listener", LISTENERS)
def test_messages_of_each_quality_go_round(
    daemon: Daemon, authority: Authority, listener: str, version: MQTTProtocolVersion
) -> None:
    tls = authority.client() if listener in {"mqtts", "mqtt-wss"} else None
    client = Client(daemon, listener, version, tls)
    try:
        topic = f"{listener}/{version}"
        client.subscribe(f"{topic}/#", 2)
        for qos in (0, 1, 2):
            for body in (b"x", LARGE):
                client.paho.publish(f"{topic}/{qos}", body, qos).wait_for_publish(DEADLINE_S)
                message = client.arrived.get(timeout=DEADLINE_S)
                assert (message.qos, message.payload) == (qos, body)
    finally:
        client.close()


def api(daemon: Daemon, path: str) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{daemon.addresses['management'][1]}/api/{path}",
        headers={"Authorization": f"Basic {b64encode(b'guest:guest').decode()}"},
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return json.load(answer)


def rabbitmqctl(daemon: Daemon, *words: str) -> str:
    command = (sys.executable, "-m", "fluffle.broker", "rabbitmqctl", "--data-dir")
    done = subprocess.run(
        [*command, str(daemon.data_dir), *words], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_lists_tell_of_these_clients_as_rabbitmq_does(daemon: Daemon) -> None:
    plain = Client(daemon, "mqtt", MQTTProtocolVersion.MQTTv311, None, client_id="meter")
    web = Client(
        daemon, "mqtt-ws", MQTTProtocolVersion.MQTTv5, None, client_id="page", path="/mqtt"
    )
    try:
        plain.subscribe("home/#", 1)
        rows = {row["client_properties"]["client_id"]: row for row in api(daemon, "connections")}
        assert (rows["meter"]["protocol"], rows["page"]["protocol"]) == (
            "MQTT 3-1-1",
            "Web MQTT 5-0",
        )
        assert rows["page"]["client_properties"]["user_property"] == {"site": "cellar"}
        for row in rows.values():
            limits = (row["auth_mechanism"], row["channel_max"], row["frame_max"], row["timeout"])
            assert limits == ("none", 0, 0, 20)
            assert not {"type", "channels"} & row.keys()
        assert api(daemon, "channels") == []
        (consumer,) = api(daemon, "consumers")
        assert (consumer["consumer_tag"], consumer["channel_details"]["name"]) == ("mqtt", "")
        listed = json.loads(
            rabbitmqctl(
                daemon, "list_mqtt_connections", "client_id", "conn_name", "clean_sess",
                "will_msg", "exchange", "--formatter", "json",
            )
        )  # fmt: skip
        assert listed == [
            {
                "client_id": "meter",
                "conn_name": rows["meter"]["name"],
                "clean_sess": True,
                "will_msg": "undefined",
                "exchange": "amq.topic",
            }
        ]
        assert "page\t" in rabbitmqctl(daemon, "list_web_mqtt_connections")
        (session,) = (row for row in api(daemon, "mqtt/sessions") if row["name"] == "meter")
        assert session["connection"] == rows["meter"]["name"]
        (subscription,) = session["subscriptions"]
        assert (subscription["topic_filter"], subscription["qos"]) == ("home/#", 1)
    finally:
        plain.close()
        web.close()


def test_the_overview_names_the_listeners(daemon: Daemon) -> None:
    overview = api(daemon, "overview")
    spoken = {row["protocol"] for row in overview["listeners"]}
    assert {"mqtt", "mqtt/ssl", "http/web-mqtt", "https/web-mqtt"} <= spoken
    (node,) = api(daemon, "nodes")
    assert {"rabbitmq_mqtt", "rabbitmq_web_mqtt"} <= set(node["enabled_plugins"])
