"""Nodes that are upgraded one after the other, and entries that come too early for some."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.entry_codec import FIRST_VERSION, VERSION, FactBatch, encode
from fluffle.broker.queues.quorum.facts import VersionAnnounced
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.raft.config import Configuration, Member
from fluffle.raft.log import CONFIG, DATA, Entry
from tests.simulation.facts import Violation
from tests.simulation.queues.queue_cluster import QueueCluster
from tests.simulation.queues.rolling_upgrade import HURTS, EntryVersionChecks
from tests.simulation.run import Run

NOTHING = FactBatch(0, 0, [])
OLD_ENTRY = Entry(1, 1, DATA, encode(NOTHING))
NEW_ENTRY = replace(OLD_ENTRY, payload=encode(NOTHING, VERSION))


def of_members(names: str) -> EntryVersionChecks:
    definition = QueueDefinition(QueueSpec("q"), id=7, founders=tuple(names))
    return EntryVersionChecks(definition, {"a": VERSION, "b": VERSION, "c": FIRST_VERSION})


def announced(names: str) -> QueueImage:
    image = QueueImage()
    facts = [VersionAnnounced(VERSION, f"{name} 1") for name in names]
    image.apply(1, encode(FactBatch(0, 0, [*facts])))
    return image


def test_what_all_members_have_announced_may_be_written() -> None:
    versions = of_members("ab")
    versions.apply(OLD_ENTRY, QueueImage())
    versions.apply(NEW_ENTRY, announced("ab"))
    versions.apply(NEW_ENTRY, announced("a"))
    assert versions.seen == {FIRST_VERSION, VERSION}


@pytest.mark.parametrize(("members", "said"), [("ab", "a"), ("abc", "abc"), ("abc", "ab")])
def test_nothing_else_may_be(members: str, said: str) -> None:
    with pytest.raises(Violation, match=rf"rule 21: 1 is of version {VERSION}, . 1 has announced"):
        of_members(members).apply(NEW_ENTRY, announced(said))


def test_whoever_is_added_has_announced_nothing_as_that() -> None:
    versions = of_members("a")
    config = Configuration((Member("a", 1),), (Member("b", 2),), 2)
    versions.apply(Entry(1, 1, CONFIG, config.encode()), QueueImage())
    with pytest.raises(Violation, match="b 2 has announced 1"):
        versions.apply(NEW_ENTRY, announced("ab"))


def test_whoever_is_added_after_the_decision_is_not_asked() -> None:
    versions = of_members("a")
    config = Configuration((Member("a", 1),), (Member("b", 2),), 2)
    versions.apply(Entry(1, 1, CONFIG, config.encode()), announced("a"))
    versions.apply(NEW_ENTRY, announced("a"))
    assert versions.seen == {VERSION}


def test_another_leader_asks_whoever_was_added_before() -> None:
    versions = of_members("a")
    config = Configuration((Member("a", 1),), (Member("b", 2),), 2)
    versions.apply(Entry(1, 1, CONFIG, config.encode()), announced("a"))
    with pytest.raises(Violation, match="b 2 has announced 1"):
        versions.apply(replace(NEW_ENTRY, term=2), announced("a"))


def run_of(seed: int) -> tuple[Run, QueueCluster]:
    run = Run(seed, 3, seconds=15, subject=QueueCluster)
    assert isinstance(run.application, QueueCluster)
    return run, run.application


def test_in_some_runs_nodes_are_upgraded_in_turn_and_write_what_is_newer_then() -> None:
    run, queue_cluster = run_of(1)
    assert queue_cluster.installed_versions.is_mixed
    assert set(queue_cluster.installed_versions.reads.values()) == {FIRST_VERSION}
    assert not {fault.kind for fault in run.plan} & {*HURTS}
    run.go()
    assert set(queue_cluster.installed_versions.reads.values()) == {VERSION}
    seen = set[int]().union(*(checker.versions.seen for checker in queue_cluster.checkers.values()))
    assert seen == {FIRST_VERSION, VERSION}


def test_in_others_all_run_the_newest_from_the_beginning() -> None:
    _run, queue_cluster = run_of(3)
    assert not queue_cluster.installed_versions.is_mixed
    assert set(queue_cluster.installed_versions.reads.values()) == {VERSION}
