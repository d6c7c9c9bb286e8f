"""Retained messages, on one node and on several: in order, within limits, and until they expire."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from fluffle.broker.base.client_session import ClientSession
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import REPEATED_AFTER_MS
from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.definitions.changes import dismantling, doom
from fluffle.broker.definitions.retained import (
    CHANGE_BYTES_MAX,
    RECHECK_MS,
    TOPICS_AT_ONCE,
    RetainedLimits,
    RetainedStore,
    remove_retained,
    retained_fact,
)
from fluffle.broker.metadata.change import Change, Facts
from fluffle.broker.metadata.metadata import Apply, LocalMetadata, Metadata, ignore_done
from fluffle.broker.metadata.nodes import SELECTS, RegisteredNode
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.vhosts.client_sessions import keep_session
from tests.support.edge import Edge
from tests.support.metadata import ManualMetadata
from tests.support.metadata_cluster import Node, led_by_a
from tests.support.runtime import fake_runtime

LIMITS = RetainedLimits(messages_max=3, size_bytes_max=1 << 20)


def message(content: bytes, expires_at_ms: int = NEVER_EXPIRES_MS) -> RetainedMessage:
    return RetainedMessage(content, b"", "guest", 0, expires_at_ms)


class Publisher:
    """Publisher of retained messages at one node, with its answers."""

    def __init__(self, store: RetainedStore) -> None:
        self.store = store
        self.answers: list[str] = []

    def put(
        self,
        topic: str,
        content: bytes | None,
        expires_at_ms: int = NEVER_EXPIRES_MS,
        client_id: str = "",
    ) -> None:
        kept = None if content is None else message(content, expires_at_ms)
        done, failed = partial(self._done, topic), partial(self._failed, topic)
        self.store.put("/", topic, kept, done, failed, client_id=client_id)

    def _done(self, topic: str) -> None:
        self.answers.append(topic)

    def _failed(self, topic: str, error: BrokerError) -> None:
        self.answers.append(f"{topic}: {type(error).__name__}")


def contents(topics: object) -> dict[str, bytes]:
    return {topic: kept.content for topic, kept in topics}  # type: ignore[attr-defined]


class LoneNode:
    """A node that is alone."""

    def __init__(self, make_metadata: Callable[[Apply, Facts], Metadata] = LocalMetadata) -> None:
        self.edge = Edge(make_metadata=make_metadata)
        services = self.edge.services
        self.catalogue = self.edge.catalogue
        self.metadata = services.metadata
        self.is_leader = True
        self.catalogue.retained_listeners.clear()
        self.store = RetainedStore(
            self.catalogue,
            services.metadata,
            LIMITS,
            services.runtime,
            now_ms=services.runtime.clock.wall_ms,
            is_leader=lambda: self.is_leader,
        )
        self.publisher = Publisher(self.store)
        self.topics = self.edge.vhost.retained

    def settle(self) -> None:
        self.edge.scheduler.run()

    def advance(self, milliseconds: int) -> None:
        self.edge.scheduler.advance(milliseconds / 1000)

    @property
    def now_ms(self) -> int:
        return self.store.now_ms()

    def commit_all(self) -> None:
        assert isinstance(self.metadata, ManualMetadata)
        while self.metadata:
            self.metadata.commit()
        self.settle()


def test_a_message_takes_the_place_of_the_one_before() -> None:
    node = LoneNode()
    node.publisher.put("a", b"1")
    node.publisher.put("a", b"2")
    node.publisher.put("b", b"3")
    node.publisher.put("b", None)
    node.publisher.put("c", None)
    node.settle()
    assert contents(node.topics) == {"a": b"2"}
    assert node.publisher.answers == ["a", "a", "b", "b", "c"]


def test_an_answer_waits_for_the_disk() -> None:
    node = LoneNode()
    commits = node.edge.services.runtime.commits
    node.publisher.put("a", b"1")
    if commits.durable < commits.ticket:
        assert node.publisher.answers == []
    node.settle()
    assert commits.durable >= 1
    assert node.publisher.answers == ["a"]


def test_one_change_is_under_way_and_what_comes_meanwhile_goes_with_the_next() -> None:
    node = LoneNode(ManualMetadata)
    assert isinstance(node.metadata, ManualMetadata)
    node.publisher.put("a", b"1")
    assert len(node.metadata) == 0
    node.settle()
    for content in (b"2", b"3"):
        for topic in ("a", "b"):
            node.publisher.put(topic, content)
    assert len(node.metadata) == 1
    node.metadata.commit()
    assert contents(node.topics) == {"a": b"1"}
    node.settle()
    assert node.publisher.answers == ["a"]
    assert len(node.metadata) == 1
    node.metadata.commit()
    node.settle()
    assert contents(node.topics) == {"a": b"3", "b": b"3"}
    assert node.publisher.answers == ["a", "a", "a", "b", "b"]
    assert len(node.metadata) == 0


def test_a_change_is_no_longer_than_others_can_wait() -> None:
    node = LoneNode(ManualMetadata)
    assert isinstance(node.metadata, ManualMetadata)
    node.publisher.put("a", b"")
    node.settle()
    node.metadata.commit()
    node.publisher.put("b", b"")
    node.settle()
    node.publisher.put("a", bytes(CHANGE_BYTES_MAX))
    node.publisher.put("b", bytes(CHANGE_BYTES_MAX + 1))
    for number in range(TOPICS_AT_ONCE):
        node.publisher.put(f"gone/{number}", None)
    steps = []
    while node.metadata:
        node.metadata.commit()
        node.settle()
        steps.append(len(node.publisher.answers))
    assert steps == [2, 3, 4 + TOPICS_AT_ONCE]


def test_a_new_topic_finds_no_room_and_an_old_one_does() -> None:
    node = LoneNode()
    for topic in "abcd":
        node.publisher.put(topic, b"1")
    node.settle()
    node.publisher.put("a", b"2")
    node.publisher.put("b", None)
    node.settle()
    node.publisher.put("d", b"3")
    node.settle()
    assert sorted(node.publisher.answers) == [
        "a", "a", "b", "b", "c", "d", "d: RetainedLimitReached",
    ]  # fmt: skip
    assert contents(node.topics) == {"a": b"2", "c": b"1", "d": b"3"}


def test_a_virtual_host_without_room_is_logged_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = LoneNode()
    for topic in "abcdef":
        node.publisher.put(topic, b"1")
    node.settle()
    assert caplog.messages == ["retained_limit_reached"]
    assert caplog.records[0].levelname == "WARNING"
    node.advance(REPEATED_AFTER_MS)
    node.publisher.put("g", b"1")
    node.settle()
    assert caplog.messages == ["retained_limit_reached"] * 2


def test_a_topic_that_is_too_large_is_not_retained() -> None:
    node = LoneNode()
    for topic, size in (("a", 20), ("a", 19), ("b", 19), ("a", 21)):
        node.publisher.put(topic, bytes(1 << size))
        node.settle()
    limit = "RetainedLimitReached"
    assert node.publisher.answers == [f"a: {limit}", "a", f"b: {limit}", f"a: {limit}"]
    assert contents(node.topics) == {"a": bytes(1 << 19)}


def test_what_has_expired_is_removed_in_time() -> None:
    node = LoneNode()
    node.publisher.put("a", b"1", node.now_ms + 5_000)
    node.publisher.put("b", b"1", node.now_ms + 3_000)
    node.publisher.put("b", b"2", node.now_ms + 9_000)
    node.settle()
    node.advance(4_990)
    assert contents(node.topics) == {"a": b"1", "b": b"2"}
    node.advance(100)
    assert contents(node.topics) == {"b": b"2"}
    node.advance(4_000)
    assert contents(node.topics) == {}
    node.publisher.put("c", b"3", node.now_ms - 1)
    node.advance(10)
    assert contents(node.topics) == {}


def test_who_does_not_lead_removes_nothing_until_it_does() -> None:
    node = LoneNode()
    node.is_leader = False
    node.publisher.put("a", b"1", node.now_ms + 5_000)
    node.advance(20_000)
    assert contents(node.topics) == {"a": b"1"}
    node.is_leader = True
    node.advance(RECHECK_MS + 100)
    assert contents(node.topics) == {}


def test_a_store_that_is_opened_looks_for_what_has_expired() -> None:
    edge = Edge()
    services = edge.services
    edge.vhost.retained.put("a", message(b"1", services.runtime.clock.wall_ms() + 1_000))
    RetainedStore(
        edge.catalogue, services.metadata, LIMITS, services.runtime,
        now_ms=services.runtime.clock.wall_ms, is_leader=lambda: True,
    )  # fmt: skip
    edge.scheduler.advance(2)
    assert contents(edge.vhost.retained) == {}


def test_nothing_is_retained_while_a_node_is_of_an_older_version() -> None:
    node = LoneNode()
    older = RegisteredNode(ListenAddress("h", 1), knows=SELECTS)
    node.catalogue.nodes.entries["b"] = older
    node.publisher.put("a", b"1")
    node.settle()
    assert node.publisher.answers == ["a: PreconditionFailed"]
    del node.catalogue.nodes.entries["b"]
    node.publisher.put("a", b"1")
    node.settle()
    assert node.publisher.answers[1:] == ["a"]


def test_a_message_of_a_client_that_moves_takes_no_later_ones_place() -> None:
    """The node is cut off, and hears late that the client has had others answered elsewhere."""
    node = LoneNode(ManualMetadata)
    vhost, here = node.edge.vhost, ClientSession("guest", 60, 0, "a", b"", 1)
    for client_id in ("moving", "anew", "staying"):
        node.metadata.ensure(partial(keep_session, vhost, client_id, here))
    for topic in "tuv":
        node.publisher.put(topic, b"first")
    node.settle()
    node.commit_all()
    node.publisher.answers.clear()
    elsewhere, anew = here._replace(node="b", number=2), here._replace(number=3)
    node.metadata.ensure(partial(keep_session, vhost, "moving", elsewhere))
    node.metadata.ensure(partial(keep_session, vhost, "anew", anew))
    node.metadata.ensure(partial(keep_session, vhost, "staying", here._replace(ended_at_ms=1)))
    for topic in "tuv":
        new = retained_fact("/", topic, message(b"new"))
        node.metadata.ensure(partial(Change, puts=(new,)))
    node.publisher.put("t", b"old", client_id="moving")
    node.publisher.put("u", b"old", client_id="anew")
    node.publisher.put("v", b"newer", client_id="staying")
    node.settle()
    node.commit_all()
    assert contents(node.topics) == {"t": b"new", "u": b"new", "v": b"newer"}
    assert node.publisher.answers == ["t", "u", "v"]


def taken(node: LoneNode, topic_filter: str) -> list[tuple[str, bytes]]:
    cursor = node.topics.cursor(topic_filter)
    found = []
    while not cursor.is_done:
        found += [(topic, kept.content) for topic, kept in cursor.take(1, node.now_ms)]
    return found


def test_who_subscribes_late_finds_what_was_just_published() -> None:
    node = LoneNode()
    node.publisher.put("a", b"1")
    assert taken(node, "+") == [("a", b"1")]
    assert contents(node.topics) == {"a": b"1"}
    assert node.publisher.answers == []
    node.settle()
    assert node.publisher.answers == ["a"]


def test_who_subscribes_finds_what_is_under_way_behind_what_there_is() -> None:
    """Pending messages were published to earlier subscribers, and are not applied yet: no
    subscriber must miss them."""
    node = LoneNode(ManualMetadata)
    node.publisher.put("a", b"1")
    node.settle()
    node.commit_all()
    node.publisher.put("a", b"2")
    node.publisher.put("b/c", b"2")
    node.settle()
    node.publisher.put("d", b"3")
    node.publisher.put("d", None)
    assert taken(node, "+") == [("a", b"1"), ("a", b"2")]
    assert taken(node, "#") == [("a", b"1"), ("a", b"2"), ("b/c", b"2")]
    node.commit_all()
    assert taken(node, "#") == [("a", b"2"), ("b/c", b"2")]


def test_a_vhost_that_is_gone_retains_nothing() -> None:
    node = LoneNode()
    node.store.put("gone", "a", message(b"1"), ignore_done, partial(node.publisher._failed, "a"))
    node.settle()
    assert node.publisher.answers == ["a: NotFound"]


# Several nodes


class RetainingCluster:
    """Three nodes in one thread, each with a publisher."""

    def __init__(self) -> None:
        self.cluster = led_by_a()
        self.publishers = {name: self.publisher(name) for name in self.cluster.nodes}

    def publisher(self, name: str) -> Publisher:
        node = self.cluster.nodes[name]
        runtime = fake_runtime(self.cluster.scheduler)
        return Publisher(self.store_of(node, runtime))

    def store_of(self, node: Node, runtime: Runtime) -> RetainedStore:
        return RetainedStore(
            node.catalogue,
            node.metadata,
            LIMITS,
            runtime,
            now_ms=runtime.clock.wall_ms,
            is_leader=lambda: node.metadata.leads,
        )

    def restart(self, name: str) -> Node:
        node = self.cluster.start(name)
        self.publishers[name] = self.publisher(name)
        return node

    def contents(self) -> list[dict[str, bytes]]:
        """Retained messages of each node."""
        return [
            contents(node.catalogue.vhosts["/"].retained) for node in self.cluster.nodes.values()
        ]


@pytest.fixture
def retaining() -> RetainingCluster:
    return RetainingCluster()


def test_what_one_node_retains_is_there_at_all(retaining: RetainingCluster) -> None:
    cluster = retaining.cluster
    retaining.publishers["b"].put("a", b"1")
    retaining.publishers["b"].put("b", b"1")
    retaining.publishers["c"].put("c", b"1")
    cluster.settle()
    retaining.publishers["c"].put("a", b"2")
    retaining.publishers["a"].put("b", None)
    cluster.settle()
    assert retaining.contents() == [{"a": b"2", "c": b"1"}] * 3
    assert [len(each.answers) for each in retaining.publishers.values()] == [1, 2, 2]


def test_it_outlives_leaders_and_processes(retaining: RetainingCluster) -> None:
    cluster = retaining.cluster
    retaining.publishers["b"].put("a", b"1")
    cluster.settle()
    retaining.publishers["b"].put("a", b"2")
    cluster.scheduler.run()
    cluster.frames.clear()
    cluster.lead("c")
    cluster.settle()
    assert retaining.publishers["b"].answers == ["a", "a"]
    node = retaining.restart("b")
    cluster.settle()
    assert retaining.contents() == [{"a": b"2"}] * 3
    assert node.applied == len(cluster.log)


def test_a_snapshot_has_it(retaining: RetainingCluster) -> None:
    cluster = retaining.cluster
    retaining.publishers["b"].put("a", b"1")
    retaining.publishers["b"].put("b", b"1")
    cluster.settle()
    away = cluster.nodes["c"]
    away.is_paused = True
    retaining.publishers["b"].put("a", b"2")
    retaining.publishers["b"].put("b", None)
    retaining.publishers["a"].put("c", b"3")
    cluster.settle()
    assert contents(away.catalogue.vhosts["/"].retained) == {"a": b"1", "b": b"1"}
    away.catch_up_by_snapshot()
    away.is_paused = False
    assert retaining.contents() == [{"a": b"2", "c": b"3"}] * 3
    fresh = retaining.restart("c")
    fresh.catch_up_by_snapshot()
    assert retaining.contents() == [{"a": b"2", "c": b"3"}] * 3


def test_limits_hold_for_all_nodes_together(retaining: RetainingCluster) -> None:
    for name, publisher in retaining.publishers.items():
        publisher.put(f"{name}/1", b"")
        publisher.put(f"{name}/2", b"")
    retaining.cluster.settle()
    assert [len(each) for each in retaining.contents()] == [3] * 3
    answers = [answer for each in retaining.publishers.values() for answer in each.answers]
    assert len([answer for answer in answers if "RetainedLimitReached" in answer]) == 3
    assert len(answers) == 6


def test_a_removal_spares_what_has_come_since(retaining: RetainingCluster) -> None:
    cluster = retaining.cluster
    now_ms = retaining.publishers["a"].store.now_ms()
    retaining.publishers["a"].put("a", b"1", now_ms + 5_000)
    cluster.settle()
    cluster.nodes["a"].is_paused = True
    retaining.publishers["b"].put("a", b"2")
    cluster.settle()
    cluster.scheduler.advance(6)
    cluster.nodes["a"].is_paused = False
    cluster.settle()
    assert retaining.contents() == [{"a": b"2"}] * 3


def test_one_node_removes_what_has_expired(retaining: RetainingCluster) -> None:
    cluster = retaining.cluster
    now_ms = retaining.publishers["b"].store.now_ms()
    retaining.publishers["b"].put("a", b"1", now_ms + 5_000)
    retaining.publishers["b"].put("b", b"1", now_ms + 50_000)
    cluster.settle()
    before = len(cluster.log)
    cluster.advance(20)
    assert retaining.contents() == [{"b": b"1"}] * 3
    assert len(cluster.log) == before + 1


def test_it_goes_with_its_vhost(retaining: RetainingCluster) -> None:
    cluster, a = retaining.cluster, retaining.cluster.nodes["a"]
    for topic in ("a/b", "$SYS/x", "c"):
        retaining.publishers["b"].put(topic, b"1")
    cluster.settle()
    late = retaining.publishers["c"]
    late.put("a/b", b"late")
    a.ask(lambda: doom(a.catalogue, "/"))
    for _ in range(2):
        cluster.settle()
        for decide in dismantling(a.catalogue, "/"):
            a.metadata.ensure(decide)
    cluster.settle()
    for node in cluster.nodes.values():
        assert (node.catalogue.vhosts, node.catalogue.doomed) == ({}, {})
        assert len(node.metadata.state) == 0
    assert [*late.answers] in (["a/b"], ["a/b: NotFound"])


def test_a_vhost_is_emptied_some_at_a_time() -> None:
    node = LoneNode()
    for number in range(TOPICS_AT_ONCE + 1):
        node.topics.put(f"a/{number}", message(b""))
    removed: list[int] = []
    decide = partial(doom, node.catalogue, "/")
    node.metadata.change(decide, ignore_done, print)
    for each in dismantling(node.catalogue, "/"):
        before = node.topics.count
        node.metadata.ensure(each)
        removed.append(before - node.topics.count)
    assert [count for count in removed if count] == [TOPICS_AT_ONCE, 1]
    assert node.catalogue.doomed == {}
    assert remove_retained(node.catalogue, "/", ["a"]).changes_nothing
