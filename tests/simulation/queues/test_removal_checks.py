"""Removals of members that are held against a run, and those that are not."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import Configuration, Member
from tests.simulation.facts import Violation
from tests.simulation.queues.removal_checks import RemovalChecks
from tests.simulation.registry import GroupSpec

FOUNDERS = Configuration.initial("abc")
WITHOUT_C = Configuration((Member("a", 1), Member("b", 1)), (), 1)


def queue() -> tuple[RemovalChecks, GroupSpec]:
    checks = RemovalChecks()
    definition = QueueDefinition(
        QueueSpec("q"), id=7, wanted=tuple("abc"), lives=(("a", 1), ("b", 1), ("c", 1))
    )
    checks.defined(definition, "abc")
    return checks, GroupSpec(7, FOUNDERS, {*"abc"}, FOUNDERS, is_defined=True)


def test_a_member_that_has_lost_nothing_stays() -> None:
    checks, spec = queue()
    with pytest.raises(Violation, match="c was removed from 7 at 5, and had lost nothing"):
        checks.configured(spec, 5, WITHOUT_C, ())


def test_a_member_that_has_lost_its_disk_may_go() -> None:
    checks, spec = queue()
    spec.burnt.add(Member("c", 1))
    checks.configured(spec, 5, WITHOUT_C, ())


def test_a_leader_that_has_not_heard_of_the_deletion_may_remove_a_member_that_has() -> None:
    checks, spec = queue()
    spec.is_deleted = True
    checks.configured(spec, 5, WITHOUT_C, ())
