"""queues.*, exchanges.list and bindings.list at the desk."""

import pytest

from fluffle.broker.admin.queues import list_queues
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import Deferred, QueueCounts
from fluffle.broker.runtime.turn import raise_it
from fluffle.protocol.methods import Basic, pamqp_table
from fluffle.protocol.wire import to_table
from tests.broker.admin.verb_harness import VerbHarness
from tests.broker.cluster.queues.session_queue_harness import QueueHarness
from tests.broker.protocols.amqp091.test_deferred_answers import SlowQueue

HERE = {"vhost": "/"}


def test_what_a_queue_is_and_holds() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q", arguments=pamqp_table(to_table({"x-max-length": 9})))
    client.consume("q", prefetch=1)
    client.publish(b"1", b"2", b"3")
    row = {
        "vhost": "/",
        "name": "q",
        "type": "classic",
        "durable": False,
        "auto_delete": False,
        "exclusive": False,
        "owner": None,
        "arguments": {"x-max-length": 9},
        "policy": None,
        "operator_policy": None,
        "effective_policy_definition": {},
        "delivery_limit": None,
        "messages": 3,
        "messages_ready": 2,
        "messages_unacknowledged": 1,
        "consumers": 1,
        "single_active_consumer_tag": None,
        "exclusive_consumer_tag": None,
        "state": "running",
        "group": None,
        "node": desk.context.config.node_name,
        "leader": None,
        "members": None,
        "online": None,
    }
    assert desk.rows("queues.list") == [row]
    assert desk.ask("queues.show", name="q", **HERE) == row


@pytest.mark.parametrize(
    ("said", "reported"),
    [({}, 20), ({"x-delivery-limit": 7}, 7), ({"x-delivery-limit": -1}, "unlimited")],
)
def test_how_often_messages_of_a_quorum_queue_may_come_back(
    said: dict[str, int], reported: int | str
) -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    arguments = pamqp_table(to_table({"x-queue-type": "quorum", **said}))
    client.declare("q", durable=True, arguments=arguments)
    row = desk.ask("queues.show", name="q", **HERE)
    assert row["delivery_limit"] == reported
    policy = {"name": "p", "pattern": "q", "definition": '{"delivery-limit": 3}'}
    desk.ask("policies.set", **HERE, **policy)
    assert desk.ask("queues.show", name="q", **HERE)["delivery_limit"] == 3


def test_an_exclusive_queue_names_its_connection() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q", exclusive=True)
    row = desk.ask("queues.show", name="q", **HERE)
    assert (row["exclusive"], row["owner"]) == (True, client.connection.name)


def test_a_purge_takes_what_is_ready_and_says_how_much() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.publish(b"1", b"2", b"3")
    client.call(Basic.Get(queue="q"), Basic.GetOk)
    assert desk.ask("queues.purge", name="q", **HERE) == {"messages": 2}
    assert desk.ask("queues.show", name="q", **HERE)["messages"] == 1


def test_a_deletion_cancels_consumers() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.consume("q")
    assert desk.refusal("queues.delete", name="q", **HERE, if_unused=True) == (
        "PRECONDITION_FAILED: queue 'q' in vhost '/' in use"
    )
    assert desk.ask("queues.delete", name="q", **HERE) == {"messages": 0}
    assert client.names() == ["Basic.Cancel"]
    assert desk.rows("queues.list") == []


@pytest.mark.parametrize("is_away", [True, False])
def test_nobody_takes_a_queue_for_empty_that_nobody_counts(*, is_away: bool) -> None:
    """Its home is known to be away, or only does not answer."""
    rig = QueueHarness(QueueType.CLASSIC)
    rig.client.publish(b"1")
    rig.far.cut()
    rig.far.is_away = is_away
    desk = VerbHarness(edge=rig.node)
    refusal = desk.refusal("queues.delete", name="q", **HERE, if_empty=True)
    assert refusal == (
        "NOT_FOUND: home node 'far' of durable queue 'q' in vhost '/' is down or inaccessible"
    )
    assert rig.node.vhost.has(rig.queue)


def test_what_was_not_asked_shows_no_earlier_counts() -> None:
    """The node was down when others of the list were asked, and runs when the queue is shown."""
    rig = QueueHarness(QueueType.CLASSIC)
    rig.client.publish(b"1")
    assert rig.client.declare(passive=True).message_count == 1
    other = rig.node.vhost.queues["other"] = SlowQueue("other")
    rig.far.is_away = True
    rows = list_queues(VerbHarness(edge=rig.node).context)
    asked = next(rows)
    assert isinstance(asked, Deferred)
    asked.then(nothing_of, raise_it)
    rig.far.is_away = False
    other.answer(QueueCounts(0, 0, 0))
    shown = [row for row in rows if isinstance(row, dict)]
    assert [(row["name"], row["state"], row["messages"], row["consumers"]) for row in shown] == [
        ("q", "running", None, None),
        ("other", "running", 0, 0),
    ]


def nothing_of(_answer: None) -> None:
    """Ignore the answer, which was awaited."""


def test_a_queue_may_have_to_be_empty() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.publish(b"1")
    assert "not empty" in desk.refusal("queues.delete", name="q", **HERE, if_empty=True)
    assert desk.ask("queues.delete", name="q", **HERE) == {"messages": 1}


def test_exclusive_queues_are_no_secret_to_operators() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q", exclusive=True)
    client.publish(b"1")
    assert desk.ask("queues.purge", name="q", **HERE) == {"messages": 1}
    assert desk.ask("queues.delete", name="q", **HERE) == {"messages": 0}
    client.close()


@pytest.mark.parametrize("verb", ["queues.show", "queues.purge", "queues.delete"])
def test_what_is_not_there(verb: str) -> None:
    desk = VerbHarness()
    assert desk.refusal(verb, name="q", **HERE) == "NOT_FOUND: no queue 'q' in vhost '/'"
    assert desk.refusal(verb, name="q", vhost="v") == "NOT_FOUND: vhost 'v' does not exist"


def test_a_list_goes_on_while_queues_come_and_go() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    for name in ("a", "b", "c"):
        client.declare(name)
    rows = desk._result("queues.list", {})
    assert next(rows)["name"] == "a"
    client.delete("b")
    client.declare("d")
    assert [row["name"] for row in rows] == ["c"]


def test_exchanges_and_bindings() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.declare_exchange("x", "topic")
    client.bind("q", "x", "a.#")
    assert desk.rows("exchanges.list")[-1] == {
        "vhost": "/",
        "name": "x",
        "type": "topic",
        "durable": False,
        "auto_delete": False,
        "internal": False,
        "policy": None,
        "arguments": {},
    }
    implied = {
        "vhost": "/",
        "source_name": "",
        "source_kind": "exchange",
        "destination_name": "q",
        "destination_kind": "queue",
        "routing_key": "q",
        "arguments": {},
    }
    assert desk.rows("bindings.list", vhost="/") == [
        implied,
        {**implied, "source_name": "x", "routing_key": "a.#"},
    ]
