"""No answer to a declaration before what it says is on disk; nothing waits that is transient.

`on_disk` is what a node would find that starts now.
"""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.fact_codec import VhostImage
from fluffle.broker.runtime.turn import Turn
from fluffle.protocol.methods import Basic, Connection, Exchange, Method, Queue, encode_method, make
from tests.broker.protocols.amqp091.test_durable_order import Harness
from tests.support.store import open_store


class DefinitionsRig(Harness):
    """With durable exchanges, a bound queue, and one that goes with its consumer."""

    def __init__(self) -> None:
        super().__init__()
        self.send(make(Exchange.Declare, exchange="x", exchange_type="topic", durable=True))
        self.send(make(Exchange.Declare, exchange="y", exchange_type="topic", durable=True))
        self.send(make(Queue.Bind, queue="q", exchange="x", routing_key="old"))
        self.send(make(Exchange.Bind, destination="y", source="x", routing_key="old"))
        self.send(make(Queue.Declare, queue="auto", durable=True, auto_delete=True))
        self.send(make(Basic.Consume, queue="auto", consumer_tag="c"))
        self.settle()
        self.client.arrivals()

    def found(self) -> dict[str, Any]:
        """Definitions on disk, by kind."""
        durability = Durability(open_store(self.disk.after_power_loss()), Turn(lambda _: None))
        vhost = durability.image.vhosts.get("/", VhostImage())
        return {
            "exchanges": {spec.name for spec in vhost.exchanges},
            "queues": {queue.spec.name for queue in vhost.queues},
            "bindings": {
                (made.source, made.destination, made.routing_key) for made in vhost.bindings
            },
        }


@pytest.fixture
def harness() -> DefinitionsRig:
    return DefinitionsRig()


EXCHANGES, QUEUES = {"x", "y"}, {"q", "r", "auto"}
BINDINGS = {("x", "q", "old"), ("x", "y", "old")}

DURABLE: list[tuple[Method, str, dict[str, object]]] = [
    (
        make(Exchange.Declare, exchange="z", exchange_type="topic", durable=True),
        "Exchange.DeclareOk",
        {"exchanges": {"x", "y", "z"}},
    ),
    (
        make(Exchange.Delete, exchange="y"),
        "Exchange.DeleteOk",
        {"exchanges": {"x"}, "bindings": {("x", "q", "old")}},
    ),
    (
        make(Exchange.Bind, destination="y", source="x", routing_key="new"),
        "Exchange.BindOk",
        {"bindings": {*BINDINGS, ("x", "y", "new")}},
    ),
    (
        make(Exchange.Unbind, destination="y", source="x", routing_key="old"),
        "Exchange.UnbindOk",
        {"bindings": {("x", "q", "old")}},
    ),
    (
        make(Queue.Declare, queue="s", durable=True),
        "Queue.DeclareOk",
        {"queues": {*QUEUES, "s"}},
    ),
    (
        make(Queue.Delete, queue="q"),
        "Queue.DeleteOk",
        {"queues": {"r", "auto"}, "bindings": {("x", "y", "old")}},
    ),
    (
        make(Queue.Bind, queue="q", exchange="x", routing_key="new"),
        "Queue.BindOk",
        {"bindings": {*BINDINGS, ("x", "q", "new")}},
    ),
    (
        make(Queue.Unbind, queue="q", exchange="x", routing_key="old"),
        "Queue.UnbindOk",
        {"bindings": {("x", "y", "old")}},
    ),
    (make(Basic.Cancel, consumer_tag="c"), "Basic.CancelOk", {"queues": {"q", "r"}}),
]


@pytest.mark.parametrize(("method", "reply", "change"), DURABLE, ids=[row[1] for row in DURABLE])
def test_an_answer_comes_once_what_it_says_is_on_disk(
    harness: DefinitionsRig, method: Method, reply: str, change: dict[str, object]
) -> None:
    before = {"exchanges": EXCHANGES, "queues": QUEUES, "bindings": BINDINGS}
    assert harness.found() == before
    harness.send(method)
    harness.client.expect_nothing()
    assert harness.found() == before
    harness.commit()
    assert harness.client.names() == [reply]
    assert harness.found() == before | change


TRANSIENT: list[Method] = [
    make(Exchange.Declare, exchange="z", exchange_type="topic"),
    make(Queue.Declare, queue="s"),
    make(Queue.Declare, queue="s", durable=True, exclusive=True),
    make(Queue.Declare, queue="q", durable=True),
    make(Queue.Declare, queue="q", passive=True),
    make(Exchange.Declare, exchange="x", passive=True),
    make(Queue.Bind, queue="q", exchange="x", routing_key="old"),
    make(Queue.Unbind, queue="q", exchange="x", routing_key="never"),
    make(Queue.Delete, queue="never"),
    make(Exchange.Delete, exchange="never"),
]


@pytest.mark.parametrize("method", TRANSIENT, ids=lambda method: method.name)
def test_what_changes_nothing_durable_is_answered_at_once(
    harness: DefinitionsRig, method: Method
) -> None:
    harness.send(method)
    assert len(harness.client.names()) == 1
    assert not harness.is_writing


def test_a_transient_queue_with_bindings_comes_and_goes_without_the_disk(
    harness: DefinitionsRig,
) -> None:
    harness.send(make(Queue.Declare, queue="s", exclusive=True))
    harness.send(make(Queue.Bind, queue="s", exchange="x", routing_key="k"))
    harness.send(make(Queue.Delete, queue="s"))
    assert harness.client.names() == ["Queue.DeclareOk", "Queue.BindOk", "Queue.DeleteOk"]
    assert not harness.is_writing


def test_who_asks_about_it_waits_too(harness: DefinitionsRig) -> None:
    other = harness.edge.connect()
    harness.send(make(Queue.Declare, queue="s", durable=True))
    other.send(encode_method(1, make(Queue.Declare, queue="s", passive=True)))
    other.expect_nothing()
    harness.commit()
    assert other.names() == ["Queue.DeclareOk"]


def test_declarations_that_come_together_share_a_commit(harness: DefinitionsRig) -> None:
    harness.send(*(make(Queue.Declare, queue=f"s{number}", durable=True) for number in range(100)))
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.names() == ["Queue.DeclareOk"] * 100
    assert not harness.is_writing


def test_a_connection_that_closes_waits_for_what_it_declared(harness: DefinitionsRig) -> None:
    harness.send(make(Queue.Declare, queue="s", durable=True, nowait=True))
    close = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
    harness.send(close, channel=0)
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.names() == ["Connection.CloseOk"]
    assert "s" in harness.found()["queues"]
