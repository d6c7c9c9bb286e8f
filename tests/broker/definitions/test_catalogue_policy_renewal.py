"""Other policies for what is there, some at a time."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.access.access import Access
from fluffle.broker.definitions.catalogue import (
    PIECE,
    SEARCHES,
    Catalogue,
    PolicyRenewal,
    piece_for,
    policies_of,
)
from fluffle.broker.definitions.parameters import clear, set_operator_policy, set_policy
from fluffle.broker.durability.fact_codec import DefinitionImage
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import Kind
from fluffle.broker.policies.policies import Policies
from fluffle.broker.queues.arguments import Declaration, QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.runtime.background import Task
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.support.definitions import Editor, engine_of
from tests.support.queue_host import FakeTurn


class Harness:
    """Definitions whose long work is done by hand."""

    def __init__(self) -> None:
        policies = Policies()
        self.background_tasks: list[Task] = []
        self.renewing = PolicyRenewal(self.begin, policies.count)
        self.touched: list[Queue] = []
        maker = LocalQueues(FakeTurn(self.touched.append), settings=policies.settings_of)
        self.catalogue = Catalogue(
            Access(),
            {},
            lambda name: VirtualHost(name, maker, policies=policies),
            policies=policies,
            renewal=self.renewing,
        )
        self.editor = Editor(self.catalogue)
        self.vhost = self.editor.vhost("/")
        self.inside = self.editor.inside("/")

    def begin(self, task: Task, _failed: Callable[[Exception], None]) -> None:
        self.background_tasks.append(task)

    def work(self) -> int:
        """Until all is done; in how many steps."""
        steps = sum(1 for task in self.background_tasks for _ in task)
        self.background_tasks.clear()
        return steps

    def policy(self, name: str, pattern: str, **definition: object) -> None:
        fields = {
            "pattern": pattern,
            "definition": {key.replace("_", "-"): value for key, value in definition.items()},
        }
        self.editor.have(lambda: set_policy(self.catalogue, "/", name, fields))

    def max_length(self, queue: str) -> int | None:
        return engine_of(self.vhost, queue).settings.max_length


def test_what_is_declared_falls_under_what_there_is() -> None:
    place = Harness()
    place.policy("p", "^q", max_length=5)
    place.inside.declare_queue(Declaration("q"), None)
    place.inside.declare_queue(Declaration("r"), None)
    assert (place.max_length("q"), place.max_length("r")) == (5, None)


def test_a_change_reaches_those_that_are_there_and_touches_no_other() -> None:
    place = Harness()
    place.renewing.open()
    for name in ("q", "r"):
        place.inside.declare_queue(Declaration(name), None)
    place.policy("p", "^q", max_length=5)
    assert place.max_length("q") is None
    place.work()
    assert (place.max_length("q"), place.max_length("r")) == (5, None)
    fields = {"pattern": "", "definition": {"max-length": 3}}
    place.editor.have(lambda: set_operator_policy(place.catalogue, "/", "o", fields))
    place.work()
    assert (place.max_length("q"), place.max_length("r")) == (3, 3)
    assert [queue.name for queue in place.touched] == ["q", "q", "r"]
    place.editor.have(lambda: clear(place.catalogue, Kind.POLICY, ("/", "p")))
    place.work()
    assert (place.max_length("q"), len(place.touched)) == (3, 3)


def test_many_are_done_some_at_a_time_and_anew_if_it_changes_meanwhile() -> None:
    place = Harness()
    place.renewing.open()
    count = 3 * PIECE
    for number in range(count):
        place.inside.declare_queue(Declaration(str(number)), None)
    place.policy("p", "", max_length=5)
    place.policy("p", "", max_length=6)
    [task] = place.background_tasks
    next(task)
    done = [name for name in place.vhost.queues if place.max_length(name) == 6]
    assert len(done) == PIECE
    place.policy("p", "", max_length=7)
    assert len(place.background_tasks) == 1, "it goes on with that"
    assert place.work() == 4, "three pieces of queues, and one of exchanges"
    assert {place.max_length(name) for name in place.vhost.queues} == {7}
    place.policy("p", "", max_length=8)
    assert place.work() == 4


def test_with_many_policies_fewer_are_looked_at_in_a_turn() -> None:
    place = Harness()
    place.renewing.open()
    for number in range(100):
        place.inside.declare_queue(Declaration(str(number)), None)
    for number in range(SEARCHES // 25):
        place.policy(f"p{number}", "^x", max_length=5)
    assert place.work() == 4 + 1, "twenty-five queues each, and the exchanges"
    assert piece_for(SEARCHES * 2) == 1


def test_what_was_remembered_counts_before_anything_is_made() -> None:
    image = DefinitionImage()
    policy = {"pattern": "^q", "definition": {"max-length": 5}}
    operators = {"pattern": "", "definition": {"max-length": 3}}
    entry = {"vhost": "/", "name": "p", **policy}
    image.kept[Kind.POLICY]["/", "p"] = entry
    parameter = {"vhost": "/", "component": "operator_policy", "name": "o", "value": operators}
    image.kept[Kind.PARAMETER]["/", "operator_policy", "o"] = parameter
    image.kept[Kind.PARAMETER]["/", "shovel", "s"] = parameter | {"component": "shovel"}
    policies = policies_of(image)
    assert policies.settings_of("/", QueueSpec("q")).max_length == 3
    assert [policy.name for policy in policies.of("/").of_operators] == ["o"]


def test_at_a_start_nobody_waits() -> None:
    place = Harness()
    place.inside.declare_queue(Declaration("q"), None)
    place.policy("p", "", max_length=5)
    assert (place.background_tasks, place.max_length("q")) == ([], None)
    place.renewing.open()
    assert (place.background_tasks, place.max_length("q")) == ([], 5)


def test_what_is_gone_meanwhile_is_left_alone() -> None:
    place = Harness()
    place.renewing.open()
    place.inside.declare_queue(Declaration("q"), None)
    place.inside.declare_exchange(ExchangeSpec("x"))
    place.policy("p", "", max_length=5)
    place.editor.delete_vhost("/")
    assert place.work() == 1


def test_an_exchange_sends_elsewhere_what_it_does_not_match() -> None:
    place = Harness()
    place.renewing.open()
    place.inside.declare_exchange(ExchangeSpec("x", "fanout"))
    place.inside.declare_exchange(ExchangeSpec("y"))
    place.inside.declare_queue(Declaration("q"), None)
    before = place.vhost.topology.epoch
    place.policy("p", "^x$", alternate_exchange="other")
    place.work()
    assert place.vhost.topology.require("x").alternate == "other"
    assert place.vhost.topology.require("y").alternate is None
    assert place.vhost.topology.epoch == before + 1
    place.editor.have(lambda: clear(place.catalogue, Kind.POLICY, ("/", "p")))
    place.work()
    assert place.vhost.topology.require("x").alternate is None
