"""MQTT.js on node, over TCP and websockets.  Its checks are a script in `node/`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.mqtt_broker import EXTERNAL, LOOPBACK, MqttBroker
from tests.support.deadlines import DEADLINE_S
from tests.support.node_packages import installed

FOLDER = Path(__file__).parent / "node"
CHECKS = (
    "version311",
    "version5",
    "aliases",
    "authentication",
    "retained",
    "session",
    "will",
    "properties",
    "wrongPassword",
)
URLS = {"tcp": "mqtt://{}:{}", "websockets": "ws://{}:{}/ws"}


@pytest.fixture(scope="module")
def node() -> str:
    return installed(FOLDER)


@pytest.mark.parametrize("transport", ["tcp"] if EXTERNAL else URLS)
@pytest.mark.parametrize("check", CHECKS)
def test_mqtt_js(node: str, mqtt: MqttBroker, check: str, transport: str) -> None:
    url = URLS[transport].format(LOOPBACK, mqtt.ports[transport])
    result = run(node, check, url)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["check"] == check


def test_every_check_is_run(node: str) -> None:
    assert sorted(json.loads(run(node, "--list").stdout)) == sorted(CHECKS)


def run(node: str, check: str, url: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [node, "mqtt.mjs", check],
        cwd=FOLDER,
        env=os.environ | {"AMQP_URL": url},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
