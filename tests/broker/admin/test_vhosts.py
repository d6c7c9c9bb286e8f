"""vhosts.* at the desk."""

import json
from collections.abc import Callable

from fluffle.broker.admin.context import DeferredRow, Row
from fluffle.broker.admin.vhosts import DELETED_PER_COMMIT
from fluffle.broker.base.errors import BrokerError, NotFound, PreconditionFailed
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.storage.disk import Disk
from tests.broker.admin.verb_harness import VerbHarness
from tests.storage.support import ManualWriter
from tests.support.definitions import Editor, VhostEditor
from tests.support.edge import Edge
from tests.support.store import open_store


def test_a_virtual_host_comes_and_goes() -> None:
    desk = VerbHarness()
    desk.ask("vhosts.add", name="orders")
    assert desk.rows("vhosts.list")[1] == {
        "name": "orders",
        "description": "",
        "tags": [],
        "default_queue_type": None,
        "protected_from_deletion": False,
        "metadata": {},
        "queues": 0,
        "connections": 0,
        "max_connections": None,
        "max_queues": None,
        "tracing": False,
    }
    assert desk.refusal("vhosts.add", name="orders") == (
        "PRECONDITION_FAILED: vhost 'orders' already exists"
    )
    desk.ask("vhosts.delete", name="orders")
    assert [row["name"] for row in desk.rows("vhosts.list")] == ["/"]


def test_the_type_of_queues_that_name_none() -> None:
    desk = VerbHarness()
    desk.ask("vhosts.metadata", name="/", queue_type="quorum")
    assert desk.rows("vhosts.list")[0]["metadata"] == {"default_queue_type": "quorum"}
    refusal = desk.refusal("vhosts.metadata", name="/", queue_type="mirrored")
    assert refusal == "PRECONDITION_FAILED: Unsupported queue type: mirrored"
    desk.ask("vhosts.metadata", name="/", queue_type="classic")
    client = desk.edge.connect()
    client.declare("q")
    assert desk.edge.vhost.queues["q"].spec.arguments == {"x-queue-type": ("S", b"classic")}


def test_what_one_is_for() -> None:
    desk = VerbHarness()
    desk.ask("vhosts.add", name="orders", description="all of them", queue_type="quorum")
    desk.ask("vhosts.metadata", name="orders", tags=["a", "b"])
    row = desk.rows("vhosts.list")[1]
    assert (row["description"], row["tags"], row["default_queue_type"]) == (
        "all of them",
        ["a", "b"],
        "quorum",
    )
    refusal = desk.refusal("vhosts.add", name="more", queue_type="mirrored")
    assert refusal == "PRECONDITION_FAILED: Unsupported queue type: mirrored"
    refusal = desk.refusal("vhosts.metadata", name="none", description="")
    assert refusal == "NOT_FOUND: vhost 'none' does not exist"


def test_deleting_one_closes_its_connections() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    row = desk.rows("vhosts.list")[0]
    assert (row["queues"], row["connections"]) == (1, 1)
    desk.ask("vhosts.delete", name="/")
    client.expect_closed(320, "CONNECTION_FORCED - vhost '/' is deleted")
    assert desk.rows("permissions.list") == []


class Filled:
    """Queues and exchanges, all of them durable, on a disk that is moved by hand."""

    def __init__(self, count: int) -> None:
        store = open_store(make_writer=self._make_writer)
        self.desk = VerbHarness(edge=Edge(store=store))
        vhost = self.desk.edge.vhost
        editor = VhostEditor(vhost, Editor(self.desk.edge.catalogue, self.desk.edge.facts))
        for number in range(count):
            name = str(number)
            editor.declare_exchange(ExchangeSpec(name, durable=True))
            queue = editor.declare_queue(Declaration(name, durable=True))
            editor.bind(Binding(name, name, DestinationKind.QUEUE, ""))
            queue.enqueue([vhost.origin("", name)], [b"m"], 1, persistent=True)
        self.settle()

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def settle(self) -> None:
        """Turns and commits, until there is nothing to do."""
        self.desk.edge.run()
        while self.writer.step():
            self.desk.edge.run()


def test_a_turn_removes_a_little_however_much_there_is() -> None:
    turns = []
    for count in (2 * DELETED_PER_COMMIT, 10 * DELETED_PER_COMMIT):
        filled = Filled(count)
        desk, commit = filled.desk, filled.writer.step
        turns.append(desk.most_calls_of_a_turn("vhosts.delete", commit=commit, name="/"))
    assert turns[1] < 1.1 * turns[0]


def test_its_name_is_free_when_it_is_gone() -> None:
    filled = Filled(3 * DELETED_PER_COMMIT)
    desk = filled.desk
    first, second = (desk.dispatcher.act(ask("vhosts.delete", name="/")) for _ in range(2))
    assert isinstance(first.result, DeferredRow)
    assert isinstance(second.result, NotFound)
    answers: list[Row | BrokerError] = []
    first.result.begin(answers.append)
    refused = 0
    while isinstance(desk.dispatcher.act(ask("vhosts.add", name="/")).result, PreconditionFailed):
        outcome = desk.dispatcher.act(
            ask("definitions.import", category="vhosts", entries=[{"name": "/"}])
        )
        assert "vhost '/' is being deleted" in str(outcome.result)
        refused += 1
        filled.desk.edge.run()
        filled.writer.step()
    filled.settle()
    assert (answers, refused > 6) == ([{}], True)


def ask(verb: str, **arguments: object) -> bytes:
    return json.dumps({"verb": verb, "arguments": arguments}).encode()


def test_limits_hold_at_once() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    desk.ask("vhosts.limits", name="/", limits={"max-queues": 1})
    client.declare("one")
    row = desk.rows("vhosts.list")[0]
    assert (row["max_connections"], row["max_queues"]) == (None, 1)
    desk.ask("vhosts.limits", name="/", limits={"max-queues": None})
    client.declare("two")


def test_refusals() -> None:
    desk = VerbHarness()
    absent = "NOT_FOUND: vhost 'v' does not exist"
    assert desk.refusal("vhosts.delete", name="v") == absent
    assert desk.refusal("vhosts.limits", name="v", limits={}) == absent
    assert desk.refusal("queues.list", vhost="v") == absent
    assert "1 to 255 bytes" in desk.refusal("vhosts.add", name="")
    assert "there is no limit 'x'" in desk.refusal("vhosts.limits", name="/", limits={"x": 1})


def test_a_virtual_host_that_is_protected_stays() -> None:
    desk = VerbHarness()
    desk.ask("vhosts.add", name="kept", is_protected=True)
    assert "protected" in desk.refusal("vhosts.delete", name="kept")
    desk.ask("vhosts.metadata", name="kept", is_protected=False)
    desk.ask("vhosts.delete", name="kept")
