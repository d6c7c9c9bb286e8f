"""Route lookup by a key of any protocol: remembered while it is true, and no longer."""

from __future__ import annotations

import pytest

from fluffle.broker.access.access import Permission, TopicPermission
from fluffle.broker.base.errors import AccessRefused, NotFound
from fluffle.broker.core.login import ask_again
from fluffle.broker.core.property_facts import TRANSIENT
from fluffle.broker.core.route_lookup import KEY_BYTES_MAX, REMEMBERED_MAX, CachedRoute, RouteCache
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.topic_filter import FilterBinding, arguments_of
from fluffle.protocol.steps import Steps
from tests.support.edge import Edge
from tests.support.sessions import session_of


@pytest.fixture
def edge() -> Edge:
    return Edge()


def bind(edge: Edge, queue: str, routing_key: str) -> None:
    """Have a queue get what is published to `amq.topic` under a key."""
    editor = edge.editor.inside("/")
    editor.declare_queue(Declaration(queue))
    editor.bind(Binding("amq.topic", queue, DestinationKind.QUEUE, routing_key))


def found(routes: RouteCache, topic: str, exchange: str = "amq.topic") -> CachedRoute:
    """The route of a topic, which is its own key."""

    def search(routes: RouteCache, key: bytes) -> Steps[CachedRoute]:
        return routes.search(key, exchange, topic, mandatory=False)

    return routes.find(topic.encode(), search)


def search_topic(routes: RouteCache, topic: str) -> CachedRoute:
    """The route of messages that have a topic, remembered under that."""

    def search(routes: RouteCache, key: bytes) -> Steps[CachedRoute]:
        translated = topic.replace("/", ".").replace("+", "*")
        return routes.search(key, "amq.topic", translated, mandatory=False, topic=topic)

    return routes.find(topic.encode(), search)


def subscribe(edge: Edge, queue: str, topic_filter: str, options: int = 1) -> None:
    """Have a queue get the topics that a filter matches."""
    editor = edge.editor.inside("/")
    editor.declare_queue(Declaration(queue))
    arguments = arguments_of(FilterBinding(topic_filter, options))
    key = topic_filter.replace("/", ".").replace("+", "*")
    editor.subscribe(Binding("amq.topic", queue, DestinationKind.QUEUE, key, arguments))


def names(route: CachedRoute) -> list[str]:
    return sorted(target.name for target in route.targets)


def test_a_route_is_remembered_under_its_key(edge: Edge) -> None:
    bind(edge, "q", "a.*")
    routes = session_of(edge).route_cache
    first = found(routes, "a.b")
    assert (names(first), first.misses) == (["q"], False)
    assert found(routes, "a.b") is first
    assert found(routes, "a.c") is not first


def test_without_a_key_it_is_not_remembered(edge: Edge) -> None:
    bind(edge, "q", "a")
    routes = session_of(edge).route_cache
    route = routes.run_at_once(routes.search(None, "amq.topic", "a", mandatory=True))
    assert (names(route), route.mandatory, routes.by_key) == (["q"], True, {})


def test_a_binding_that_comes_counts(edge: Edge) -> None:
    routes = session_of(edge).route_cache
    assert (names(found(routes, "a")), found(routes, "a").misses) == ([], True)
    bind(edge, "q", "a")
    assert names(found(routes, "a")) == ["q"]


def test_rights_are_asked_once_a_route_and_again_when_they_change(edge: Edge) -> None:
    bind(edge, "q", "a")
    session = session_of(edge)
    found(session.route_cache, "a")
    edge.editor.put_permission("guest", "/", Permission(".*", "^q$", ".*"))
    ask_again(session)
    with pytest.raises(AccessRefused):
        found(session.route_cache, "a")
    assert session.route_cache.by_key == {}


def test_no_exchange_has_no_route(edge: Edge) -> None:
    with pytest.raises(NotFound):
        found(session_of(edge).route_cache, "a", exchange="none")


def test_a_bounded_number_is_remembered(edge: Edge) -> None:
    routes = session_of(edge).route_cache
    for number in range(2 * REMEMBERED_MAX):
        found(routes, f"t{number}")
        assert len(routes.by_key) <= REMEMBERED_MAX


LONG = "/".join("level" * 11 for _ in range(5))
"""A topic whose routing key is longer than those of AMQP."""


def test_the_route_of_a_topic_is_remembered_until_somebody_subscribes(edge: Edge) -> None:
    bind(edge, "by key", "a.b")
    subscribe(edge, "exact", "a/b")
    subscribe(edge, "dotted", "a.b")
    routes = session_of(edge).route_cache
    first = search_topic(routes, "a/b")
    assert (names(first), first.misses) == (["by key", "exact"], False)
    assert (first.origin.routing_key, first.topic) == ("a.b", "a/b")
    assert search_topic(routes, "a/b") is first
    subscribe(edge, "later", "+/b")
    assert names(search_topic(routes, "a/b")) == ["by key", "exact", "later"]
    subscribe(edge, "later", "+/b", options=2)
    assert names(search_topic(routes, "a/b")) == ["by key", "exact", "later"]
    edge.editor.inside("/").unsubscribe("amq.topic", "later", "+/b")
    assert names(search_topic(routes, "a/b")) == ["by key", "exact"]
    assert names(search_topic(routes, "a.b")) == ["by key", "dotted"]
    routes.clear()
    assert names(found(routes, "a.b")) == ["by key", "dotted", "exact"]


def test_a_topic_without_a_key_goes_to_filters_alone_and_its_origin_has_a_cut_key(
    edge: Edge,
) -> None:
    bind(edge, "all keys", "#")
    subscribe(edge, "all topics", "#")
    routes = session_of(edge).route_cache
    route = search_topic(routes, LONG)
    assert names(route) == ["all topics"]
    assert route.origin.routing_key == LONG.replace("/", ".")[:255]
    editor = edge.editor.inside("/")
    editor.bind(Binding("amq.topic", "amq.headers", DestinationKind.EXCHANGE, "#"))
    editor.bind(Binding("amq.headers", "all keys", DestinationKind.QUEUE, ""))
    route = search_topic(routes, LONG)
    assert route.needs is not None
    (each,) = routes.run_at_once(routes.lookup_each(route, TRANSIENT, b"\0\0", 3))
    assert [target.name for target in each.targets] == ["all topics"]
    other = search_topic(routes, "a/b")
    (each,) = routes.run_at_once(routes.lookup_each(other, TRANSIENT, b"\0\0", 3))
    assert sorted(target.name for target in each.targets) == ["all keys", "all topics"]


@pytest.mark.parametrize(("pattern", "may"), [("level$", True), ("^.{255}$", False)])
def test_the_whole_key_of_a_topic_needs_the_permission(
    edge: Edge, pattern: str, *, may: bool
) -> None:
    edge.editor.put_topic_permission("guest", "/", "amq.topic", TopicPermission(pattern, ""))
    routes = session_of(edge).route_cache
    route = search_topic(routes, LONG)
    assert route.guards_topics
    if may:
        routes.admit(route)
        return
    with pytest.raises(AccessRefused):
        routes.admit(route)


def test_very_long_topics_are_not_remembered(edge: Edge) -> None:
    routes = session_of(edge).route_cache
    search_topic(routes, "a" * KEY_BYTES_MAX)
    search_topic(routes, "a" * (KEY_BYTES_MAX + 1))
    assert len(routes.by_key) == 1
