"""Declarations and bindings for a session that has no channel."""

from __future__ import annotations

from functools import partial
from unittest.mock import Mock

import pytest

from fluffle.broker.access.access import Permission, TopicPermission
from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    NotFound,
    PreconditionFailed,
    ResourceLocked,
)
from fluffle.broker.base.message import Origin
from fluffle.broker.config.config import Limits
from fluffle.broker.core import topology
from fluffle.broker.core.login import ask_again
from fluffle.broker.core.session import Session
from fluffle.broker.metadata.change import NOTHING
from fluffle.broker.metadata.metadata import Decide, UnconfirmedAbsence, ignore_done, never
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.queue_api import Holder, QueueCounts
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.recent_history import HistoryMessage
from fluffle.protocol.properties import Properties, build_content, encode_properties
from fluffle.protocol.wire import FieldTable
from tests.support.edge import Edge
from tests.support.sessions import session_of

QUEUE, EXCHANGE = DestinationKind.QUEUE, DestinationKind.EXCHANGE


class Node:
    """A node, and the session of alice, who has no channel."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.edge = Edge(limits)
        self.session = self.log_in("alice")

    def log_in(self, user: str = "guest") -> Session:
        return session_of(self.edge, self.edge.access.users[user])

    def allow(self, configure: str = "", write: str = "", read: str = "") -> None:
        """Set alice's permissions from now on."""
        self.edge.editor.put_permission("alice", "/", Permission(configure, write, read))
        ask_again(self.session)

    def change(self, decide: Decide) -> None:
        self.session.metadata.change(decide, ignore_done, never)

    def declare_exchange(
        self, name: str, kind: str = "direct", arguments: FieldTable | None = None
    ) -> None:
        spec = ExchangeSpec(name, kind, arguments=arguments or {})
        self.change(partial(topology.declare_exchange, self.session, spec))

    def declare(
        self, name: str = "q", *, durable: bool = False, exclusive: bool = False
    ) -> topology.QueueDeclaration:
        declared = Declaration(name, durable=durable, exclusive=exclusive)
        request = topology.QueueDeclaration(self.session, topology.named(self.session, declared))
        self.change(request.decide)
        return request

    def bind(self, source: str, destination: str, kind: DestinationKind = QUEUE) -> bool:
        """True if anything was put into the queue that a commit has to make safe."""
        binding = Binding(source, destination, kind, "k")
        request = topology.BindingRequest(self.session, binding)
        self.change(request.decide)
        return request.replay_history()

    def keep(self, exchange: str, *bodies: bytes, persistent: bool = False) -> None:
        """Messages come to an exchange that keeps them."""
        source = self.session.vhost.topology.find(exchange)
        assert source is not None
        assert source.history is not None
        for body in bodies:
            content = build_content(encode_properties(Properties()), body)
            source.history.keep(HistoryMessage(Origin(exchange, "k"), content, (), persistent))

    def ready_count(self, queue: str = "q") -> int:
        return self.session.vhost.queues[queue].ready_count


@pytest.fixture
def node() -> Node:
    return Node()


# Exchanges


def test_an_exchange_is_made_once(node: Node) -> None:
    node.declare_exchange("x", "topic")
    spec = ExchangeSpec("x", "topic")
    assert topology.declare_exchange(node.session, spec) == NOTHING
    topology.check_exchange_exists(node.session, "x")
    with pytest.raises(NotFound, match="no exchange 'y' in vhost '/'"):
        topology.check_exchange_exists(node.session, "y")


def test_an_exchange_is_deleted_unless_it_is_used(node: Node) -> None:
    node.declare_exchange("x")
    node.declare()
    node.bind("x", "q")
    decide = partial(topology.delete_exchange, node.session, "x")
    with pytest.raises(PreconditionFailed, match="exchange 'x' in vhost '/' in use"):
        decide(if_unused=True)
    node.change(partial(decide, if_unused=False))
    assert node.session.vhost.topology.find("x") is None
    assert decide(if_unused=False) == NOTHING


