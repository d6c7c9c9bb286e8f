"""docs/mqtt.md: its examples print what it says, and rights are what it says of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.certificates import Authority
from tests.support.daemon import Daemon
from tests.support.deadlines import DEADLINE_S
from tests.support.require import require

PAGE = (Path(__file__).parent.parent / "docs" / "mqtt.md").read_text(encoding="utf-8")
BLOCK = r"```{}\n((?:(?!```).)*)```\n"
EXAMPLES = re.findall(
    BLOCK.format("python") + "\n" + BLOCK.format("text"), PAGE, re.DOTALL | re.MULTILINE
)
PORTS = {"amqp": "5672", "mqtt": "1883", "mqtt-ws": "15675"}

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    options = (f"--{name}=127.0.0.1:0" for name in ("mqtt", "mqtt-ws"))
    with Daemon(tmp_path_factory.mktemp("node"), *options) as daemon:
        yield daemon
    assert "Traceback" not in daemon.log, daemon.log


def output(words: list[str], *, folder: Path | None = None) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=DEADLINE_S, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_example_is_found() -> None:
    assert len(EXAMPLES) == PAGE.count("```python\n") == 5


@pytest.mark.parametrize(("code", "said"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_prints_what_is_said(daemon: Daemon, code: str, said: str) -> None:
    for listener, usual in PORTS.items():
        code = re.sub(rf"\b{usual}\b", str(daemon.addresses[listener][1]), code)
    assert output([sys.executable, "-c", code]) == said


def test_clients_of_mosquitto_print_what_is_said(daemon: Daemon) -> None:
    found = re.search(
        r"```sh\n(mosquitto_pub (?:(?!```).)*)```\n\n" + BLOCK.format("text"), PAGE, re.DOTALL
    )
    assert found is not None
    commands, said = found.groups()
    for name in ("mosquitto_pub", "mosquitto_sub"):
        commands = commands.replace(name, f"{require(name)} -p {daemon.addresses['mqtt'][1]}")
    assert output(["sh", "-e", "-c", commands]) == said


class Meter:
    """The client m1 of the user meter, as the page has it."""

    def __init__(self, daemon: Daemon) -> None:
        self._codes: list[list[ReasonCode]] = []
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="m1", protocol=paho.MQTTv5, userdata=self._codes
        )
        client.username_pw_set("house:meter", "secret word")
        client.on_connect = lambda _client, reported, _flags, code, _more: reported.append([code])
        client.on_subscribe = lambda _client, reported, _id, codes, _more: reported.append(codes)
        client.on_publish = lambda _client, reported, _id, code, _more: reported.append([code])
        client.connect("127.0.0.1", daemon.addresses["mqtt"][1])
        self.client = client

    def reported(self) -> list[int]:
        """The codes of the next answer."""
        while not self._codes:
            assert self.client.loop() == paho.MQTT_ERR_SUCCESS
        return [code.value for code in self._codes.pop(0)]


def test_rights_are_those_that_its_commands_give(daemon: Daemon, tmp_path: Path) -> None:
    block = re.search(r"```sh\n(fluffle vhosts add (?:(?!```).)*)```", PAGE, re.DOTALL)
    assert block is not None
    (tmp_path / "secret").write_text("secret word\n")
    commands = f'fluffle() {{ {sys.executable} -m fluffle.broker "$@"; }}\n'
    commands += f"export FLUFFLE_DATA_DIR={daemon.data_dir}\n{block[1]}"
    output(["sh", "-e", "-c", commands], folder=tmp_path)
    meter = Meter(daemon)
    assert meter.reported() == [0]
    for topic, code in (("meters/m1/power", 0x10), ("meters/m2/power", 0x87)):
        meter.client.publish(topic, b"1", 1)
        assert meter.reported() == [code]
    meter.client.subscribe([("meters/m1/#", 1), ("meters/+/power", 1), ("news/+", 0)])
    assert meter.reported() == [1, 0x87, 0]
    meter.client.disconnect()


def test_a_node_that_stops_says_so_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    command = re.search(r"^fluffle serve (--mqtt-tls .*)$", PAGE, re.MULTILINE)
    assert command is not None
    options = re.sub(r" :\d+", " 127.0.0.1:0", command[1])
    options = options.replace("cert.pem", str(authority.cert_file))
    options = options.replace("key.pem", str(authority.key_file))
    reported: list[int] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, userdata=reported)
    client.on_connect = lambda _client, reported, _flags, code, _more: reported.append(code.value)
    client.on_disconnect = lambda _client, reported, _flags, code, _more: reported.append(
        code.value
    )
    with Daemon(tmp_path / "node", *options.split()) as daemon:
        client.tls_set_context(authority.client())
        client.connect("localhost", daemon.addresses["mqtts"][1])
        while not reported:
            client.loop()
        daemon.stop()
        while len(reported) < 2:
            client.loop()
    assert reported == [0, 0x8B]
