"""A broker in the process of the tests does what one in a process of its own does."""

from __future__ import annotations

import logging
from threading import get_ident

import pytest

from fluffle.protocol.methods import Basic, make
from tests.compat.embedded import embedded, embedded_cluster, no_error_logged
from tests.support.client import Client


def test_what_is_logged_with_a_traceback_fails() -> None:
    with pytest.raises(AssertionError, match="by zero"):
        log_a_traceback(get_ident())


def test_what_the_broker_of_another_thread_logs_does_not() -> None:
    log_a_traceback(get_ident() + 1)


def log_a_traceback(broker_thread: int) -> None:
    """Beside a broker of that thread."""
    error = ZeroDivisionError("by zero")
    with no_error_logged() as errors:
        errors.thread = broker_thread
        logging.getLogger("fluffle.broker.protocols.amqp091.connection").error(
            "it failed", exc_info=error
        )


def test_what_is_logged_without_one_does_not() -> None:
    with no_error_logged():
        logging.getLogger("fluffle.broker.protocols.amqp091.connection").error("refused")


def test_options_are_those_of_the_command_line() -> None:
    with embedded("--event-exchange", "--management=127.0.0.1:0") as broker:
        assert broker.addresses.keys() == {"amqp", "management", "mqtt"}
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