@pytest.mark.parametrize(
    ("permission", "refused"),
    [
        (Permission("", ".*", ".*"), "configure access to exchange 'x'"),
        (Permission(".*", ".*", ""), "read access to exchange 'x'"),
        (Permission(".*", "", ".*"), "write access to exchange 'y'"),
    ],
)
def test_an_alternate_exchange_takes_three_rights(
    node: Node, permission: Permission, refused: str
) -> None:
    node.allow(permission.configure, permission.write, permission.read)
    with pytest.raises(AccessRefused, match=refused):
        node.declare_exchange("x", arguments={"alternate-exchange": ("S", b"y")})


def test_there_are_no_more_exchanges_than_there_may_be() -> None:
    node = Node(Limits(exchanges_max=1))
    with pytest.raises(PreconditionFailed, match="exchange limit of 1 is reached"):
        node.declare_exchange("x")


@pytest.mark.parametrize("name", ["", "amq.direct"])
def test_exchanges_of_the_broker_stay(node: Node, name: str) -> None:
    with pytest.raises(AccessRefused):
        topology.delete_exchange(node.session, name, if_unused=False)


# Queues


def test_a_queue_is_made_and_found_again(node: Node) -> None:
    assert node.declare().found is None  # what is in a new one need not be asked
    assert node.declare().found is node.session.vhost.queues["q"]
    assert topology.existing_queue(node.session, "q") is node.session.vhost.queues["q"]
    assert topology.readable_queue(node.session, "q") is node.session.vhost.queues["q"]


def test_a_queue_without_a_name_is_given_one(node: Node) -> None:
    assert {node.declare("").name, node.declare("").name} == node.session.vhost.queues.keys()
    with pytest.raises(AccessRefused, match=r"queue name 'amq\.mine' contains reserved prefix"):
        node.declare("amq.mine")
    assert node.session.vhost.counts.declared == 3


def test_only_its_session_may_use_an_exclusive_queue(node: Node) -> None:
    node.declare(exclusive=True)
    other = node.log_in()
    for ask in (
        partial(topology.existing_queue, other, "q"),
        partial(topology.readable_queue, other, "q"),
        topology.QueueDeclaration(other, Declaration("q", exclusive=True)).decide,
        deletion(other).decide,
        topology.BindingRequest(other, Binding("amq.topic", "q", QUEUE, "")).decide,
    ):
        with pytest.raises(ResourceLocked):
            ask()


def deletion(
    session: Session, *, if_unused: bool = False, if_empty: bool = False
) -> topology.QueueDeletion:
    return topology.QueueDeletion(session, "q", if_unused=if_unused, if_empty=if_empty)


def test_who_dead_letters_must_be_allowed_to_do_so_himself(node: Node) -> None:
    declared = Declaration("q", arguments={"x-dead-letter-exchange": ("S", b"dead")})
    request = topology.QueueDeclaration(node.session, declared)
    node.allow(configure="q", write="dead")
    with pytest.raises(AccessRefused, match="read access to queue 'q'"):
        request.decide()
    node.allow(configure="q", read="q")
    with pytest.raises(AccessRefused, match="write access to exchange 'dead'"):
        request.decide()
    node.allow(configure="q", write="dead", read="q")
    node.change(request.decide)
    node.allow(configure="q")
    assert request.decide() == NOTHING  # it is there


def test_there_are_no_more_queues_than_there_may_be() -> None:
    node = Node(Limits(queues_max=1))
    node.declare()
    node.declare()
    with pytest.raises(PreconditionFailed, match=r"queue limit in cluster \(1\) is reached"):
        node.declare("r")


def test_a_queue_is_deleted_with_its_messages(node: Node) -> None:
    node.declare_exchange("x", "x-recent-history")
    node.keep("x", b"1", b"2")
    node.declare()
    node.bind("x", "q")
    with pytest.raises(PreconditionFailed, match="queue 'q' in vhost '/' not empty"):
        deletion(node.session, if_empty=True).decide()
    request = deletion(node.session, if_unused=True)
    assert request.counts(is_certain=True) == QueueCounts(ready=2, unacked=0, consumers=0)
    node.change(request.decide)
    assert request.message_count == 2
    assert "q" not in node.session.vhost.queues


