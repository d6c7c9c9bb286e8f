"""x-expires, as clients see it: a queue that nobody uses goes, and its messages with it."""

from __future__ import annotations

import pytest

from fluffle.protocol.methods import Basic, Method, Queue, encode_method, make, pamqp_table
from fluffle.protocol.wire import to_table
from tests.support.edge import Client, Edge

EXPIRES_S = 10


def send(client: Client, *methods: Method) -> None:
    client.send(*(encode_method(1, method) for method in methods))


class Harness:
    """A queue that is to go after a while, and a client who may use it."""

    def __init__(self) -> None:
        self.edge = Edge()
        self.client = self.edge.connect()
        table = to_table({"x-expires": 1_000 * EXPIRES_S, "x-dead-letter-exchange": "amq.fanout"})
        self.arguments = pamqp_table(table)
        self.declare()

    def declare(self, *, passive: bool = False, nowait: bool = False) -> None:
        send(
            self.client,
            make(
                Queue.Declare,
                queue="q",
                durable=True,
                arguments=self.arguments,
                passive=passive,
                nowait=nowait,
            ),
        )
        if not nowait:
            self.client.expect(Queue.DeclareOk)

    @property
    def is_there(self) -> bool:
        return "q" in self.edge.vhost.queues

    def expect_gone_after(self, seconds: float) -> None:
        self.edge.advance(seconds - 0.01)
        assert self.is_there
        self.edge.advance(0.02)
        assert not self.is_there


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_queue_that_nobody_uses_goes_with_its_messages(harness: Harness) -> None:
    harness.client.declare("dead")
    send(harness.client, make(Queue.Bind, queue="dead", exchange="amq.fanout"))
    harness.client.expect(Queue.BindOk)
    harness.client.publish(b"m")
    harness.expect_gone_after(EXPIRES_S)
    assert harness.client.declare("dead").message_count == 0, "it is not dead-lettered"


@pytest.mark.parametrize("use", ["declare", "declare passively", "get"])
def test_who_uses_it_has_it_stay(harness: Harness, use: str) -> None:
    harness.edge.advance(EXPIRES_S - 1)
    if use == "get":
        send(harness.client, make(Basic.Get, queue="q"))
        harness.client.expect(Basic.GetEmpty)
    else:
        harness.declare(passive=use == "declare passively")
    harness.expect_gone_after(EXPIRES_S)


def test_who_declares_it_without_waiting_does_not_ask_for_it(harness: Harness) -> None:
    harness.edge.advance(EXPIRES_S - 1)
    harness.declare(nowait=True)
    harness.client.publish(b"m")
    harness.expect_gone_after(1)


def test_it_stays_as_long_as_it_has_consumers(harness: Harness) -> None:
    harness.client.consume(tag="c")
    harness.edge.advance(3 * EXPIRES_S)
    assert harness.is_there
    send(harness.client, make(Basic.Cancel, consumer_tag="c"))
    harness.client.expect(Basic.CancelOk)
    harness.expect_gone_after(EXPIRES_S)


def test_a_queue_that_is_gone_is_not_waited_for(harness: Harness) -> None:
    send(harness.client, make(Queue.Delete, queue="q"))
    harness.client.expect(Queue.DeleteOk)
    harness.edge.advance(1)
    harness.declare()
    harness.expect_gone_after(EXPIRES_S)
