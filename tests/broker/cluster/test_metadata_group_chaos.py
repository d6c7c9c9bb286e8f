"""Clients of all nodes change everything, while frames are lost and leaders come and go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from fluffle.broker.access.limits import VhostLimits
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.message import RetainedMessage
from fluffle.broker.definitions.changes import dismantling, doom, set_vhost
from fluffle.broker.definitions.retained import RetainedLimits, RetainedStore
from fluffle.broker.durability.change_codec import decode_proposals
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.state import MetadataState
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts import queue_changes as queues
from tests.broker.definitions import test_retained
from tests.broker.vhosts import test_retained as test_topics
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES
from tests.suite.seeds import seeds
from tests.support.definition_digest import digest_of
from tests.support.metadata import ignore_error
from tests.support.metadata_changes import (
    OWNER,
    bind,
    contents,
    declare,
    declare_exchange,
    delete,
    delete_exchange,
    root,
    unbind,
)
from tests.support.metadata_cluster import Cluster, Node, Outcome
from tests.support.runtime import fake_runtime

QUEUE, EXCHANGE = DestinationKind.QUEUE, DestinationKind.EXCHANGE


class Storm:
    """Random events, drawn by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.cluster = Cluster()
        self.cluster.lead("a")
        self.outcomes: list[Outcome] = []
        self.lost: list[Outcome] = []
        """Outcomes for clients whose node has ended."""
        self.owners: dict[str, list[Outcome]] = {name: [] for name in "abc"}

    def node(self) -> Node:
        return self.cluster.nodes[self.random.choice("abc")]

    def step(self) -> None:
        acts = [self.ask] * 8 + [self.deliver] * 6 + [self.turn] * 6 + [self.commit] * 6
        acts += [self.drop, self.repeat, self.pause, self.lead, self.snapshot, self.wait]
        acts += [self.restart] * (self.random.random() < 0.2)
        self.random.choice(acts)()

    def ask(self) -> None:
        node, random = self.node(), self.random
        if "/" not in node.catalogue.vhosts:
            for decide in dismantling(node.catalogue, "/"):
                self.begin(node, decide)
            self.begin(node, lambda: set_vhost(node.catalogue, "/"))
            return
        if random.random() < 0.02:
            self.begin(node, lambda: doom(node.catalogue, "/"))
            return
        queue, source = random.choice("qr"), random.choice(["x", "y", "amq.topic"])
        end = (queue, QUEUE) if random.random() < 0.6 else (random.choice("xy"), EXCHANGE)
        binding = Binding(source, *end, random.choice("kl"))
        flags = {random.choice(["durable", "exclusive", "auto_delete"]): random.random() < 0.3}
        spec = ExchangeSpec(random.choice("xy"), auto_delete=random.random() < 0.7)
        decide = random.choice(
            [
                declare(node, queue, **flags),
                delete(node, queue),
                *[bind(node, binding)] * 3,
                *[unbind(node, binding)] * 2,
                declare_exchange(node, spec),
                delete_exchange(node, spec.name),
                lambda: set_vhost(node.catalogue, "/", limits=VhostLimits(max_queues=1)),
                lambda: queues.delete_owned(root(node), OWNER),
            ]
        )
        self.begin(node, decide)

    def begin(self, node: Node, decide: Callable[[], Change]) -> None:
        try:
            outcome = node.ask(decide)
        except BrokerError:
            return
        self.outcomes.append(outcome)
        self.owners[node.name].append(outcome)

    def deliver(self) -> None:
        self.cluster.deliver()

    def turn(self) -> None:
        self.cluster.scheduler.turn()

    def commit(self) -> None:
        self.node().catch_up()

    def drop(self) -> None:
        if self.cluster.frames:
            del self.cluster.frames[self.random.randrange(len(self.cluster.frames))]

    def repeat(self) -> None:
        if self.cluster.frames:
            self.cluster.frames.append(self.random.choice(self.cluster.frames))

    def pause(self) -> None:
        node = self.node()
        node.is_paused = not node.is_paused

    def lead(self) -> None:
        self.cluster.lead(self.random.choice(["a", "b", "c", None]))

    def snapshot(self) -> None:
        node = self.node()
        if node.name != self.cluster.leader:
            node.catch_up_by_snapshot()

    def wait(self) -> None:
        self.cluster.scheduler.advance(self.random.choice([0.5, 1.5, 1.5, 20]))

    def restart(self) -> None:
        name = self.random.choice("abc")
        self.cluster.start(name)
        self.lost += self.owners[name]
        self.owners[name] = []

    def calm(self) -> None:
        """Deliver all frames to every node."""
        for node in self.cluster.nodes.values():
            node.is_paused = False
        self.cluster.lead("b")
        self.cluster.advance(35)


