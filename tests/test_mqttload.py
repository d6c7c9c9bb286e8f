"""The load generator for MQTT notices what a broker does wrong, and its figures become a table."""

import json
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import mqtt
from benchmarks.brokers import NotAvailable
from benchmarks.load import compiled
from fluffle.protocol.mqtt.properties import decode_properties, read_properties
from tests.compat.mqtt.packets import Kind, packet, u16
from tests.support.deadlines import DEADLINE_S
from tests.support.require import unavailable

WELCOME = packet(0x20, b"\0\0", b"\0")
MESSAGES = 30


class ScriptedBroker(socketserver.ThreadingTCPServer):
    """Welcomes everybody, grants everything, and answers a PUBLISH with `answers`.

    A subscriber is sent what was `retained`, and then each PUBLISH of QoS 0."""

    daemon_threads = True

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.answers = answers
        self.retained = b""
        self.subscriber: Session | None = None
        self.welcome = WELCOME
        self.published = 0
        self.published_body = b""


class Session(socketserver.StreamRequestHandler):
    """Connection, until it is closed."""

    server: ScriptedBroker

    def handle(self) -> None:
        while first := self.rfile.read(1):
            size = self.rfile.read(1)[0]
            body = self.rfile.read(size)
            kind = first[0] >> 4
            if kind == Kind.CONNECT:
                self.wfile.write(self.server.welcome)
            elif kind == Kind.PINGREQ:
                self.wfile.write(packet(0xD0))
            elif kind == Kind.SUBSCRIBE:
                self.server.subscriber = self
                self.wfile.write(packet(0x90, body[:2], b"\0\0") + self.server.retained)
            elif kind == Kind.PUBLISH:
                self.server.published += 1
                self.server.published_body = body
                name_bytes = int.from_bytes(body[:2])
                number = body[2 + name_bytes : 4 + name_bytes]
                for answer in self.server.answers:
                    self.wfile.write(answer.replace(b"ID", number))
                if self.server.subscriber is not None:
                    self.server.subscriber.wfile.write(first + bytes([size]) + body)


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return compiled(mqtt.FOLDER)
    except NotAvailable as missing:
        unavailable(str(missing))


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker([packet(0x40, b"ID")]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def load(program: Path, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), *options, "-p", str(port), "-n", str(MESSAGES), "-T", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_what_was_published_is_counted(program: Path, broker: ScriptedBroker) -> None:
    done = load(program, broker.server_address[1], "publish", "-q", "1", "-c", "2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"] == broker.published == MESSAGES


def test_messages_may_have_properties(program: Path, broker: ScriptedBroker) -> None:
    done = load(program, broker.server_address[1], "publish", "-q", "1", "-x", "-s", "3")
    assert done.returncode == 0, done.stderr
    body = broker.published_body
    raw, offset = read_properties(body, 4 + int.from_bytes(body[:2]))
    assert decode_properties(raw).user == [("unit", "celsius")]
    assert body[offset:] == b"xxx"


def test_versions_before_5_have_no_properties(program: Path) -> None:
    done = load(program, 1, "publish", "-x", "-v", "4")
    assert (done.returncode, done.stderr[:8]) == (2, "mqttload")


def test_a_broker_that_does_not_acknowledge_ends_the_run(
    program: Path, broker: ScriptedBroker
) -> None:
    broker.answers = []
    done = load(program, broker.server_address[1], "publish", "-q", "1", "-w", "10")
    assert (done.returncode, done.stdout) == (3, "")
    assert "gave up: 10 sent, 0 acknowledged" in done.stderr


def test_a_message_that_is_refused_ends_the_run(program: Path, broker: ScriptedBroker) -> None:
    broker.answers = [packet(0x40, b"ID", b"\x97")]
    done = load(program, broker.server_address[1], "publish", "-q", "1")
    assert (done.returncode, done.stderr) == (2, "PUBACK 0x97\n")


def test_no_more_is_under_way_than_the_broker_takes(program: Path, broker: ScriptedBroker) -> None:
    broker.welcome = packet(0x20, b"\0\0", b"\3\x21", u16(4))
    broker.answers = []
    done = load(program, broker.server_address[1], "publish", "-q", "1", "-w", "10")
    assert "gave up: 4 sent" in done.stderr


def test_what_an_earlier_run_has_retained_is_no_delivery(
    program: Path, broker: ScriptedBroker
) -> None:
    topic = b"load/topic/0"
    broker.retained = packet(0x31, u16(len(topic)), topic, b"\0", b"kept")
    done = load(program, broker.server_address[1], "pairs")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["deliveries"] == broker.published == MESSAGES


def test_figures_stand_beside_what_is_aimed_at() -> None:
    found = {
        "publish1": {"mosquitto": [4.0, 2.0, 3.0], "rabbitmq": [12.0], "fluffle": [1.5]},
        "pairs2": {"mosquitto": [20.0], "rabbitmq": [], "fluffle": []},
    }
    assert mqtt.table(found).splitlines()[2:] == [
        "| publish QoS 1 to nobody | 3 | 12 | 1.5 | 0.5 | ≤ 0.6 | 0.125 | ≤ 0.15 |",
        "| pairs QoS 2 | 20 | – | – | – | ≤ 1 | – |  |",
    ]
