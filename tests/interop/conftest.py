"""The broker that other people's clients talk to, and deadlines for all of them.

`FLUFFLE_INTEROP_URL=amqp://user:password@host:port/vhost` runs the same tests against any broker:
whatever they expect, RabbitMQ does.
"""

import os
import re
import uuid
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.interop.mqtt_broker import MqttBroker, mqtt_broker
from tests.support.daemon import Daemon
from tests.support.deadlines import interrupted

EXTERNAL = os.environ.get("FLUFFLE_INTEROP_URL", "")
FORBIDDEN_IN_LOG = re.compile(r"Traceback|Task exception|never (?:awaited|retrieved)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "interop" in item.path.parts:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session", params=["external"] if EXTERNAL else ["daemon", "inside"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The AMQP URL of the broker under test, up for the whole run.

    The same tests run against a process, and against the broker that our pytest plugin has in this.
    """
    if request.param == "external":
        yield EXTERNAL
        return
    if request.param == "inside":
        yield request.getfixturevalue("amqp_broker").url
        return
    daemon = Daemon(tmp_path_factory.mktemp("interop"))
    daemon.start()
    yield daemon.url
    exit_code = daemon.stop()
    assert exit_code == 0, daemon.log
    assert not FORBIDDEN_IN_LOG.search(daemon.log), daemon.log


@pytest.fixture(scope="session")
def mqtt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttBroker]:
    """The broker that MQTT clients talk to."""
    with mqtt_broker(tmp_path_factory.mktemp("mqtt")) as broker:
        yield broker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Interrupt a client that waits for what the broker never sends.

    Fixtures may take longer: some end and start nodes of RabbitMQ.
    """
    with interrupted():
        return (yield)


@pytest.fixture
def name() -> Callable[[str], str]:
    """Make names that no other test uses: an external broker outlives a run."""
    suffix = uuid.uuid4().hex[:12]
    return lambda base: f"interop.{base}.{suffix}"
