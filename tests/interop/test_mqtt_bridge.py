"""A bridge of mosquitto to a node: messages go both ways, and the node has its state below `$SYS`.

Its settings are those by default.  So before MQTT 5.0 it first asks for a version of the protocol
that only mosquitto has, is refused, and comes again after `restart_timeout`.
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
restart_timeout 1
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
) -> Iterator[tuple[MqttBroker, str, Process]]:
    """A mosquitto whose bridge has subscribed here; the first level of what it passes on, which is
    its client identifier, too; and its process."""
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
        yield MqttBroker({"tcp": port}, 0, ""), topic, process
    finally:
        process.kill()


def test_a_bridge_passes_messages_on_in_both_directions(
    mqtt: MqttBroker, bridge: tuple[MqttBroker, str, Process]
) -> None:
    mosquitto, topic, _ = bridge
    for sender, receiver, way in ((mosquitto, mqtt, "up"), (mqtt, mosquitto, "down")):
        topic_filter = f"{topic}/{way}/#"
        with subscriber(
            receiver, "-t", topic_filter, "-q", "1", "-C", "1", "-F", "%t %q %p"
        ) as heard:
            publish(sender, "-t", f"{topic}/{way}/a", "-q", "1", "-m", "hello")
            assert heard() == [f"{topic}/{way}/a 1 hello"]


def test_the_state_of_a_bridge_is_retained_and_its_will_changes_it(
    mqtt: MqttBroker, bridge: tuple[MqttBroker, str, Process]
) -> None:
    _, client_id, process = bridge
    state = f"$SYS/broker/connection/{client_id}/state"
    with subscriber(mqtt, "-t", state, "-q", "1", "-C", "2", "-F", "%q %r %p") as heard:
        process.kill()
        assert heard() == ["1 1 1", "1 0 0"]
