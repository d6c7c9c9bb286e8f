"""Publisher: messages and their outcomes, for a session of no protocol."""

from __future__ import annotations

import gc

import pytest

from fluffle.broker.access.access import User
from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.errors import BrokerError, NotFound, PreconditionFailed
from fluffle.broker.core.confirms import Confirms, KnownOutcomes
from fluffle.broker.core.property_facts import read_facts
from fluffle.broker.core.publisher import TARGETS_AT_ONCE, MessageBatch, Publisher
from fluffle.broker.core.route_lookup import CachedRoute, RoutedBatch
from fluffle.broker.metadata.metadata import UnconfirmedAbsence
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.topic_filter import FilterBinding, arguments_of
from fluffle.protocol.properties import Properties, build_content, encode_properties
from fluffle.protocol.steps import whole
from fluffle.protocol.wire import FieldTable, to_table
from tests.support.edge import Edge
from tests.support.sessions import session_of


class Outcomes:
    """A `PublishOutcomes` that keeps what it hears."""

    def __init__(self) -> None:
        self.returned_keys: list[str] = []
        self.known: list[KnownOutcomes] = []

    def returned(self, routed: RoutedBatch) -> None:
        self.returned_keys += [origin.routing_key for origin in routed.origins]

    def report(self, confirms: Confirms) -> None:
        self.known.append(confirms.take())

    def report_later(self, confirms: Confirms) -> None:
        self.report(confirms)


class Request:
    """A request that publishes one message: its session, publisher and outcomes."""

    def __init__(self, edge: Edge, user: User | None = None) -> None:
        self.session = session_of(edge, user)
        self.outcomes = Outcomes()
        self.publisher = Publisher(self.session, self.outcomes)
        self.publisher.confirm()

    def publish(
        self,
        routing_key: str,
        body: bytes = b"x",
        *,
        exchange: str = "",
        properties: Properties | None = None,
        is_certain: bool = True,
    ) -> int:
        """Publish a message; how often others had their turn meanwhile."""
        content = build_content(encode_properties(properties or Properties()), body)
        steps = self.publisher.publish_message(
            exchange, routing_key, content, mandatory=True, is_certain=is_certain
        )
        stops = sum(1 for _ in steps)
        self.session.confirm()
        return stops


def declare(
    edge: Edge, name: str, arguments: FieldTable = EMPTY_DICT, *, durable: bool = False
) -> None:
    declared = Declaration(name, durable=durable, arguments=arguments)
    edge.editor.inside("/").declare_queue(declared)


def ready(edge: Edge, name: str) -> int:
    return edge.vhost.queues[name].ready_count


def test_a_message_is_put_into_its_queue_and_accepted() -> None:
    edge = Edge()
    declare(edge, "q")
    request = Request(edge)
    request.publish("q")
    assert ready(edge, "q") == 1
    assert request.outcomes.known == [([(1, 1)], [], 2)]
    assert request.outcomes.returned_keys == []


def test_a_message_that_leads_nowhere_is_returned_and_accepted() -> None:
    request = Request(Edge())
    request.publish("nowhere")
    assert request.outcomes.returned_keys == ["nowhere"]
    assert request.outcomes.known == [([(1, 1)], [], 2)]


def test_a_lasting_message_is_accepted_once_it_is_safe() -> None:
    edge = Edge()
    declare(edge, "q", durable=True)
    request = Request(edge)
    request.publish("q", properties=Properties(delivery_mode=2))
    assert request.outcomes.known == []
    edge.run()
    assert request.outcomes.known == [([(1, 1)], [], 2)]


def test_a_message_that_a_queue_refuses_is_refused() -> None:
    edge = Edge()
    declare(edge, "q", to_table({"x-max-length": 0, "x-overflow": "reject-publish"}))
    request = Request(edge)
    request.publish("q")
    assert request.outcomes.known == [([], [(1, 1)], 2)]
    assert ready(edge, "q") == 0


def test_a_publisher_that_has_ended_hears_nothing_more() -> None:
    edge = Edge()
    declare(edge, "q", durable=True)
    request = Request(edge)
    request.publish("q", properties=Properties(delivery_mode=2))
    request.publisher.end()
    edge.run()
    assert request.outcomes.known == []
    traffic = request.session.traffic
    assert (traffic.received_confirm, traffic.confirmed) == (1, 0)
    assert ready(edge, "q") == 1


def test_what_is_refused_is_raised_and_nothing_is_published() -> None:
    edge = Edge()
    declare(edge, "q")
    request = Request(edge)
    refusals: list[type[BrokerError]] = []
    for exchange, properties in (
        ("none", Properties()),
        ("", Properties(expiration="soon")),
        ("", Properties(user_id="alice")),
        ("", Properties(reply_to="amq.rabbitmq.reply-to")),
    ):
        with pytest.raises(BrokerError) as raised:
            request.publish("q", exchange=exchange, properties=properties)
        refusals.append(raised.type)
    assert refusals == [NotFound, *[PreconditionFailed] * 3]
    assert (ready(edge, "q"), request.outcomes.known) == (0, [])


def test_who_is_not_certain_is_not_notified_that_a_message_leads_nowhere() -> None:
    request = Request(Edge())
    with pytest.raises(UnconfirmedAbsence):
        request.publish("nowhere", is_certain=False)
    assert (request.outcomes.returned_keys, request.outcomes.known) == ([], [])


