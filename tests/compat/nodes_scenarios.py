"""Conversations with several nodes of a cluster at once: what is declared on one is used on others.

A client is called by what it does and by its node.  Each scenario has queues of its own and leaves
the cluster whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeAlias

from fluffle.protocol.methods import Channel, Queue, make
from tests.compat.clusters import NODES, Cluster
from tests.compat.scenario import End, Peer, Transcript, normalised
from tests.compat.verbs import Speaker
from tests.support.client import Client

QUORUM = {"x-queue-type": "quorum"}
PERSISTENT = 2
RESOURCE_LOCKED = 405


class Nodes:
    """A cluster, as a scenario sees it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._peers: list[Peer] = []
        self._marks = 0
        self._away: set[str] = set()

    def speaker(self, name: str, node: str) -> Speaker:
        """The first channel of a new connection to that node."""
        peer = Peer("127.0.0.1", self._cluster.port(node))
        self._peers.append(peer)
        return Speaker(peer.client(f"{name} on {node}"), count(1))

    @contextmanager
    def without(self, node: str, end: End = End.KILL) -> Iterator[None]:
        """Ended before, and back afterwards."""
        if end is End.KILL:
            self._cluster.kill(node)
        else:
            self._cluster.stop(node)
        self._away.add(node)
        try:
            yield
        finally:
            self._cluster.start(node)
            self._away.remove(node)

    def agree(self) -> None:
        """Return when each node that runs knows all that any was told.

        Definitions come to each in one order, so who knows what is declared last knows the rest.
        """
        self._marks += 1
        mark = f"nodes.mark.{self._marks}"
        running = [node for node in NODES if node not in self._away]
        with Client("127.0.0.1", self._cluster.port(running[0])) as owner:
            owner.open()
            owner.channel(1)
            owner.call(1, make(Queue.Declare, queue=mark, exclusive=True))
            for node in running:
                self._until_known(node, mark)

    def _until_known(self, node: str, queue: str) -> None:
        """It is another connection's, so that who knows it refuses it."""
        with Client("127.0.0.1", self._cluster.port(node)) as client:
            client.open()
            for number in count(1):
                client.channel(number)
                asking = make(Queue.Declare, queue=queue, passive=True)
                closing: Any = client.call(number, asking).method
                if closing.reply_code == RESOURCE_LOCKED:
                    return
                client.send(number, make(Channel.CloseOk))

    def hang_up(self) -> Transcript:
        """End all clients; what they have heard, nodes by their short names."""
        heard: Transcript = {}
        for peer in self._peers:
            for name, lines in peer.hang_up().items():
                heard[name] = [line.replace("@localhost", "") for line in lines]
        return normalised(heard)


Drive: TypeAlias = Callable[[Nodes], None]

NODES_SCENARIOS: dict[str, Drive] = {}


def with_nodes(drive: Drive) -> Drive:
    """Register a function as a scenario, under the name it has."""
    NODES_SCENARIOS[f"nodes.{drive.__name__}"] = drive
    return drive


def run(drive: Drive, cluster: Cluster) -> Transcript:
    nodes = Nodes(cluster)
    try:
        drive(nodes)
    finally:
        transcript = nodes.hang_up()
    return transcript


def publish(it: Speaker, queue: str, *bodies: str) -> None:
    """Each in turn, and hear that it is safe."""
    for body in bodies:
        it.publish("", queue, body, delivery_mode=PERSISTENT)
        it.expect("Basic.Ack")


# Quorum queues


