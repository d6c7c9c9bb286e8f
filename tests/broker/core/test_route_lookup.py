"""Route lookup by a key of any protocol: remembered while it is true, and no longer."""

from __future__ import annotations

import pytest

from fluffle.broker.access.users import Permission
from fluffle.broker.base.errors import AccessRefused, NotFound
from fluffle.broker.core.admission import ask_again
from fluffle.broker.core.route_lookup import REMEMBERED_MAX, CachedRoute, RouteCache
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.routing.bindings import Binding, DestinationKind
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