def test_a_message_for_very_many_queues_is_published_in_steps() -> None:
    edge = Edge()
    count = 2 * TARGETS_AT_ONCE
    editor = edge.editor.inside("/")
    for number in range(count):
        declare(edge, f"q{number}")
        editor.bind(Binding("amq.fanout", f"q{number}", DestinationKind.QUEUE, ""))
    request = Request(edge)
    assert request.publish("", exchange="amq.fanout") >= 2
    assert sum(ready(edge, f"q{number}") for number in range(count)) == count
    assert request.outcomes.known == [([(1, 1)], [], 2)]


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "forgotten"])
def test_a_message_that_is_in_some_of_its_queues_gets_into_all(is_closed: bool) -> None:
    """Even if whoever publishes it does not go on."""
    edge = Edge()
    count = 2 * TARGETS_AT_ONCE
    editor = edge.editor.inside("/")
    for number in range(count):
        declare(edge, f"q{number}")
        editor.bind(Binding("amq.fanout", f"q{number}", DestinationKind.QUEUE, ""))
    request = Request(edge)
    content = build_content(encode_properties(Properties()), b"x")
    steps = request.publisher.publish_message(
        "amq.fanout", "", content, mandatory=True, is_certain=True
    )
    next(steps)
    if is_closed:
        steps.close()
    else:
        del steps
        gc.collect()
    edge.run()
    assert sum(ready(edge, f"q{number}") for number in range(count)) == count
    request.publisher.end()


def routes_of(publisher: Publisher, *topics: str) -> dict[bytes, CachedRoute]:
    """The routes of topics to `amq.topic`, each under its own bytes."""
    routes = publisher.session.route_cache
    return {
        topic.encode(): routes.run_at_once(
            routes.search(topic.encode(), "amq.topic", topic, mandatory=False)
        )
        for topic in topics
    }


def batch_of(*bodies: bytes) -> MessageBatch:
    raw = encode_properties(Properties())
    contents = [build_content(raw, body) for body in bodies]
    return MessageBatch(contents, sum(map(len, contents)), raw)


def declare_bound(edge: Edge, *topics: str) -> None:
    """A queue for each topic, of the same name."""
    for topic in topics:
        declare(edge, topic)
        edge.editor.inside("/").bind(Binding("amq.topic", topic, DestinationKind.QUEUE, topic))


def test_a_batch_of_one_topic_is_published_together() -> None:
    edge = Edge()
    declare_bound(edge, "a")
    request = Request(edge)
    (route,) = routes_of(request.publisher, "a").values()
    batch = batch_of(b"1", b"2", b"3")
    request.publisher.publish_batch(route, read_facts(batch.outline), batch, None, is_certain=True)
    request.session.confirm()
    assert ready(edge, "a") == 3
    assert request.outcomes.known == [([(1, 3)], [], 4)]


class AnnotationsEnqueued:
    """An observer that keeps the annotations of what a publisher puts into queues."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def enqueued(self, routed: RoutedBatch) -> None:
        self.seen += [origin.annotations for origin in routed.origins]


def test_annotations_of_a_run_count_for_those_of_its_route() -> None:
    edge = Edge()
    declare_bound(edge, "a")
    publisher = Request(edge).publisher
    publisher.observer = observer = AnnotationsEnqueued()
    routes = publisher.session.route_cache
    search = routes.search(b"a", "amq.topic", "a", mandatory=False, annotations=b"route")
    route = routes.run_at_once(search)
    batch = batch_of(b"1")
    for octets in (b"", b"run"):
        publisher.publish_batch(
            route, read_facts(batch.outline), batch, None, is_certain=True, annotations=octets
        )
    steps = publisher.publish_batch_in_steps(
        route, read_facts(batch.outline), batch, None, is_certain=True, annotations=b"run"
    )
    assert list(steps) == [None]
    assert observer.seen == [b"route", b"run", b"run"]
    assert ready(edge, "a") == 3


def test_one_message_may_have_a_topic_and_annotations() -> None:
    edge = Edge()
    for queue, topic_filter in (("exact", "a/b"), ("dotted", "a.b")):
        declare(edge, queue)
        arguments = arguments_of(FilterBinding(topic_filter))
        edge.editor.inside("/").subscribe(
            Binding("amq.topic", queue, DestinationKind.QUEUE, "a.b", arguments)
        )
    publisher = Request(edge).publisher
    publisher.observer = observer = AnnotationsEnqueued()
    content = build_content(encode_properties(Properties()), b"x")
    whole(
        publisher.publish_message(
            "amq.topic",
            "a.b",
            content,
            mandatory=False,
            is_certain=True,
            topic="a/b",
            annotations=b"octets",
        )
    )
    assert (ready(edge, "exact"), ready(edge, "dotted")) == (1, 0)
    assert observer.seen == [b"octets"]


def test_a_batch_of_mixed_topics_is_sorted_by_queues() -> None:
    edge = Edge()
    declare_bound(edge, "a", "b")
    publisher = Request(edge).publisher
    routes, batch = routes_of(publisher, "a", "b", "nowhere"), batch_of(b"1", b"2", b"3", b"4")
    keys = [b"a", b"b", b"nowhere", b"a"]
    facts = read_facts(batch.outline)
    assert publisher.publish_mixed(keys, routes, facts, batch, None) == 5
    assert (ready(edge, "a"), ready(edge, "b")) == (2, 1)


def test_topics_that_share_a_queue_are_not_published_together() -> None:
    """Together, their messages would not stay in order."""
    edge = Edge()
    declare_bound(edge, "a", "b")
    edge.editor.inside("/").bind(Binding("amq.topic", "a", DestinationKind.QUEUE, "b"))
    publisher = Request(edge).publisher
    routes, batch = routes_of(publisher, "a", "b"), batch_of(b"1", b"2")
    facts = read_facts(batch.outline)
    assert publisher.publish_mixed([b"a", b"b"], routes, facts, batch, None) is None
    assert (ready(edge, "a"), ready(edge, "b")) == (0, 0)
