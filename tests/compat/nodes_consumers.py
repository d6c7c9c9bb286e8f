"""Consumers of queues on another node: arguments, tags, exclusive use, a shared prefetch."""

import re
from collections.abc import Mapping
from typing import Any

from tests.compat.nodes import QUORUM, Nodes, publish, until_counted, with_nodes
from tests.compat.verbs import Speaker

ARGUMENTS: tuple[Mapping[str, Any], ...] = (
    {"x-cancel-on-ha-failover": True},
    {"x-cancel-on-ha-failover": "yes"},
    {"x-stream-offset": "first"},
    {"x-stream-offset": 7},
    {"x-stream-filter": "some"},
    {"x-stream-match-unfiltered": True},
    {"x-credit": {"credit": 3, "drain": False}},
    {"x-priority": -3},
    {"x-priority": 1 << 40},
    {"x-priority": "7"},
    {"x-priority": True},
    {"x-priority": None},
    {"x-any": "thing"},
    {"": 1},
)


def declare(nodes: Nodes, name: str, arguments: Mapping[str, Any], *bodies: str) -> Speaker:
    """On node a, with these messages; all know it."""
    it = nodes.speaker("declares", "a")
    it.declare(name, arguments, durable=True)
    it.confirms()
    publish(it, name, *bodies)
    nodes.agree()
    return it


@with_nodes
def arguments_of_consumers_elsewhere(nodes: Nodes) -> None:
    """Consume with each known argument, with wrong ones, and with any other."""
    for kind, queue in (("classic", {}), ("quorum", QUORUM)):
        name = f"nodes.arguments.{kind}"
        declares = declare(nodes, name, queue)
        for node in "ac":
            it = nodes.speaker(f"consumes {kind}", node)
            for arguments in ARGUMENTS:
                it.another().consume(name, f"tag of {node}", arguments)
            it.another().consume(name, no_local=True)
        declares.delete(name)


@with_nodes
def tags_of_consumers_elsewhere(nodes: Nodes) -> None:
    """Tags belong to a channel, and are made up where none is given."""
    declares = declare(nodes, "nodes.tags.classic", {})
    declare(nodes, "nodes.tags.quorum", QUORUM)
    for kind in ("classic", "quorum"):
        for node in "abc":
            it = nodes.speaker(f"consumes {kind}", node)
            it.consume(f"nodes.tags.{kind}", "tag")
            it.another().consume(f"nodes.tags.{kind}", "tag")
            it.consume(f"nodes.tags.{kind}")
            it.cancel("unknown")
            it.cancel("tag")
            it.consume(f"nodes.tags.{kind}", "tag")
            it.consume(f"nodes.tags.{kind}", "tag")
    declares.delete("nodes.tags.classic", "nodes.tags.quorum")


@with_nodes
def exclusive_consumers_elsewhere(nodes: Nodes) -> None:
    """A classic queue has none beside such a one, whichever node either is on."""
    name = "nodes.alone"
    declares = declare(nodes, name, {}, "1")
    for first, second in (("a", "b"), ("b", "a"), ("b", "c"), ("c", "c")):
        alone, other = nodes.speaker("is alone", first), nodes.speaker("is other", second)
        alone.qos(1)
        alone.consume(name, "alone", exclusive=True)
        alone.expect("Basic.Deliver")
        for exclusive in (False, True):
            other.another().consume(name, "other", exclusive=exclusive)
        alone.another().consume(name, "second of it")
        alone.another().get(name)
        alone.cancel("alone")
        alone.nack(1, requeue=True)
        alone.settle()
        other.qos(1)
        other.consume(name, "other")
        other.expect("Basic.Deliver")
        alone.another().consume(name, "alone", exclusive=True)
        other.cancel("other")
        other.nack(1, requeue=True)
        other.settle()
    declares.delete(name)


@with_nodes
def exclusive_consumers_of_a_quorum_queue_elsewhere(nodes: Nodes) -> None:
    """An exclusive consumer elsewhere behaves like one on the same node."""
    name = "nodes.alone.quorum"
    declares = declare(nodes, name, QUORUM)
    for node in "abc":
        it = nodes.speaker("consumes", node)
        it.consume(name, "alone", exclusive=True)
        it.consume(name, "other")
    declares.declare(name, passive=True)
    declares.delete(name)


@with_nodes
def a_prefetch_that_is_shared_by_consumers_elsewhere(nodes: Nodes) -> None:
    """All on a channel together have no more than that; whose turn it is differs."""
    name = "nodes.shared"
    declares = declare(nodes, name, {}, *"123456")
    for node in "ac":
        it = nodes.speaker("consumes", node)
        it.qos(3, global_=True)
        it.consume(name, "first")
        it.expect("Basic.Deliver", 3)
        it.consume(name, "second")
        round_trip(it)
        it.ack(1)
        it.expect("Basic.Deliver")
        round_trip(it)
        it.qos(4, global_=True)
        it.expect("Basic.Deliver")
        round_trip(it)
        it.cancel("first")
        it.cancel("second")
        it.nack(0, multiple=True, requeue=True)
        round_trip(it)
        without_tags(it)
        publish(declares, name, "more")
    until_counted(declares, name, messages=6)
    declares.purge(name)
    declares.delete(name)


