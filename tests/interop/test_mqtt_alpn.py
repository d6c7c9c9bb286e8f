"""A client of MQTT may offer protocols in its TLS handshake: it is let in, as by mosquitto."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.compat.mqtt.packets import Connect
from tests.interop.mqtt_broker import EXTERNAL, LOOPBACK, MqttBroker
from tests.support.daemon import environment_for_nodes
from tests.support.ports import free_ports
from tests.support.process import Process
from tests.support.require import require

pytestmark = pytest.mark.skipif(bool(EXTERNAL), reason="others are asked over TCP alone")
CONFIGURATION = """
user root
listener {port} 127.0.0.1
allow_anonymous true
cafile {folder}/ca.pem
certfile {folder}/cert.pem
keyfile {folder}/key.pem
"""
OFFERS = ((), ("mqtt",), ("x-amzn-mqtt-ca",), ("http/1.1", "mqtt"))
WELCOME = bytes.fromhex("20020000")


@pytest.fixture
def mosquitto(mqtt: MqttBroker, tmp_path: Path) -> Iterator[int]:
    """Port of a mosquitto with the certificate of the node."""
    (port,) = free_ports(1)
    file = tmp_path / "mosquitto.conf"
    file.write_text(CONFIGURATION.format(port=port, folder=Path(mqtt.ca_file).parent))
    command = [require("mosquitto"), "-c", str(file)]
    process = Process(command, r"mosquitto version .* running", environment_for_nodes())
    try:
        yield port
    finally:
        process.kill()


def agreed(port: int, ca_file: str, offered: Sequence[str]) -> tuple[str | None, bytes]:
    """The protocol that the broker has chosen, and what it answers to CONNECT."""
    context = ssl.create_default_context(cafile=ca_file)
    if offered:
        context.set_alpn_protocols(offered)
    with (
        socket.create_connection((LOOPBACK, port)) as plain,
        context.wrap_socket(plain, server_hostname=LOOPBACK) as client,
    ):
        client.sendall(Connect("alpn", 4).encode())
        return client.selected_alpn_protocol(), client.recv(4)


@pytest.mark.parametrize("offered", OFFERS, ids=" ".join)
def test_whatever_a_client_offers_it_is_let_in(
    mqtt: MqttBroker, mosquitto: int, offered: Sequence[str]
) -> None:
    theirs = agreed(mosquitto, mqtt.ca_file, offered)
    ours = agreed(mqtt.ports["tls"], mqtt.ca_file, offered)
    assert ours == theirs == (None, WELCOME)
