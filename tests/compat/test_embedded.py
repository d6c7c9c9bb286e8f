"""A broker in the process of the tests does what one in a process of its own does."""

from __future__ import annotations

import logging

import pytest

from fluffle.protocol.methods import Basic, make
from tests.compat.embedded import embedded, embedded_cluster, no_error_logged
from tests.support.client import Client


def test_what_is_logged_with_a_traceback_fails() -> None:
    logger = logging.getLogger("fluffle.broker.server.connection")
    error = ZeroDivisionError("by zero")
    with pytest.raises(AssertionError, match="by zero"), no_error_logged():
        logger.error("a handler failed", exc_info=error)


def test_what_is_logged_without_one_does_not() -> None:
    with no_error_logged():
        logging.getLogger("fluffle.broker.server.connection").error("refused")


def test_options_are_those_of_the_command_line() -> None:
    with embedded("--event-exchange", "--management=127.0.0.1:0") as broker:
        assert broker.addresses.keys() == {"amqp", "management"}
        config = broker.broker.broker.node.parts.config
        assert config.event_exchange


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_a_resource_is_low_and_is_not(resource: str) -> None:
    """And it is known at once, in a cluster on that node."""
    with embedded_cluster() as cluster, Client("127.0.0.1", cluster.port("b")) as client:
        client.open()
        client.channel(1)
        cluster.switch("b", resource, low=True)
        client.publish(1, "amq.direct", "nowhere")
        (blocked,) = client.expect("Connection.Blocked")
        assert resource in str(blocked)
        cluster.switch("b", resource, low=False)
        client.expect("Connection.Unblocked")
        assert client.call(1, make(Basic.Qos, prefetch_count=1)).name == "Basic.QosOk"


def test_nodes_are_called_by_their_short_names() -> None:
    with embedded_cluster() as cluster:
        assert cluster.shown("node 'node1' of 'node'") == "node 'b' of 'node'"
