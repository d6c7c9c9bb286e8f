"""A bridge of mosquitto to a node: messages go both ways.

`notifications false`: else the bridge has a will below `$SYS`, and is refused.
`try_private false`: else it first asks for a version of the protocol that only mosquitto has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.mqtt_broker import MqttBroker
from tests.interop.test_mqtt_commands import publish, subscriber
from tests.support.daemon import environment_for_nodes
from tests.support.ports import free_ports
from tests.support.process import Process
from tests.support.require import require

CONFIGURATION = """
listener {port} 127.0.0.1
allow_anonymous true
log_type all
connection fluffle
address 127.0.0.1:{remote_port}
bridge_protocol_version {version}
try_private false
notifications false
remote_clientid {client_id}
remote_username guest
remote_password guest
cleansession false
topic {topic}/up/# out 1
topic {topic}/down/# in 1
"""
BRIDGED = r"Received SUBACK from"
"""Line of the log of a mosquitto whose bridge has subscribed."""


@pytest.fixture(params=["mqttv311", "mqttv50"])
def bridge(
    request: pytest.FixtureRequest, mqtt: MqttBroker, name: Callable[[str], str], tmp_path: Path
) -> Iterator[tuple[MqttBroker, str]]:
    """A mosquitto whose bridge has subscribed here, and the first level of what it passes on."""
    (port,) = free_ports(1)
    topic = name("bridged").replace(".", "-")
    file = tmp_path / "mosquitto.conf"
    text = CONFIGURATION.format(
        port=port,
        remote_port=mqtt.ports["tcp"],
        version=request.param,
        client_id=topic,
        topic=topic,
    )
    file.write_text(text)
    process = Process([require("mosquitto"), "-c", str(file)], BRIDGED, environment_for_nodes())
    try:
        yield MqttBroker({"tcp": port}, 0, ""), topic
    finally:
        process.kill()


def test_a_bridge_passes_messages_on_in_both_directions(
    mqtt: MqttBroker, bridge: tuple[MqttBroker, str]
) -> None:
    mosquitto, topic = bridge
    for sender, receiver, way in ((mosquitto, mqtt, "up"), (mqtt, mosquitto, "down")):
        topic_filter = f"{topic}/{way}/#"
        with subscriber(
            receiver, "-t", topic_filter, "-q", "1", "-C", "1", "-F", "%t %q %p"
        ) as heard:
            publish(sender, "-t", f"{topic}/{way}/a", "-q", "1", "-m", "hello")
            assert heard() == [f"{topic}/{way}/a 1 hello"]
