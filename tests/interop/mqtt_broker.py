"""The broker that MQTT clients of other people talk to: over TCP, TLS and websockets, with AMQP
beside it.

`FLUFFLE_INTEROP_MQTT=amqp-port,mqtt-port` runs the same tests against any broker on loopback, over
TCP alone; without QoS 2 and shared subscriptions they pass with RabbitMQ, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.daemon import Daemon

EXTERNAL = os.environ.get("FLUFFLE_INTEROP_MQTT", "")
LOOPBACK = "127.0.0.1"
TRANSPORTS = ("tcp",) if EXTERNAL else ("tcp", "tls", "websockets")
KINDS = {"tcp": "mqtt", "tls": "mqtts", "websockets": "mqtt-ws"}
"""Names of a node's listeners."""


@dataclass(frozen=True, slots=True)
class MqttBroker:
    """Where it listens, by transport, and who signed its certificate."""

    ports: Mapping[str, int]
    amqp_port: int
    ca_file: str

    @property
    def amqp_url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.amqp_port}/%2F"


@contextmanager
def mqtt_broker(folder: Path) -> Iterator[MqttBroker]:
    """A daemon with all listeners, or the one that the environment names."""
    if EXTERNAL:
        amqp_port, mqtt_port = map(int, EXTERNAL.split(","))
        yield MqttBroker({"tcp": mqtt_port}, amqp_port, "")
        return
    authority = Authority(folder)
    options = (
        "--mqtt=127.0.0.1:0",
        "--mqtt-tls=127.0.0.1:0",
        "--mqtt-ws=127.0.0.1:0",
        f"--tls-cert={authority.cert_file}",
        f"--tls-key={authority.key_file}",
    )
    with Daemon(folder / "data", *options) as daemon:
        ports = {transport: daemon.addresses[kind][1] for transport, kind in KINDS.items()}
        yield MqttBroker(ports, daemon.port, str(authority.ca_file))
    assert "Traceback" not in daemon.log, daemon.log
