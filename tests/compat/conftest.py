"""Both brokers, once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.estate import ESTATE
from tests.compat.oracle import RabbitMQ
from tests.support.daemon import Daemon

EXCHANGE_PLUGINS = (
    "rabbitmq_consistent_hash_exchange,rabbitmq_random_exchange,rabbitmq_recent_history_exchange,"
    "rabbitmq_sharding,rabbitmq_jms_topic_exchange"
)
"""What knows the exchange types of row 4.5: those that RabbitMQ has not built in."""


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """RabbitMQ 4.0.5, with its exchange types; skipped where it is not installed."""
    folder: Path = tmp_path_factory.mktemp("rabbitmq")
    with RabbitMQ(folder, plugins=EXCHANGE_PLUGINS) as node:
        node.import_definitions(ESTATE)
        yield node


@pytest.fixture(scope="session")
def fluffle(tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ) -> Iterator[Daemon]:
    """fluffle with the users, virtual hosts and permissions that RabbitMQ exports."""
    definitions = str(rabbitmq.export_definitions())
    with Daemon(tmp_path_factory.mktemp("fluffle"), "--definitions", definitions) as daemon:
        yield daemon
    assert "Traceback" not in daemon.log
