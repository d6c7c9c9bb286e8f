"""A virtual host: whose queues are, what goes with them, and when a route is void."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    NotFound,
    PreconditionFailed,
    ResourceLocked,
)
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Owner
from fluffle.broker.queues.queue_api import Consumer, SharedCredit
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.changes import removal
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts.queue_changes import queue_fact, redefinition
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.broker.queues.queue_harness import FakeSink
from tests.support.definitions import VhostEditor, engine_of
from tests.support.queue_host import FakeTurn
from tests.support.topologies import bindings_from

ANNA, BERT = Owner("a", 0, 1, "anna"), Owner("a", 0, 2, "bert")
"""Two connections."""


class ClosingSink(FakeSink):
    """A client that notes which of its consumers were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled_tags: list[str] = []

    def cancelled(self, consumer: Consumer) -> None:
        self.cancelled_tags.append(consumer.tag)

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""


def make_vhost() -> VirtualHost:
    return VirtualHost("/", LocalQueues(FakeTurn()))


def declare(vhost: VirtualHost, name: str = "q", owner: Owner = ANNA, **flags: Any) -> Queue:
    return VhostEditor(vhost).declare_queue(Declaration(name=name, **flags), owner)


def consume(
    vhost: VirtualHost, queue: Queue, tag: str = "c", *, exclusive: bool = False
) -> Consumer:
    consumer = Consumer(tag, queue, ClosingSink(), shared=SharedCredit(), exclusive=exclusive)
    vhost.attach(consumer)
    return consumer


def to_queue(source: str, name: str = "q", key: str = "k") -> Binding:
    return Binding(
        source=source,
        destination=name,
        destination_kind=DestinationKind.QUEUE,
        routing_key=key,
        arguments={},
    )


def fill(vhost: VirtualHost, queue: Queue, count: int) -> None:
    contents = [b"x"] * count
    queue.enqueue([vhost.origin("", queue.name)] * count, contents, count)


# Owners


def test_an_exclusive_queue_is_its_owners() -> None:
    vhost = make_vhost()
    queue = declare(vhost, exclusive=True)
    assert vhost.queue("q", ANNA) is queue
    assert declare(vhost, exclusive=True) is queue
    for attempt in (
        lambda: vhost.queue("q", BERT),
        lambda: declare(vhost, owner=BERT, exclusive=True),
        lambda: declare(vhost, owner=BERT),
        lambda: declare(vhost),
        lambda: VhostEditor(vhost).bind(to_queue("amq.direct"), BERT),
    ):
        with pytest.raises(ResourceLocked, match="cannot obtain exclusive access to locked queue"):
            attempt()


def test_a_shared_queue_cannot_be_made_exclusive() -> None:
    vhost = make_vhost()
    declare(vhost)
    with pytest.raises(ResourceLocked):
        declare(vhost, exclusive=True)


def test_what_was_owned_goes_with_its_owner() -> None:
    vhost = make_vhost()
    declare(vhost, "a", ANNA, exclusive=True)
    declare(vhost, "b", BERT, exclusive=True)
    declare(vhost, "shared", ANNA)
    VhostEditor(vhost).drop_owned(ANNA)
    assert list(vhost.queues) == ["b", "shared"]
    VhostEditor(vhost).drop_owned(ANNA)
    assert list(vhost.queues) == ["b", "shared"]


# Deleting


def test_a_deleted_queue_takes_along_its_bindings_consumers_and_messages() -> None:
    vhost = make_vhost()
    queue = declare(vhost)
    VhostEditor(vhost).bind(to_queue("amq.direct"), ANNA)
    sinks = [consume(vhost, queue, tag).sink for tag in ("a", "b")]
    fill(vhost, queue, 3)
    VhostEditor(vhost).delete_queue(queue)
    assert [sink.cancelled_tags for sink in sinks if isinstance(sink, ClosingSink)] == [
        ["a"],
        ["b"],
    ]
    assert (queue.consumer_count, queue.ready_count) == (0, 0)
    assert bindings_from(vhost.topology, "amq.direct") == []
    with pytest.raises(NotFound, match="no queue 'q' in vhost '/'"):
        vhost.queue("q", ANNA)


