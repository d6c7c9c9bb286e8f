"""Runs once more what is about quorum queues: RabbitMQ is one node, fluffle three."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import pytest

from tests.compat.comparing import compare
from tests.compat.oracle import RabbitMQ, free_port
from tests.compat.scenario import load_scenarios
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat

QUORUM_QUEUES = ("section_15", "section_07_single_active")

SCENARIOS = {
    name: each for name, each in load_scenarios().items() if name.startswith(QUORUM_QUEUES)
}

NODES = ("a", "b", "c")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    listening = {node: f"127.0.0.1:{free_port()}" for node in NODES}
    peers = ",".join(f"{node}={address}" for node, address in listening.items())
    secret = {"FLUFFLE_CLUSTER_SECRET": token_hex(16)}
    daemons = {}
    for node, address in listening.items():
        options = ("--node", node, "--cluster-listen", address, "--peers", peers)
        folder = tmp_path_factory.mktemp(node)
        daemons[node] = Daemon(folder, *options, environment=secret)
    with ThreadPoolExecutor(len(NODES)) as together:
        list(together.map(Daemon.start, daemons.values()))
    yield daemons
    with ThreadPoolExecutor(len(NODES)) as together:
        list(together.map(Daemon.stop, daemons.values()))
    for daemon in daemons.values():
        assert "Traceback" not in daemon.log


@pytest.mark.parametrize("node", NODES[:2])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_any_node_answers_as_rabbitmq(
    name: str, node: str, rabbitmq: RabbitMQ, cluster: dict[str, Daemon]
) -> None:
    scenario = SCENARIOS[name]
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(scenario.run, "127.0.0.1", rabbitmq.port)
        ours = scenario.run("127.0.0.1", cluster[node].port)
        theirs = running.result()
    compare(name, theirs, ours)
