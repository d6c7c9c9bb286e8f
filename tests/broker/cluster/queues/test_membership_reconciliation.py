"""When queues with too few members get more: time is an argument, and nothing else runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.queues.membership import (
    SOON_S,
    LedGroups,
    MembershipReconciliation,
    QueueMembership,
)
from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.metadata.metadata import Decide, OnLateError, ignore_done
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.broker.queues.settings import QueueSettings, settings_of
from fluffle.protocol.wire import to_table
from fluffle.raft.config import NodeId
from tests.support.cluster_view import FakeClusterView, NoChanges
from tests.support.fakes import Scheduler

HOUR_MS = 3_600_000
A_GROUP = cast("HostedGroup", object())
"""Placeholder for a group."""


class SceneView(FakeClusterView):
    """The cluster of a scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__("a", SessionBoot(1, 1), scene.lives, SceneMetadata(scene))
        self.scene = scene

    def is_alive(self, node: NodeId) -> bool:
        return node in self.scene.alive


class SceneMetadata(NoChanges):
    """Metadata whose changes are applied at once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def ensure(
        self,
        decide: Decide,
        done: Callable[[], None] = ignore_done,
        late: OnLateError | None = None,
    ) -> None:
        del late
        self.scene.ensure(decide, done)


class LedByScene(LedGroups):
    """Queue 7, as long as node a leads it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def led(self, queue: int) -> HostedGroup | None:
        return A_GROUP if self.scene.leads and queue == 7 else None


class Scene:
    """Node a, which leads queue 7, with everybody else as they are said to be."""

    def __init__(self, *, reconciles: bool = True, wanted: str = "a", target: int = 3) -> None:
        self.lives = {"a": 1, "b": 1, "c": 1}
        self.alive = {"b", "c"}
        self.leads = True
        spec = QueueSpec("q", durable=True, queue_type=QueueType.QUORUM)
        self.defined = {7: ("/", QueueDefinition(spec, id=7, wanted=tuple(wanted)))}
        cluster, groups = SceneView(self), LedByScene(self)
        members = QueueMembership(cluster, groups, Scheduler(), {})
        members.defined = self.defined
        config = QuorumConfig(reconciliation=reconciles, target_group_size=target)
        self.settings = QueueSettings()
        self.reconciling = MembershipReconciliation(
            cluster, groups, members, config, self._settings_of
        )

    def _settings_of(self, _vhost: str, _spec: QueueSpec) -> QueueSettings:
        return self.settings

    def ensure(self, decide: Decide, done: Callable[[], None]) -> None:
        for fact in decide().puts:
            assert isinstance(fact.value, QueueDefinition)
            self.defined[7] = "/", fact.value
        done()

    @property
    def wanted(self) -> str:
        return "".join(self.defined[7][1].wanted)


def test_it_is_looked_at_in_each_interval() -> None:
    scene = Scene()
    scene.reconciling.look(1_000)
    scene.reconciling.look(HOUR_MS)
    assert scene.wanted == "a"
    scene.reconciling.look(1_000 + HOUR_MS)
    assert scene.wanted == "abc"


def test_a_node_that_has_come_is_used_soon() -> None:
    scene = Scene()
    scene.reconciling.look(0)
    scene.reconciling.look_soon(5_000)
    scene.reconciling.look_soon(9_000)
    scene.reconciling.look(4_999 + 1_000 * SOON_S)
    assert scene.wanted == "a"
    scene.reconciling.look(5_000 + 1_000 * SOON_S)
    assert scene.wanted == "abc"


@pytest.mark.parametrize(
    ("scene", "why"),
    [
        (Scene(reconciles=False), "nobody has asked for it"),
        (Scene(target=0), "it has as many as it wants"),
        (Scene(wanted="ax"), "one of those it has is not here"),
    ],
)
def test_nothing_is_done_where(scene: Scene, why: str) -> None:
    before = scene.wanted
    scene.reconciling.look(0)
    scene.reconciling.look(HOUR_MS)
    assert scene.wanted == before, why


def test_only_who_leads_does_anything() -> None:
    scene = Scene()
    scene.leads = False
    scene.reconciling.look(0)
    scene.reconciling.look(HOUR_MS)
    assert scene.wanted == "a"


def test_nodes_that_are_away_get_no_members() -> None:
    scene = Scene(wanted="ab")
    scene.alive.discard("c")
    scene.reconciling.look(0)
    scene.reconciling.look(HOUR_MS)
    assert scene.wanted == "ab"


def test_a_policy_may_ask_for_more() -> None:
    scene = Scene(target=1)
    scene.reconciling.look(0)
    scene.reconciling.look(HOUR_MS)
    assert scene.wanted == "a"
    scene.settings = QueueSettings(target_group_size=3)
    scene.reconciling.look(2 * HOUR_MS)
    assert scene.wanted == "abc"


def test_the_argument_is_a_number_or_means_nothing() -> None:
    def spec(value: int | str) -> QueueSpec:
        return QueueSpec("q", arguments=to_table({"x-quorum-target-group-size": value}))

    assert settings_of(QueueSpec("q")).target_group_size is None
    assert settings_of(spec(5)).target_group_size == 5
    assert settings_of(spec("five")).target_group_size is None