def test_a_queue_is_deleted_once_even_if_another_has_its_name() -> None:
    vhost = make_vhost()
    old = declare(vhost)
    VhostEditor(vhost).delete_queue(old)
    new = declare(vhost)
    fill(vhost, new, 1)
    VhostEditor(vhost).delete_queue(old)
    assert (vhost.has(old), vhost.has(new)) == (False, True)
    assert new.ready_count == 1


def test_conditions_of_deleting() -> None:
    vhost = make_vhost()
    queue = declare(vhost)
    consumer = consume(vhost, queue)
    with pytest.raises(PreconditionFailed, match="queue 'q' in vhost '/' in use"):
        vhost.check_deletable(queue, unused=True, empty=False)
    VhostEditor(vhost).detach(consumer)
    fill(vhost, queue, 1)
    with pytest.raises(PreconditionFailed, match="queue 'q' in vhost '/' not empty"):
        vhost.check_deletable(queue, unused=True, empty=True)
    queue.purge()
    vhost.check_deletable(queue, unused=True, empty=True)
    assert vhost.has(queue)


def test_an_auto_delete_queue_waits_for_its_first_consumer_and_goes_with_its_last() -> None:
    vhost = make_vhost()
    queue = declare(vhost, auto_delete=True)
    one, two = consume(vhost, queue, "1"), consume(vhost, queue, "2")
    VhostEditor(vhost).detach(one)
    assert "q" in vhost.queues
    VhostEditor(vhost).detach(two)
    assert "q" not in vhost.queues


def test_other_queues_stay_without_consumers() -> None:
    vhost = make_vhost()
    VhostEditor(vhost).detach(consume(vhost, declare(vhost)))
    assert "q" in vhost.queues


# Consumers


def test_an_exclusive_consumer_meets_no_other() -> None:
    vhost = make_vhost()
    queue = declare(vhost)
    shared = consume(vhost, queue)
    with pytest.raises(AccessRefused, match="queue 'q' in vhost '/' in exclusive use"):
        consume(vhost, queue, exclusive=True)
    VhostEditor(vhost).detach(shared)
    alone = consume(vhost, queue, exclusive=True)
    with pytest.raises(AccessRefused):
        consume(vhost, queue)
    VhostEditor(vhost).detach(alone)
    consume(vhost, queue)


# Bindings


def test_of_two_ends_that_are_missing_the_source_is_named() -> None:
    vhost = make_vhost()
    with pytest.raises(NotFound, match="no exchange 'none'"):
        VhostEditor(vhost).bind(to_queue("none"), ANNA)
    with pytest.raises(NotFound, match="no queue 'q'"):
        VhostEditor(vhost).bind(to_queue("amq.direct"), ANNA)
    with pytest.raises(AccessRefused, match="default exchange"):
        VhostEditor(vhost).bind(to_queue(""), ANNA)


def test_what_does_not_exist_is_unbound_without_complaint() -> None:
    vhost = make_vhost()
    VhostEditor(vhost).unbind(to_queue("none", "nobody"), ANNA)
    declare(vhost)
    VhostEditor(vhost).unbind(to_queue("amq.direct"), ANNA)
    VhostEditor(vhost).bind(to_queue("amq.direct"), ANNA)
    VhostEditor(vhost).unbind(to_queue("amq.direct"), ANNA)
    assert vhost.route("amq.direct", ["k"], None)[0] == ()


# Routes