def test_deleting_what_is_not_there_succeeds_if_that_is_certain(node: Node) -> None:
    request = deletion(node.session)
    with pytest.raises(UnconfirmedAbsence):
        request.counts(is_certain=False)
    assert request.counts(is_certain=True) == QueueCounts(0, 0, 0)
    assert request.decide() == NOTHING
    assert request.message_count is None


def test_rights_are_asked_before_a_queue_is_looked_for(node: Node) -> None:
    node.allow()
    for ask in (
        partial(topology.existing_queue, node.session, "q"),
        partial(topology.readable_queue, node.session, "q"),
        partial(deletion(node.session).counts, is_certain=False),
        deletion(node.session).decide,
        partial(node.declare, "q"),
    ):
        with pytest.raises(AccessRefused):
            ask()


# Bindings


def test_who_binds_reads_there_and_writes_here(node: Node) -> None:
    binding = Binding("amq.topic", "q", QUEUE, "k")
    node.declare()
    for decide in (
        topology.BindingRequest(node.session, binding).decide,
        partial(topology.unbind, node.session, binding),
    ):
        node.allow(read="amq.topic")
        with pytest.raises(AccessRefused, match="write access to queue 'q'"):
            decide()
        node.allow(write="q")
        with pytest.raises(AccessRefused, match=r"read access to exchange 'amq\.topic'"):
            decide()
        node.allow(write="q", read="amq.topic")
        node.change(decide)
    key = TopicPermission("", "^other$")
    node.edge.editor.put_topic_permission("alice", "/", "amq.topic", key)
    with pytest.raises(AccessRefused, match=r"read access to topic 'k' in exchange 'amq\.topic'"):
        topology.unbind(node.session, binding)


def test_a_missing_source_is_said_first(node: Node) -> None:
    for source, destination, missing in (
        ("no", "neither", "no exchange 'no'"),
        ("amq.topic", "neither", "no queue 'neither'"),
    ):
        with pytest.raises(NotFound, match=missing):
            node.bind(source, destination)


def test_a_pseudo_queue_has_no_bindings() -> None:
    topology.check_no_reply_target("q")
    with pytest.raises(AccessRefused, match="volatile"):
        topology.check_no_reply_target("amq.rabbitmq.reply-to.1")


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_new_binding_gets_what_its_source_has_kept(node: Node, is_durable: bool) -> None:
    node.declare_exchange("x", "x-recent-history")
    node.keep("x", b"1", b"2", persistent=True)
    node.declare(durable=is_durable)
    assert node.bind("x", "q") is is_durable  # then a commit has to make them safe
    assert node.ready_count() == 2
    assert not node.bind("x", "q")
    assert node.ready_count() == 2  # it is not new any more


def test_what_is_kept_goes_on_through_an_exchange_that_is_bound(node: Node) -> None:
    node.declare_exchange("x", "x-recent-history")
    node.keep("x", b"1", b"2")
    node.declare()
    node.bind("amq.fanout", "q")
    node.bind("x", "amq.fanout", EXCHANGE)
    assert node.ready_count() == 2


# Direct reply-to


def test_the_bare_pseudo_queue_is_always_there(node: Node) -> None:
    name = "amq.rabbitmq.reply-to"
    assert topology.is_reply_target(name)
    assert topology.has_requester(node.session, name)


def test_a_pseudo_queue_is_there_as_long_as_somebody_asks(node: Node) -> None:
    session, name = node.session, "amq.rabbitmq.reply-to.1"
    assert topology.is_reply_target(name)
    assert not topology.is_reply_target("amq.rabbitmq.reply-tone")
    assert not topology.has_requester(session, name)
    session.replies.add(name, Mock(Holder), session.inbox)
    assert topology.has_requester(session, name)
    error: BrokerError = topology.no_queue(session, name)
    assert error.explanation == f"no queue '{name}' in vhost '/'"
