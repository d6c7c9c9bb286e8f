"""Whose a group is: the one of the definitions, or that of a queue."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.group_owner import METADATA_GROUP, GroupOwnerDispatch
from fluffle.broker.cluster.ports import Machine
from fluffle.broker.metadata.read_barrier import LocalReadBarrier
from fluffle.raft.config import Config, NodeId
from fluffle.raft.output import ConfigChange, Verdict
from fluffle.raft.records import GroupId
from tests.support.raft_hosts import ToyMachine

QUEUE: GroupId = 7


class Noting:
    """An `Owner`, and `Nodes`, that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.made = ToyMachine()

    def make_machine(self, group: GroupId) -> Machine:
        self.told.append(group)
        return self.made

    def configured(self, change: ConfigChange | None = None) -> None:
        self.told.append(change and change.group)

    def judged(self, verdict: Verdict) -> None:
        self.told.append(verdict)

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        self.told.append(group)
        act()

    def unknown(self, node: NodeId, group: GroupId | None = None) -> None:
        self.told.append((node, group))

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        self.told.append((group, index, wrong))

    def given_up(self, group: GroupId, wrong: str) -> None:
        self.told.append((group, wrong))

    def refused(self, node: NodeId, reason: str) -> None:
        self.told.append((node, reason))


class HeldBarrier(LocalReadBarrier):
    """A `ReadBarrier` that confirms when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        assert failed is None, "who asks waits however long it takes"
        self.asked.append(done)


class Harness:
    def __init__(self) -> None:
        self.metadata, self.hosting, self.nodes = ToyMachine(), Noting(), Noting()
        self.barrier = HeldBarrier()
        self.owners = GroupOwnerDispatch(self.metadata, self.hosting, self.nodes, self.barrier)


def test_each_group_has_the_machine_of_its_owner() -> None:
    harness = Harness()
    assert harness.owners.make_machine(METADATA_GROUP) is harness.metadata
    assert harness.owners.make_machine(QUEUE) is harness.hosting.made


def test_what_happens_to_a_group_is_told_to_its_owner() -> None:
    harness = Harness()
    for group in (METADATA_GROUP, QUEUE):
        harness.owners.configured(ConfigChange(group, 1, Config()))
        harness.owners.unknown("b", group)
    assert harness.nodes.told == [None, ("b", None)]
    assert harness.hosting.told == [QUEUE, ("b", QUEUE)]


def test_damage_of_definitions_is_said_here_and_that_of_a_queue_by_who_knows_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    harness = Harness()
    for group in (METADATA_GROUP, QUEUE):
        harness.owners.damaged(group, 3, "checksum")
        harness.owners.given_up(group, "misfit")
    assert [(each.levelno, getattr(each, FIELDS_ATTRIBUTE)) for each in caplog.records] == [
        (logging.ERROR, {"group": METADATA_GROUP, "index": 3, "wrong": "checksum"}),
        (logging.ERROR, {"group": METADATA_GROUP, "wrong": "misfit"}),
    ]
    assert harness.hosting.told == [(QUEUE, 3, "checksum"), (QUEUE, "misfit")]


def test_all_hear_of_a_node() -> None:
    harness = Harness()
    verdict = Verdict("b", is_alive=False, boot=1)
    harness.owners.judged(verdict)
    assert harness.nodes.told == harness.hosting.told == [verdict]


def test_who_does_not_know_all_queues_does_not_know_which_are_not_there() -> None:
    harness, known = Harness(), list[GroupId]()
    harness.owners.when_known(METADATA_GROUP, lambda: known.append(METADATA_GROUP))
    assert known == [METADATA_GROUP]
    harness.owners.when_known(QUEUE, lambda: known.append(QUEUE))
    assert (known, harness.hosting.told) == ([METADATA_GROUP], [])
    for confirmed in harness.barrier.asked:
        confirmed()
    assert (known, harness.hosting.told) == ([METADATA_GROUP, QUEUE], [QUEUE])