@with_nodes
def quorum_queue_declared_here_published_there_consumed_elsewhere(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare("nodes.three", QUORUM, durable=True)
    nodes.agree()
    publishes = nodes.speaker("publishes", "b")
    publishes.confirms()
    publish(publishes, "nodes.three", *"12345")
    consumes = nodes.speaker("consumes", "c")
    consumes.qos(2)
    consumes.consume("nodes.three", "tag")
    consumes.expect("Basic.Deliver", 2)
    consumes.ack(1)
    consumes.expect("Basic.Deliver")
    consumes.nack(2, requeue=True)
    consumes.expect("Basic.Deliver")
    consumes.ack(0, multiple=True)
    consumes.expect("Basic.Deliver", 2)
    consumes.ack(0, multiple=True)
    consumes.cancel("tag")
    consumes.settle()
    it.declare("nodes.three", QUORUM, durable=True)
    it.delete("nodes.three")


@with_nodes
def quorum_queue_polled_purged_and_deleted_from_other_nodes(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare("nodes.polled", QUORUM, durable=True)
    it.confirms()
    publish(it, "nodes.polled", *"1234")
    nodes.agree()
    polls = nodes.speaker("polls", "b")
    polls.get("nodes.polled")
    polls.get("nodes.polled", no_ack=False)
    polls.reject(2, requeue=True)
    polls.get("nodes.polled", no_ack=False)
    polls.ack(3)
    purges = nodes.speaker("purges", "c")
    polls.settle()
    purges.purge("nodes.polled")
    polls.get("nodes.polled")
    purges.delete("nodes.polled")
    nodes.agree()
    polls.another().declare("nodes.polled", passive=True)
    polls.delete("nodes.polled")


@with_nodes
def consumers_of_a_quorum_queue_deleted_elsewhere_are_cancelled(nodes: Nodes) -> None:
    nodes.speaker("declares", "a").declare("nodes.deleted", QUORUM, durable=True)
    nodes.agree()
    consumers = [nodes.speaker("consumes", node) for node in "abc"]
    for consumer in consumers:
        consumer.consume("nodes.deleted", "tag")
    nodes.speaker("deletes", "c").delete("nodes.deleted")
    for consumer in consumers:
        consumer.expect("Basic.Cancel")


@with_nodes
def the_same_declared_again_on_another_node(nodes: Nodes) -> None:
    nodes.speaker("declares", "a").declare("nodes.same", QUORUM, durable=True)
    nodes.agree()
    it = nodes.speaker("declares again", "b")
    it.another().declare("nodes.same", QUORUM, durable=True)
    it.another().declare("nodes.same", durable=True)
    it.another().declare("nodes.same", {**QUORUM, "x-max-length": 1}, durable=True)
    it.another().declare("nodes.same", passive=True)
    it.delete("nodes.same")


@with_nodes
def topic_exchange_of_one_node_bound_on_another_published_on_the_third(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare_exchange("nodes.topic", "topic", durable=True)
    it.declare("nodes.bound", QUORUM, durable=True)
    nodes.agree()
    nodes.speaker("binds", "b").bind("nodes.bound", "nodes.topic", "a.#")
    nodes.agree()
    publishes = nodes.speaker("publishes", "c")
    publishes.confirms()
    for number, key in enumerate(("a.b", "b.a", "a"), start=1):
        publishes.publish("nodes.topic", key, key, mandatory=True, delivery_mode=PERSISTENT)
        publishes.confirmed(number)
    it.drain("nodes.bound")
    it.delete("nodes.bound")
    it.delete_exchange("nodes.topic")


@with_nodes
def the_node_that_leads_a_quorum_queue_is_killed(nodes: Nodes) -> None:
    """What consumers of other nodes hold stays theirs, and nothing comes twice."""
    nodes.speaker("declares", "a").declare("nodes.led", QUORUM, durable=True)
    nodes.agree()
    publishes = nodes.speaker("publishes", "b")
    publishes.confirms()
    publish(publishes, "nodes.led", *"123")
    consumes = nodes.speaker("consumes", "c")
    consumes.qos(2)
    consumes.consume("nodes.led", "tag")
    consumes.expect("Basic.Deliver", 2)
    with nodes.without("a"):
        publish(publishes, "nodes.led", *"456")
        consumes.ack(1)
        consumes.expect("Basic.Deliver")
        consumes.ack(2)
        consumes.expect("Basic.Deliver")
        consumes.ack(0, multiple=True)
        consumes.expect("Basic.Deliver", 2)
        consumes.ack(0, multiple=True)
        consumes.cancel("tag")
        consumes.get("nodes.led")
    it = nodes.speaker("looks", "a")
    it.get("nodes.led")
    it.delete("nodes.led")


# Classic queues


@with_nodes
def classic_queue_used_from_other_nodes(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare("nodes.classic", durable=True)
    nodes.agree()
    publishes = nodes.speaker("publishes", "b")
    publishes.confirms()
    publish(publishes, "nodes.classic", *"1234")
    consumes = nodes.speaker("consumes", "c")
    consumes.qos(1)
    consumes.consume("nodes.classic", "tag")
    consumes.expect("Basic.Deliver")
    consumes.ack(1)
    consumes.expect("Basic.Deliver")
    consumes.cancel("tag")
    consumes.reject(2, requeue=True)
    consumes.settle()
    publishes.get("nodes.classic")
    publishes.declare("nodes.classic", durable=True)
    publishes.purge("nodes.classic")
    publishes.delete("nodes.classic", if_unused=True, if_empty=True)
    nodes.agree()
    it.another().declare("nodes.classic", passive=True)


@with_nodes
def exclusive_queue_is_its_connections_alone(nodes: Nodes) -> None:
    nodes.speaker("owns", "a").declare("nodes.exclusive", exclusive=True)
    nodes.agree()
    other = nodes.speaker("tries", "b")
    other.another().declare("nodes.exclusive", passive=True)
    other.another().declare("nodes.exclusive", exclusive=True)
    other.another().get("nodes.exclusive")
    other.another().consume("nodes.exclusive", "tag")
    other.another().delete("nodes.exclusive")


@with_nodes
def the_node_of_classic_queues_is_stopped(nodes: Nodes) -> None:
    """Its consumers elsewhere are cancelled; durable queues cannot be used, others are gone.

    After SIGKILL RabbitMQ would let clients wait for a minute.
    """
    it = nodes.speaker("declares", "c")
    it.declare("nodes.home", durable=True)
    it.declare("nodes.home.transient")
    it.confirms()
    publish(it, "nodes.home", "kept")
    nodes.agree()
    consumes = nodes.speaker("consumes", "b")
    consumes.qos(1)
    consumes.consume("nodes.home", "tag")
    consumes.expect("Basic.Deliver")
    waits = nodes.speaker("waits", "b")
    waits.consume("nodes.home.transient", "transient")
    with nodes.without("c", End.STOP):
        consumes.expect("Basic.Cancel")
        waits.expect("Basic.Cancel")
        other = nodes.speaker("tries", "a")
        other.until_gone("nodes.home.transient")
        other.another().declare("nodes.home", passive=True)
        other.another().get("nodes.home")
        other.another().consume("nodes.home", "tag")
        other.another().purge("nodes.home")
        unsafe = other.another()
        unsafe.publish("", "nodes.home", "returned or not", mandatory=True)
        unsafe.settle()
    again = nodes.speaker("looks", "a")
    again.get("nodes.home")
    again.delete("nodes.home")