def round_trip(it: Speaker) -> None:
    """Show that nothing more comes, as `settle` does: a qos would lift the limit, with RabbitMQ."""
    it.declare_exchange("amq.direct", passive=True)


def without_tags(it: Speaker) -> None:
    """Take out of the transcript which of its consumers were delivered to."""
    lines = it.client.transcript
    lines[:] = [re.sub(r"(Deliver\(consumer_tag)='\w+'", r"\1=…", line) for line in lines]


@with_nodes
def a_prefetch_that_is_shared_by_queues_of_several_nodes(nodes: Nodes) -> None:
    names = {node: f"nodes.shared.{node}" for node in "abc"}
    for node, name in names.items():
        owner = nodes.speaker("declares", node)
        owner.declare(name, durable=True)
        owner.confirms()
        publish(owner, name, *"12")
    nodes.agree()
    it = nodes.speaker("consumes", "c")
    it.qos(1, global_=True)
    it.consume(names["a"], "a")
    it.expect("Basic.Deliver")
    for node in "bc":
        it.consume(names[node], node)
    for tag in range(1, 6):
        round_trip(it)
        it.ack(tag)
        it.expect("Basic.Deliver")
    it.ack(6)
    round_trip(it)
    for node, name in names.items():
        it.cancel(node)
        it.delete(name)
    lines = it.client.transcript
    lines[:] = sorted(re.sub(r"delivery_tag=\d+", "delivery_tag=…", line) for line in lines)


@with_nodes
def a_prefetch_that_is_shared_is_none_of_quorum_queues_elsewhere(nodes: Nodes) -> None:
    """A channel with a shared prefetch cannot consume from quorum queues; it may be set after
    consuming."""
    name = "nodes.shared.quorum"
    declares = declare(nodes, name, QUORUM, *"1234")
    for node in "ac":
        it = nodes.speaker("shares", node)
        it.qos(2, global_=True)
        it.get(name, no_ack=False)
        it.reject(1, requeue=True)
        until_counted(declares, name, messages=4)
        it.consume(name, "tag")
        later = nodes.speaker("shares later", node)
        later.qos(3)
        later.consume(name, "tag")
        later.expect("Basic.Deliver", 3)
        later.qos(1, global_=True)
        later.ack(1)
        later.expect("Basic.Deliver")
        later.cancel("tag")
        later.nack(0, multiple=True, requeue=True)
        until_counted(declares, name, messages=3)
        publish(declares, name, "more")
        declares.purge(name)
        publish(declares, name, *"1234")
    declares.delete(name)


@with_nodes
def single_active_consumers_of_several_nodes(nodes: Nodes) -> None:
    """Single active consumers take turns, whichever node they and the queue are on."""
    for kind, queue in (("classic", {}), ("quorum", QUORUM)):
        name = f"nodes.single.{kind}"
        declares = declare(nodes, name, {**queue, "x-single-active-consumer": True}, *"12345")
        line = []
        for tag, node, priority in (("first", "c", 5), ("third", "a", 1), ("second", "b", 3)):
            it = nodes.speaker(f"{tag} of {kind}", node)
            it.qos(1)
            it.consume(name, tag, {"x-priority": priority})
            line.append(it)
        first, third, second = line
        first.expect("Basic.Deliver")
        for it in (second, third):
            round_trip(it)
        first.cancel("first")
        second.expect("Basic.Deliver")
        round_trip(third)
        second.hang_up()
        third.expect("Basic.Deliver")
        third.ack(1)
        third.expect("Basic.Deliver")
        first.another().consume(name, "again", {"x-priority": 5})
        round_trip(third)
        first.hang_up()
        until_counted(declares, name, messages=3, consumers=1)
        declares.delete(name)


@with_nodes
def priorities_of_consumers_of_several_nodes(nodes: Nodes) -> None:
    """The consumer with room and the highest priority is served, whichever node it is on."""
    for kind, queue in (("classic", {}), ("quorum", QUORUM)):
        name = f"nodes.priorities.{kind}"
        declares = declare(nodes, name, queue)
        line = []
        for node, priority in (("a", 0), ("c", 5), ("b", -1)):
            it = nodes.speaker(f"{priority} of {kind}", node)
            it.qos(1)
            it.consume(name, f"{priority}", {"x-priority": priority})
            line.append(it)
        normal, high, low = line
        for it in (high, normal, low):
            publish(declares, name, "to whoever is next")
            it.expect("Basic.Deliver")
        for it in (low, normal, high):
            it.ack(1)
            publish(declares, name, "back")
            it.expect("Basic.Deliver")
        declares.delete(name)
