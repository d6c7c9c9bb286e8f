"""Resource alarms: whoever is low, publishers of all nodes are held back, and nobody else."""

from typing import Any

from fluffle.protocol.methods import Basic, make
from tests.compat.nodes import QUORUM, Nodes, publish, until_counted, with_nodes
from tests.compat.verbs import Speaker

TRIES = 500
NAMES = ("nodes.alarm.quorum", "nodes.alarm.classic")


def until_blocked(it: Speaker) -> None:
    """Publish until that is held back: it may take a moment until a node hears of another.

    The last question waits for its answer until publishers go on.
    """
    heard = None
    while heard is None or heard.name != "Connection.Blocked":
        if heard is None or heard.name == "Basic.QosOk":
            it.publish("amq.direct", "nowhere")
            it.send(make(Basic.Qos, prefetch_count=0))
        heard = it.client.next()
    it.forget(f"[{it.number}] Basic.QosOk(")


def goes_on(it: Speaker) -> None:
    """Expect the answer to what was asked while blocked."""
    it.expect("Connection.Unblocked")
    it.expect("Basic.QosOk")
    it.publish("amq.direct", "nowhere", "lost", mandatory=True)
    it.expect("Basic.Return")


def declare_both(nodes: Nodes) -> None:
    """On node a, with a message each."""
    it = nodes.speaker("declares", "a")
    it.declare(NAMES[0], QUORUM, durable=True)
    it.declare(NAMES[1], durable=True)
    it.confirms()
    for name in NAMES:
        publish(it, name, "1", "2")
    nodes.agree()


def delete_both(nodes: Nodes) -> None:
    nodes.speaker("deletes", "b").delete(*NAMES)


def use(it: Speaker) -> None:
    """Everything but publishing: that goes on."""
    for at, name in enumerate(NAMES):
        it.declare(name, passive=True)
        it.get(name, no_ack=False)
        it.ack(3 * at + 1)
        it.consume(name, f"tag {at}")
        it.expect("Basic.Deliver")
        it.reject(3 * at + 2, requeue=True)
        it.expect("Basic.Deliver")
        it.cancel(f"tag {at}")
        it.ack(3 * at + 3)
        it.settle()
    it.declare("nodes.alarm.new", exclusive=True)


@with_nodes
def publishers_of_all_nodes_are_held_back_by_one(nodes: Nodes) -> None:
    """Connections that do not publish now, or never do, are not blocked."""
    declare_both(nodes)
    early = [nodes.speaker("has published", node) for node in "abc"]
    for it in early:
        it.publish("amq.direct", "nowhere", "lost", mandatory=True)
        it.expect("Basic.Return")
    never = nodes.speaker("never publishes", "b")
    publishers = [nodes.speaker("publishes", node) for node in "abc"]
    with nodes.low("c", "memory"):
        for it in publishers:
            until_blocked(it)
        for it in early:
            it.send(make(Basic.Qos, prefetch_count=0))
        use(nodes.speaker("uses", "b"))
        never.settle()
    for it in publishers:
        goes_on(it)
    for it in early:
        it.expect("Basic.QosOk")
    never.settle()
    delete_both(nodes)


@with_nodes
def consumers_go_on_while_another_node_is_low(nodes: Nodes) -> None:
    declare_both(nodes)
    consumers = [nodes.speaker("consumes", node) for node in "abc"]
    publishes = nodes.speaker("publishes", "a")
    with nodes.low("b", "disk"):
        until_blocked(publishes)
        for it in consumers:
            it.qos(1)
            for name in NAMES:
                it.consume(name, name)
                tag = next_tag(it)
                it.cancel(name)
                it.reject(tag, requeue=True)
                until_counted(it, name, messages=2)
    goes_on(publishes)
    delete_both(nodes)


def next_tag(it: Speaker) -> int:
    delivered: Any = it.expect("Basic.Deliver")[-1].method
    return int(delivered.delivery_tag)


@with_nodes
def several_nodes_are_low(nodes: Nodes) -> None:
    """The reason names what any of them is low on, and only when none is publishers go on."""
    a, b, c = (nodes.speaker("publishes", node) for node in "abc")
    with nodes.low("b", "memory"):
        until_blocked(a)
        until_blocked(b)
        with nodes.low("c", "disk"):
            until_reason(nodes, "a", "low on disk & memory")
            until_reason(nodes, "c", "low on disk & memory")
        until_reason(nodes, "a", "low on memory")
        until_blocked(c)
    for it in (a, b, c):
        goes_on(it)


def until_reason(nodes: Nodes, node: str, reason: str) -> None:
    """Come again until who publishes on a node is held back for that reason."""
    blocked: Any = None
    for _ in range(TRIES):
        with nodes.unheard(node) as it:
            until_blocked(it)
            blocked = it.client.heard[-1].method
            if set(blocked.reason.split()) == set(reason.split()):
                return
    raise AssertionError(f"{node} is {blocked.reason}")


@with_nodes
def a_node_that_is_low_goes_away(nodes: Nodes) -> None:
    """A node that is down blocks no connection."""
    it = nodes.speaker("publishes", "a")
    with nodes.low("c", "memory"):
        until_blocked(it)
        with nodes.without("c"):
            goes_on(it)
    again = nodes.speaker("publishes anew", "c")
    again.publish("amq.direct", "nowhere", "lost", mandatory=True)
    again.expect("Basic.Return")
