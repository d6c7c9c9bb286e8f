"""Both brokers, once a session: RabbitMQ from when it is asked, fluffle in the process of the tests
or, if RabbitMQ is asked for all, in a process of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.compat.clusters import Cluster, FluffleCluster
from tests.compat.embedded import Serving, embedded, embedded_cluster
from tests.compat.estate import estate_of, with_estate
from tests.compat.oracle import RabbitMQ
from tests.compat.replay import Answers, Mode
from tests.support.daemon import Daemon


@pytest.fixture(scope="session")
def answers(pytestconfig: pytest.Config) -> Answers:
    """Answers of RabbitMQ, recorded or not."""
    if pytestconfig.getoption("record"):
        return Answers(Mode.RECORD)
    return Answers(Mode.LIVE if pytestconfig.getoption("live") else Mode.REPLAY)


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], RabbitMQ]]:
    """RabbitMQ 4.0.5 with its exchange types, started by whoever is the first to ask for it.

    Where it is not installed, whoever asks is skipped.
    """
    with ExitStack() as running:

        @cache
        def started() -> RabbitMQ:
            return running.enter_context(with_estate(tmp_path_factory.mktemp("rabbitmq")))

        yield started


@pytest.fixture(scope="session")
def rabbitmq(oracle: Callable[[], RabbitMQ]) -> RabbitMQ:
    """Node of RabbitMQ for tests without recordings."""
    return oracle()


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory, answers: Answers) -> Path:
    """The users, virtual hosts and permissions of the estate, as RabbitMQ exports them."""

    def export() -> str:
        with with_estate(tmp_path_factory.mktemp("rabbitmq")) as node:  # with nothing else in it
            return node.export_definitions().read_text()

    file = tmp_path_factory.mktemp("estate") / "export.json"
    file.write_text(estate_of(answers, export))
    return file


@pytest.fixture(scope="session")
def fluffle(
    tmp_path_factory: pytest.TempPathFactory, answers: Answers, definitions: Path
) -> Iterator[Serving]:
    """fluffle with these."""
    if not answers.is_live:
        with embedded(f"--definitions={definitions}") as broker:
            yield broker
        return
    with Daemon(tmp_path_factory.mktemp("fluffle"), f"--definitions={definitions}") as daemon:
        yield daemon
    assert "Traceback" not in daemon.log


@pytest.fixture(scope="module")
def fluffles(tmp_path_factory: pytest.TempPathFactory, answers: Answers) -> Iterator[Cluster]:
    """Three nodes of fluffle."""
    if not answers.is_live:
        with embedded_cluster() as cluster:
            yield cluster
        return
    processes = FluffleCluster(tmp_path_factory.mktemp("fluffles"))
    with processes:
        yield processes
    assert "Traceback" not in "".join(daemon.log for daemon in processes.daemons.values())
