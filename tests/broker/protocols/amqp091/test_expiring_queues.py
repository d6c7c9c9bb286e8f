"""x-expires, as clients see it: a queue that nobody uses goes, and its messages with it."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import features_not_in_effect
from fluffle.protocol.methods import Basic, Method, Queue, encode_method, make, pamqp_table
from fluffle.protocol.wire import to_table
from tests.support.edge import Client, Edge

EXPIRES_S = 10


def send(client: Client, *methods: Method) -> None:
    client.send(*(encode_method(1, method) for method in methods))


class Rig:
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
def rig() -> Rig:
    return Rig()


def test_a_queue_that_nobody_uses_goes_with_its_messages(rig: Rig) -> None:
    rig.client.declare("dead")
    send(rig.client, make(Queue.Bind, queue="dead", exchange="amq.fanout"))
    rig.client.expect(Queue.BindOk)
    rig.client.publish(b"m")
    assert features_not_in_effect(rig.edge.vhost.queues["q"].spec) == ()
    rig.expect_gone_after(EXPIRES_S)
    assert rig.client.declare("dead").message_count == 0, "it is not dead-lettered"


@pytest.mark.parametrize("use", ["declare", "declare passively", "get"])
def test_who_uses_it_has_it_stay(rig: Rig, use: str) -> None:
    rig.edge.advance(EXPIRES_S - 1)
    if use == "get":
        send(rig.client, make(Basic.Get, queue="q"))
        rig.client.expect(Basic.GetEmpty)
    else:
        rig.declare(passive=use == "declare passively")
    rig.expect_gone_after(EXPIRES_S)


def test_who_declares_it_without_waiting_does_not_ask_for_it(rig: Rig) -> None:
    rig.edge.advance(EXPIRES_S - 1)
    rig.declare(nowait=True)
    rig.client.publish(b"m")
    rig.expect_gone_after(1)


def test_it_stays_as_long_as_it_has_consumers(rig: Rig) -> None:
    rig.client.consume(tag="c")
    rig.edge.advance(3 * EXPIRES_S)
    assert rig.is_there
    send(rig.client, make(Basic.Cancel, consumer_tag="c"))
    rig.client.expect(Basic.CancelOk)
    rig.expect_gone_after(EXPIRES_S)


def test_a_queue_that_is_gone_is_not_waited_for(rig: Rig) -> None:
    send(rig.client, make(Queue.Delete, queue="q"))
    rig.client.expect(Queue.DeleteOk)
    rig.edge.advance(1)
    rig.declare()
    rig.expect_gone_after(EXPIRES_S)
