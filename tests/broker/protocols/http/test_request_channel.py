"""Requests in sessions: when they are answered, and what becomes of doubtful outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest

from fluffle.broker.access.access import User, put_user
from fluffle.broker.access.limits import UserLimits
from fluffle.broker.access.passwords import hashed
from fluffle.broker.base.errors import (
    AccessRefused,
    InternalError,
    NotAllowed,
    NotFound,
    QueueDeleted,
)
from fluffle.broker.core.topology import declare_exchange, delete_exchange, readable_queue
from fluffle.broker.metadata.change import Facts
from fluffle.broker.metadata.metadata import Apply, LocalMetadata, Metadata
from fluffle.broker.protocols.http.request_channel import (
    HttpClient,
    RequestAddresses,
    RequestChannel,
    check_may_open,
)
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.routing.exchange import ExchangeSpec
from tests.support.edge import Edge
from tests.support.metadata import ManualMetadata
from tests.support.read_barrier import ManualReadBarrier

T = TypeVar("T")

ENDS = RequestAddresses(("10.0.0.1", 4711), ("10.0.0.2", 15672))


class Node:
    """A node that is asked by requests of guest."""

    def __init__(self, make_metadata: Callable[[Apply, Facts], Metadata] = LocalMetadata) -> None:
        self.edge = Edge(make_metadata=make_metadata)

    def request(self, user: User | None = None) -> RequestChannel:
        """Request channel of guest as the user is now, or as he was when he logged in."""
        user = user or self.edge.access.users["guest"]
        return RequestChannel(self.edge.services, HttpClient(user, ENDS), user, self.edge.vhost)

    async def begun(self, request: Awaitable[T]) -> asyncio.Future[T]:
        """A request that has gone as far as it can."""
        asked = asyncio.ensure_future(request)
        await self.settle()
        return asked

    async def settle(self) -> None:
        for _ in range(10):
            self.edge.run()
            await asyncio.sleep(0)

    async def outcome(self, request: Awaitable[T]) -> T:
        """Result of a request that needs not wait."""
        asked = await self.begun(request)
        assert asked.done()
        return asked.result()


def declaring(channel: RequestChannel, name: str) -> Awaitable[None]:
    spec = ExchangeSpec(name)
    return channel.change("Exchange.Declare", partial(declare_exchange, channel.session, spec))


async def test_what_is_decided_is_answered_at_once() -> None:
    node = Node()
    channel = node.request()
    await node.outcome(declaring(channel, "x"))
    await node.outcome(channel.declare_queue(Declaration("q")))
    await node.outcome(channel.declare_queue(Declaration("q")))
    await node.outcome(channel.purge("q"))
    await node.outcome(channel.delete_queue("q", if_unused=True, if_empty=True))
    vhost = node.edge.vhost
    assert (vhost.topology.find("x") is not None, *vhost.queues) == (True,)


async def test_what_others_have_to_agree_to_is_waited_for() -> None:
    made: list[ManualMetadata] = []

    def make(apply: Apply, facts: Facts) -> Metadata:
        made.append(ManualMetadata(apply, facts))
        return made[0]

    node = Node(make)
    asked = await node.begun(declaring(node.request(), "x"))
    assert not asked.done()
    made[0].commit()
    await node.settle()
    assert asked.result() is None
    late = await node.begun(declaring(node.request(), "y"))
    made[0].give_up()
    await node.settle()
    assert isinstance(late.exception(), InternalError)


async def test_nothing_is_decided_anew_for_who_has_gone() -> None:
    node = Node()
    decided: list[Callable[[], object]] = []
    channel = node.request()
    channel.session.metadata = Kept(decided)
    asked = await node.begun(declaring(channel, "x"))
    asked.cancel()
    await node.settle()
    assert decided[0]() == ((), (), (), ())


class Kept:
    """Definitions that do not change while a test looks."""

    def __init__(self, decided: list[Callable[[], object]]) -> None:
        self._decided = decided

    def change(self, decide: Callable[[], object], *_answers: object) -> None:
        self._decided.append(decide)

    def ensure(self, *_arguments: object) -> None:
        raise AssertionError


async def test_what_is_not_here_may_be_elsewhere() -> None:
    node, knowledge = Node(), ManualReadBarrier()
    node.edge.services = replace(node.edge.services, read_barrier=knowledge)
    deletes = partial(node.request().delete_queue, "q", if_unused=False, if_empty=False)
    for request in (deletes, partial(node.request().purge, "q")):
        asked = await node.begun(request())
        assert len(knowledge) == 1
        node.edge.connect().declare("q")
        knowledge.confirm()
        await node.settle()
        assert asked.result() is None
    asked = await node.begun(node.request().purge("no"))
    knowledge.confirm()
    await node.settle()
    assert isinstance(asked.exception(), NotFound)
    asked = await node.begun(node.request().purge("no"))
    knowledge.fail()
    await node.settle()
    assert isinstance(asked.exception(), InternalError)


async def test_a_right_that_is_lost_counts_at_once() -> None:
    node = Node()
    channel = node.request()
    await node.outcome(declaring(channel, "x"))
    node.edge.editor.clear_permission("guest", "/")
    decide = partial(delete_exchange, channel.session, "x", if_unused=False)
    with pytest.raises(AccessRefused):
        await node.outcome(channel.change("Exchange.Delete", decide))
    node.edge.editor.delete_user("guest")
    with pytest.raises(NotAllowed, match="refused for user 'guest'"):
        await node.outcome(channel.change("Exchange.Delete", decide))


async def test_a_namesake_of_the_user_is_another() -> None:
    """The new user has not logged in."""
    node = Node()
    user = node.edge.access.users["guest"]
    channel = node.request()
    editor = node.edge.editor
    editor.delete_user("guest")
    editor.grant_everything("guest", b"other", ["/"])
    with pytest.raises(NotAllowed, match="refused for user 'guest'"):
        await node.outcome(declaring(channel, "x"))
    channel.end()
    late = node.request(user)
    with pytest.raises(NotAllowed, match="refused for user 'guest'"):
        await node.outcome(declaring(late, "x"))
    late.end()
    with pytest.raises(NotAllowed, match="refused for user 'guest'"):
        await check_may_open(node.edge.services, user, "/")
    assert node.edge.vhost.topology.find("x") is None


async def test_a_user_who_is_changed_meanwhile_is_the_same() -> None:
    node = Node()
    channel = node.request()
    user = node.edge.access.users["guest"]
    node.edge.editor.have(partial(put_user, replace(user, tags=("monitoring",))))
    await node.outcome(declaring(channel, "x"))
    assert channel.session.user.tags == ("monitoring",)
    channel.end()
    assert "guest" not in node.edge.access.listened_to


async def test_so_is_one_who_was_changed_before_he_had_a_channel() -> None:
    node = Node()
    user = node.edge.access.users["guest"]
    limits = UserLimits(max_connections=0)
    node.edge.editor.put_user(replace(user, tags=("monitoring",), limits=limits))
    channel = node.request(user)
    await node.outcome(declaring(channel, "x"))
    assert channel.session.user.tags == ("monitoring",)
    channel.end()
    with pytest.raises(NotAllowed, match=r"user connection limit \(0\) is reached"):
        await check_may_open(node.edge.services, user, "/")
    node.edge.editor.put_user(user)
    await check_may_open(node.edge.services, replace(user), "/")


async def test_who_has_another_password_by_now_is_not_the_one_who_gave_the_first() -> None:
    node = Node()
    user = node.edge.access.users["guest"]
    node.edge.editor.put_user(replace(user, password=hashed(b"other")))
    channel = node.request(user)
    with pytest.raises(NotAllowed, match="refused for user 'guest'"):
        await node.outcome(declaring(channel, "x"))
    channel.end()


async def test_a_queue_that_is_deleted_before_it_answers_is_looked_for_again() -> None:
    node = Node()
    channel = node.request()
    answers = [Deferred[int](), Deferred[int]()]
    asked = await node.begun(channel.ask("Queue.Purge", iter(answers).__next__, str))
    answers[0].fail(QueueDeleted("gone"))
    await node.settle()
    answers[1].answer(7)
    await node.settle()
    assert asked.result() == "7"


async def test_an_answer_that_nobody_waits_for_is_given_back() -> None:
    node = Node()
    later, unwanted = Deferred[int](), list[int]()
    question: Callable[[], Deferred[int]] = lambda: later  # noqa: E731 - it is one
    asked = await node.begun(node.request().ask("Basic.Get", question, str, unwanted.append))
    asked.cancel()
    await node.settle()
    later.answer(7)
    assert unwanted == [7]


async def test_an_exclusive_queue_is_for_no_request() -> None:
    node = Node()
    owner = node.edge.connect()
    owner.declare("q", exclusive=True)
    channel = node.request()
    with pytest.raises(Exception, match="locked queue 'q'"):
        readable_queue(channel.session, "q")
    channel.end()


async def test_a_pseudo_queue_is_declared_as_long_as_somebody_asks() -> None:
    node = Node()
    await node.outcome(node.request().declare_queue(Declaration("amq.rabbitmq.reply-to")))
    with pytest.raises(NotFound, match="no queue"):
        await node.outcome(node.request().declare_queue(Declaration("amq.rabbitmq.reply-to.x")))