def test_a_route_names_each_queue_once() -> None:
    vhost = make_vhost()
    queue = declare(vhost)
    for key in ("k", "l"):
        VhostEditor(vhost).bind(to_queue("amq.direct", key=key), ANNA)
    assert vhost.route("amq.direct", ["k", "l"], None)[0] == (queue,)
    assert vhost.route("", ["q", "none", "q"], None)[0] == (queue,)


CHANGES: dict[str, Callable[[VirtualHost], object]] = {
    "a new queue": lambda vhost: declare(vhost, "new"),
    "a queue less": lambda vhost: VhostEditor(vhost).delete_queue(engine_of(vhost, "q")),
    "a new binding": lambda vhost: VhostEditor(vhost).bind(to_queue("amq.direct", key="new"), ANNA),
    "a binding less": lambda vhost: VhostEditor(vhost).unbind(to_queue("amq.direct"), ANNA),
    "an exchange less": lambda vhost: VhostEditor(vhost).delete_exchange("x"),
    "an auto-delete queue less": lambda vhost: VhostEditor(vhost).detach(
        consume(vhost, declare(vhost, "brief", auto_delete=True))
    ),
    "an owner less": lambda vhost: VhostEditor(vhost).drop_owned(ANNA),
}
NO_CHANGES: dict[str, Callable[[VirtualHost], object]] = {
    "the same queue": declare,
    "the same binding": lambda vhost: VhostEditor(vhost).bind(to_queue("amq.direct"), ANNA),
    "no such binding": lambda vhost: VhostEditor(vhost).unbind(
        to_queue("amq.direct", key="none"), ANNA
    ),
    "messages": lambda vhost: fill(vhost, engine_of(vhost, "q"), 1),
    "a consumer": lambda vhost: VhostEditor(vhost).detach(consume(vhost, engine_of(vhost, "q"))),
    "another's end": lambda vhost: VhostEditor(vhost).drop_owned(BERT),
}


def epochs(vhost: VirtualHost) -> tuple[int, int]:
    """Neither ever falls."""
    return vhost.epoch, vhost.topology.epoch


def with_topology() -> VirtualHost:
    vhost = make_vhost()
    declare(vhost)
    declare(vhost, "own", exclusive=True)
    VhostEditor(vhost).declare_exchange(ExchangeSpec(name="x", type="fanout"))
    VhostEditor(vhost).bind(to_queue("amq.direct"), ANNA)
    return vhost


@pytest.mark.parametrize("change", CHANGES)
def test_what_may_alter_a_route_raises_the_epoch(change: str) -> None:
    vhost = with_topology()
    before = epochs(vhost)
    CHANGES[change](vhost)
    assert epochs(vhost) > before


def test_queues_without_bindings_leave_the_routes_of_bindings_alone() -> None:
    vhost = with_topology()
    queues, topology = epochs(vhost)
    VhostEditor(vhost).delete_queue(declare(vhost, "another", exclusive=True))
    assert epochs(vhost) == (queues + 2, topology)


def test_a_queue_in_the_place_of_another_alters_the_routes_of_its_bindings() -> None:
    vhost = with_topology()
    there, before = vhost.queues["q"], epochs(vhost)
    definition = vhost.maker.define(there.spec, None, "/")
    have = removal([queue_fact(vhost, there)]).joined(redefinition("/", definition))
    VhostEditor(vhost)._have(lambda: have)
    queues, topology = epochs(vhost)
    assert (queues > before[0], topology > before[1]) == (True, True)
    assert vhost.route("amq.direct", ["k"], None)[0] == (vhost.queues["q"],) != (there,)


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_alters_no_route_leaves_the_epoch(change: str) -> None:
    vhost = with_topology()
    before = epochs(vhost)
    NO_CHANGES[change](vhost)
    assert epochs(vhost) == before


def test_refusals_change_nothing() -> None:
    vhost = with_topology()
    before = epochs(vhost)
    with pytest.raises(BrokerError):
        declare(vhost, durable=True)
    assert (epochs(vhost), list(vhost.queues)) == (before, ["q", "own"])
