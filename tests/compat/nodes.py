"""Scenarios of several nodes: objects declared on one are used on others.

A client is called by what it does and by its node.  Each scenario has queues of its own and leaves
the cluster whole.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from fluffle.protocol.methods import Channel, Queue, make
from tests.compat.clusters import NODES, Cluster
from tests.compat.scenario import End, Peer, Transcript, normalised
from tests.compat.verbs import Speaker
from tests.support.client import Client

QUORUM = {"x-queue-type": "quorum"}
PERSISTENT = 2
RESOURCE_LOCKED = 405
TRIES = 1_000


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
    def unheard(self, node: str) -> Iterator[Speaker]:
        """Client without a transcript."""
        peer = Peer("127.0.0.1", self._cluster.port(node))
        try:
            yield Speaker(peer.client(), count(1))
        finally:
            peer.hang_up()

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

    @contextmanager
    def low(self, node: str, resource: str) -> Iterator[None]:
        """That node has too little `memory` or `disk`; others hear of it a moment later.

        If it is started meanwhile, it has enough again.
        """
        self._cluster.switch(node, resource, low=True)
        try:
            yield
        finally:
            self._cluster.switch(node, resource, low=False)

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
        """Wait until the node knows an exclusive queue of another connection, and so refuses it."""
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
                heard[name] = [*map(self._cluster.shown, lines)]
        return normalised(heard)


Drive: TypeAlias = Callable[[Nodes], None]

NODES_SCENARIOS: dict[str, Drive] = {}


def load_nodes_scenarios() -> Mapping[str, Drive]:
    """Every one there is, by name: those of the files `nodes_*.py` beside this one."""
    for path in sorted(Path(__file__).parent.glob("nodes_*.py")):
        import_module(f"{__package__}.{path.stem}")
    return NODES_SCENARIOS


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


def until_counted(it: Speaker, queue: str, *, messages: int, consumers: int = 0) -> None:
    """Ask for the counts of a queue until they are these: RabbitMQ may take a moment.

    The last answer is written down.
    """
    lines, before = it.client.transcript, len(it.client.transcript)
    counts: Any = None
    for _ in range(TRIES):
        it.declare(queue, passive=True)
        counts = it.client.heard[-1].method
        if (counts.message_count, counts.consumer_count) == (messages, consumers):
            break
        del lines[before:]
    else:
        raise AssertionError(f"{queue} has {counts}")
