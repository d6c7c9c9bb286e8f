"""mosquitto_pub, mosquitto_sub and mosquitto_rr: what people try a broker with."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.interop.mqtt_broker import LOOPBACK, TRANSPORTS, MqttBroker
from tests.support.deadlines import DEADLINE_S
from tests.support.require import require

Name = Callable[[str], str]
VERSIONS = ("mqttv31", "mqttv311", "mqttv5")
SUBSCRIBED = "Subscribed (mid"


@pytest.fixture
def name(name: Name) -> Name:
    """Names as of all tests, without dots: RabbitMQ takes them for slashes."""
    return lambda base: name(base).replace(".", "-")


def arguments(mqtt: MqttBroker, version: str = "mqttv5", transport: str = "tcp") -> list[str]:
    where = ["-h", LOOPBACK, "-p", str(mqtt.ports[transport]), "-u", "guest", "-P", "guest"]
    secure = ["--cafile", mqtt.ca_file] if transport == "tls" else []
    return [*where, "-V", version, *secure]


def publish(mqtt: MqttBroker, *options: str, **how: str) -> None:
    command = [require("mosquitto_pub"), *arguments(mqtt, **how), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def subscriber(mqtt: MqttBroker, *options: str, **how: str) -> Iterator[Callable[[], list[str]]]:
    """A mosquitto_sub that is subscribed; it ends by itself, and then says what it heard."""
    command = [require("stdbuf"), "-oL", require("mosquitto_sub"), *arguments(mqtt, **how), "-d"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(SUBSCRIBED):
                    break
            else:
                raise AssertionError("it was not subscribed")
            output = process.stdout
            yield lambda: [
                line.rstrip("\n") for line in output if not line.startswith(("Client ", SUBSCRIBED))
            ]
        finally:
            process.kill()


@pytest.mark.parametrize("transport", [each for each in TRANSPORTS if each != "websockets"])
@pytest.mark.parametrize("version", VERSIONS)
def test_publish_and_subscribe(mqtt: MqttBroker, name: Name, version: str, transport: str) -> None:
    topic = name("topic")
    how = {"version": version, "transport": transport}
    with subscriber(
        mqtt, "-t", f"{topic}/#", "-q", "2", "-C", "3", "-F", "%t %q %r %p", **how
    ) as heard:
        for qos in ("0", "1", "2"):
            publish(mqtt, "-t", f"{topic}/{qos}", "-q", qos, "-m", f"hello {qos}", **how)
        assert heard() == [f"{topic}/{qos} {qos} 0 hello {qos}" for qos in (0, 1, 2)]


def test_retained_messages(mqtt: MqttBroker, name: Name) -> None:
    topic = name("topic")
    publish(mqtt, "-t", f"{topic}/a", "-q", "1", "-m", "kept", "-r")
    with subscriber(mqtt, "-t", f"{topic}/+", "-C", "1", "-F", "%r %p") as heard:
        assert heard() == ["1 kept"]
    publish(mqtt, "-t", f"{topic}/a", "-q", "1", "-n", "-r")


def test_properties(mqtt: MqttBroker, name: Name) -> None:
    topic = name("topic")
    sent = {"content-type": "text/plain", "correlation-data": "id", "response-topic": "a/b"}
    options = [word for pair in sent.items() for word in ("-D", "publish", *pair)]
    with subscriber(mqtt, "-t", topic, "-C", "1", "-F", "%C %D %R %P %p") as heard:
        publish(
            mqtt, "-t", topic, "-m", "hello", *options, "-D", "publish", "user-property", "k", "v"
        )
        assert heard() == ["text/plain id a/b k:v hello"]


def test_request_and_response(mqtt: MqttBroker, name: Name) -> None:
    topic = name("topic")
    command = [require("mosquitto_rr"), *arguments(mqtt), "-t", f"{topic}/ask"]
    command += ["-e", f"{topic}/answer", "-m", "question", "-W", "15"]
    with (
        subscriber(mqtt, "-t", f"{topic}/ask", "-C", "1", "-F", "%R %p") as heard,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking,
    ):
        assert heard() == [f"{topic}/answer question"]
        publish(mqtt, "-t", f"{topic}/answer", "-m", "answer")
        assert asking.communicate(timeout=DEADLINE_S)[0] == "answer\n"
        assert asking.returncode == 0


def test_a_wrong_password(mqtt: MqttBroker) -> None:
    command = [require("mosquitto_pub"), *arguments(mqtt), "-P", "wrong", "-t", "a", "-m", "b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode != 0
    assert "bad user name or password" in done.stderr.lower()