@seeds(40)
def test_whatever_happens_all_agree_in_the_end(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(400):
        storm.step()
    storm.calm()
    nodes = list(storm.cluster.nodes.values())
    for node in nodes:
        assert digest_of(node.metadata.state) == digest_of(nodes[0].metadata.state), seed
        assert contents(node) == contents(nodes[0]), seed
        marks = len(node.catalogue.doomed)
        assert len(contents(node)) + marks == len(node.metadata.state), seed
    heard = [len(outcome.heard) for outcome in storm.outcomes if outcome not in storm.lost]
    assert set(heard) <= {1}, seed
    assert max((len(outcome.heard) for outcome in storm.lost), default=0) <= 1
    naive = MetadataState()
    for entry in storm.cluster.log:
        for proposal in decode_proposals(entry.payload):
            naive.apply(proposal)
    assert digest_of(naive) == digest_of(nodes[0].metadata.state), seed


class RetainingStorm(Storm):
    """Publishers at all nodes retain messages, numbered by node, under few topics."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        for node in self.cluster.nodes.values():
            node.editor.have(partial(set_vhost, node.catalogue, "/"))
            self.cluster.settle()
        self.stores = {name: self.store_at(name) for name in "abc"}
        self.number = 0
        self.acknowledged: dict[tuple[str, str], int] = {}
        """The last number for each node and topic."""

    def store_at(self, name: str) -> RetainedStore:
        node, runtime = self.cluster.nodes[name], fake_runtime(self.cluster.scheduler)
        return RetainedStore(
            node.catalogue,
            node.metadata,
            RetainedLimits(messages_max=10, size_bytes_max=1 << 20),
            runtime,
            now_ms=runtime.clock.wall_ms,
            is_leader=lambda: node.metadata.leads,
        )

    def ask(self) -> None:
        name, topic = self.random.choice("abc"), self.random.choice("tuv")
        self.number += 1
        message = RetainedMessage(name.encode(), b"", "guest", self.number)
        done = partial(self.done, name, topic, self.number)
        self.stores[name].put("/", topic, message, done, ignore_error)

    def done(self, name: str, topic: str, number: int) -> None:
        self.acknowledged[name, topic] = number

    def restart(self) -> None:
        super().restart()
        self.stores = {name: self.stores[name] for name in "abc"}
        for name, node in self.cluster.nodes.items():
            if self.stores[name]._metadata is not node.metadata:
                self.stores[name] = self.store_at(name)


def check_retained(seed: int) -> None:
    """Check retained messages of one node: those published on two nodes at the same time have no
    order."""
    storm = RetainingStorm(seed)
    for _ in range(400):
        storm.step()
    storm.calm()
    images = [dict(node.catalogue.vhosts["/"].retained) for node in storm.cluster.nodes.values()]
    assert images[1:] == images[:1] * 2, seed
    assert storm.acknowledged, seed
    for (name, topic), number in storm.acknowledged.items():
        kept = images[0][topic]
        if kept.content == name.encode():
            assert kept.stored_at_ms >= number, (seed, topic)


def check_many_retained(count: int) -> None:
    for seed in range(count):
        check_retained(seed)


@seeds(40)
def test_what_is_retained_is_the_last_that_was_acknowledged(seed: int) -> None:
    check_retained(seed)


SEEN_BY: dict[str, Callable[[], object]] = {
    "RT1": lambda: check_many_retained(40),
    "RT2": test_retained.test_who_does_not_lead_removes_nothing_until_it_does,
    "RT3": test_retained.test_a_new_topic_finds_no_room_and_an_old_one_does,
    "RT4": test_retained.test_who_subscribes_finds_what_is_under_way_behind_what_there_is,
    "RT5": lambda: test_topics.test_a_filter_finds_its_topics("#", test_topics.UNHIDDEN),
    **dict.fromkeys(
        ("RT6", "RT7"),
        test_retained.test_a_message_of_a_client_that_moves_takes_no_later_ones_place,
    ),
}


@FAMILIES["retained"].each()
def test_a_mistake_in_what_is_retained_is_seen(mutant: Mutant) -> None:
    with mutant.in_place(), pytest.raises(AssertionError):
        SEEN_BY[mutant.number]()
