"""Answers for messages whose queue was deleted before it was known whether it has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from fluffle.broker.base.errors import BrokerError, InternalError
from fluffle.broker.cluster.queues.pending_replies import Deletions
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.publish_target import EnqueueResult


class Asked:
    """A `Knowledge` that comes on request."""

    is_complete = False
    mark = 1
    confirmed = 0

    def __init__(self) -> None:
        self.done: Callable[[], None]
        self.failed: Callable[[BrokerError], None] | None

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        self.done, self.failed = done, failed


class Named:
    """The queues that there are in one virtual host."""

    def __init__(self) -> None:
        self.queues: dict[str, Any] = {}


def defined(number: int) -> QueueDefinition:
    return QueueDefinition(QueueSpec("q", durable=True), id=number)


class Queue:
    """A queue that is there."""

    def __init__(self, number: int) -> None:
        self.definition = defined(number)


class Scene:
    """A queue with the number 1 was deleted."""

    def __init__(self) -> None:
        self.read_barrier = Asked()
        self.vhosts = {"/": Named()}
        self.reported: list[EnqueueResult] = []
        deletions = Deletions(self.read_barrier, cast(Any, self.vhosts))
        deletions.decide(defined(1), "/", self.reported.append)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_they_are_gone_with_it_once_it_is_known_that_there_is_no_other(scene: Scene) -> None:
    assert scene.reported == []
    scene.read_barrier.done()
    assert scene.reported == [EnqueueResult.ACCEPTED]


def test_they_are_refused_if_there_is_another_by_then(scene: Scene) -> None:
    scene.vhosts["/"].queues["q"] = Queue(2)
    scene.read_barrier.done()
    assert scene.reported == [EnqueueResult.REJECTED]


def test_they_are_refused_if_that_cannot_be_known(scene: Scene) -> None:
    assert scene.read_barrier.failed is not None
    scene.read_barrier.failed(InternalError("nobody leads"))
    assert scene.reported == [EnqueueResult.REJECTED]


def test_they_are_gone_with_their_virtual_host(scene: Scene) -> None:
    del scene.vhosts["/"]
    scene.read_barrier.done()
    assert scene.reported == [EnqueueResult.ACCEPTED]
