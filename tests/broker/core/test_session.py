"""A session without a socket: what a protocol needs to act for a user in a virtual host."""

from __future__ import annotations

import pytest

from fluffle.broker.access.access import Permission
from fluffle.broker.base.errors import AccessRefused
from fluffle.broker.core import topology
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.login import ask_again
from fluffle.broker.core.publisher import Publisher
from fluffle.broker.core.route_lookup import RoutedBatch
from fluffle.broker.queues import engine
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.support.edge import Edge
from tests.support.sessions import FakeClient, session_of


class FakeOutcomes:
    """A `PublishOutcomes` for one who does not ask."""

    def returned(self, routed: RoutedBatch) -> None: ...

    def report(self, confirms: Confirms) -> None: ...

    def report_later(self, confirms: Confirms) -> None: ...


@pytest.fixture
def edge() -> Edge:
    return Edge()


def test_it_is_named_and_owned_as_its_client_is(edge: Edge) -> None:
    session = session_of(edge)
    assert session.name == FakeClient.name
    assert not edge.services.owners.has_ended(session.owner)


def test_it_changes_definitions_with_the_rights_of_its_user(edge: Edge) -> None:
    session, errors = session_of(edge), list[Exception]()

    def declare(name: str) -> None:
        spec = ExchangeSpec(name, "fanout")
        session.metadata.change(
            lambda: topology.declare_exchange(session, spec), lambda: None, errors.append
        )

    declare("mine")
    assert edge.vhost.topology.find("mine") is not None
    edge.editor.put_permission("guest", "/", Permission("^other$", ".*", ".*"))
    ask_again(session)
    with pytest.raises(AccessRefused):
        topology.declare_exchange(session, ExchangeSpec("another", "fanout"))


def test_its_client_hears_of_a_queue_that_is_behind(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BEHIND_MESSAGES", 0)
    client = FakeClient()
    consumer = edge.connect()
    consumer.declare()
    consumer.consume(prefetch=1)
    publisher = Publisher(session_of(edge, client=client), FakeOutcomes())
    content = build_content(encode_properties(Properties()), b"x")
    for _ in range(3):
        for _stop in publisher.publish_message("", "q", content, mandatory=True, is_certain=True):
            pass
    assert client.behind == [("q", 1)] * 3


def test_what_comes_of_a_queue_is_counted_by_its_type(edge: Edge) -> None:
    session, editor = session_of(edge), edge.editor.inside("/")
    classic = editor.declare_queue(Declaration("q"))
    mailbox = Declaration("mailbox", exclusive=True, mailbox_limit=200)
    assert session.deliveries_from(classic) is session.traffic.from_queues
    at_most_once = editor.declare_queue(mailbox, session.owner)
    assert session.deliveries_from(at_most_once) is session.traffic.from_qos0_queues


def test_who_publishes_or_ends_for_what_is_confirmed_is_confirmed_too(edge: Edge) -> None:
    session, confirmed = session_of(edge), list[str]()

    class Outcomes(FakeOutcomes):
        def __init__(self, name: str) -> None:
            self.name = name
            self.publisher = Publisher(session, self)
            self.publisher.confirm()

        def publish(self) -> None:
            content = build_content(encode_properties(Properties()), b"x")
            steps = self.publisher.publish_message(
                "amq.fanout", "", content, mandatory=False, is_certain=True
            )
            assert len(list(steps)) == 1

        def report(self, confirms: Confirms) -> None:
            if confirms.take().accepted:
                confirmed.append(self.name)
                if self is first:
                    self.publisher.end()
                    second.publish()

    first, second = Outcomes("first"), Outcomes("second")
    first.publish()
    session.confirm()
    assert confirmed == ["first", "second"]
    assert not session.confirming
