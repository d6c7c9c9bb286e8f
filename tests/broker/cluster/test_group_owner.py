"""Whose a group is: the one of the definitions, or that of a queue."""

from __future__ import annotations

import logging

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.group_owner import METADATA_GROUP, GroupOwnerDispatch
from fluffle.broker.cluster.ports import Machine
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

    def unknown(self, node: NodeId, group: GroupId | None = None) -> None:
        self.told.append((node, group))

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        self.told.append((group, index, wrong))

    def given_up(self, group: GroupId, wrong: str) -> None:
        self.told.append((group, wrong))

    def refused(self, node: NodeId, reason: str) -> None:
        self.told.append((node, reason))


class Harness:
    def __init__(self) -> None:
        self.metadata, self.hosting, self.nodes = ToyMachine(), Noting(), Noting()
        self.owners = GroupOwnerDispatch(self.metadata, self.hosting, self.nodes)


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
