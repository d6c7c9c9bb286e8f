"""exchange.*, queue.* and access.request: decoded, given to `core.topology`, and answered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fluffle.broker.core import topology
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.queue_api import QueueCounts, QueueHandle
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.protocol.methods import Access, Exchange, Method, field_table, make
from fluffle.protocol.methods import Queue as Methods

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel


def answer(channel: Channel, reply: Method, *, nowait: bool | None) -> Callable[[], None]:
    """Function that sends `reply` once the method has taken effect."""
    return nothing if nowait else partial(channel.reply, reply)


def nothing() -> None:
    """The client wants no answer."""


def on_exchange_declare(channel: Channel, method: Method) -> None:
    assert isinstance(method, Exchange.Declare)
    name = topology.without_line_breaks(method.exchange)
    done = answer(channel, make(Exchange.DeclareOk), nowait=method.nowait)
    if method.passive:
        topology.check_exchange_exists(channel.session, name)
        done()
        return
    spec = ExchangeSpec(
        name=name,
        type=method.exchange_type,
        durable=method.durable,
        auto_delete=method.auto_delete,
        internal=method.internal,
        arguments=field_table(method.arguments),
    )
    channel.change(method, partial(topology.declare_exchange, channel.session, spec), done)


def on_exchange_delete(channel: Channel, method: Method) -> None:
    assert isinstance(method, Exchange.Delete)
    name, if_unused = topology.without_line_breaks(method.exchange), bool(method.if_unused)
    decide = partial(topology.delete_exchange, channel.session, name, if_unused=if_unused)
    done = answer(channel, make(Exchange.DeleteOk), nowait=method.nowait)
    channel.change(method, decide, done)


def exchange_binding(method: Exchange.Bind | Exchange.Unbind) -> Binding:
    return Binding(
        source=topology.without_line_breaks(method.source),
        destination=topology.without_line_breaks(method.destination),
        destination_kind=DestinationKind.EXCHANGE,
        routing_key=method.routing_key,
        arguments=field_table(method.arguments),
    )


def on_exchange_bind(channel: Channel, method: Method) -> None:
    assert isinstance(method, Exchange.Bind)
    done = answer(channel, make(Exchange.BindOk), nowait=method.nowait)
    bind(channel, method, exchange_binding(method), done)


def on_exchange_unbind(channel: Channel, method: Method) -> None:
    assert isinstance(method, Exchange.Unbind)
    done = answer(channel, make(Exchange.UnbindOk), nowait=method.nowait)
    unbind(channel, method, exchange_binding(method), done)


def bind(channel: Channel, method: Method, binding: Binding, done: Callable[[], None]) -> None:
    request = topology.BindingRequest(channel.session, binding)

    def bound() -> None:
        if request.replay_history():
            channel.recorded()  # what answers the binding vouches for it
        done()

    channel.change(method, request.decide, bound)


def unbind(channel: Channel, method: Method, binding: Binding, done: Callable[[], None]) -> None:
    channel.change(method, partial(topology.unbind, channel.session, binding), done)


def on_queue_declare(channel: Channel, method: Method) -> None:
    assert isinstance(method, Methods.Declare)
    name, session = topology.without_line_breaks(method.queue), channel.session
    if topology.is_reply_target(name):
        declare_reply_target(channel, method, name)
        return
    if method.passive:  # here RabbitMQ does not take the empty name for the last queue
        declared_queue(channel, method, topology.existing_queue(session, name))
        return
    declared = Declaration(
        name=name,
        durable=method.durable,
        exclusive=method.exclusive,
        auto_delete=method.auto_delete,
        arguments=field_table(method.arguments),
    )
    request = topology.QueueDeclaration(session, topology.named(session, declared))

    def done() -> None:
        found = request.found
        if found is not None:
            declared_queue(channel, method, found)
        else:
            answer_declare(channel, method, request.name, QueueCounts(0, 0, 0))

    channel.change(method, request.decide, done)


def declared_queue(channel: Channel, method: Methods.Declare, queue: QueueHandle) -> None:
    """A queue is there: say how it is."""
    channel.last_queue_name = queue.name
    if method.nowait:
        return

    def reply_counts(queue_counts: QueueCounts) -> None:
        topology.check_here(queue)  # that its node is away may have been found out meanwhile
        answer_declare(channel, method, queue.name, queue_counts)

    channel.ask(method, queue.queue_counts_in_use, reply_counts)


def answer_declare(
    channel: Channel, method: Methods.Declare, name: str, queue_counts: QueueCounts
) -> None:
    """Remember the last queue of the channel, and send the client its counts, if wanted."""
    channel.last_queue_name = name
    if method.nowait:
        return
    channel.reply(
        make(
            Methods.DeclareOk,
            queue=name,
            message_count=queue_counts.ready,
            consumer_count=queue_counts.consumers,
        )
    )


def declare_reply_target(channel: Channel, method: Methods.Declare, name: str) -> None:
    """Declaring the name of a requester asks whether it is still there; the bare one always is."""

    def known(is_there: bool) -> None:  # noqa: FBT001 - it is an answer
        if not is_there:
            raise topology.no_queue(channel.session, name)
        answer_declare(channel, method, name, QueueCounts(ready=0, unacked=0, consumers=1))

    channel.ask(method, topology.has_requester(channel.session, name), known)


def queue_binding(channel: Channel, method: Methods.Bind | Methods.Unbind) -> Binding:
    """The binding that is meant; without a queue it is the last one, then also as the key."""
    name = topology.without_line_breaks(method.queue)
    topology.check_no_reply_target(name)
    routing_key = method.routing_key
    if not name:
        name = channel.queue_name(name)
        routing_key = routing_key or name
    return Binding(
        source=topology.without_line_breaks(method.exchange),
        destination=name,
        destination_kind=DestinationKind.QUEUE,
        routing_key=routing_key,
        arguments=field_table(method.arguments),
    )


def on_queue_bind(channel: Channel, method: Method) -> None:
    assert isinstance(method, Methods.Bind)
    done = answer(channel, make(Methods.BindOk), nowait=method.nowait)
    bind(channel, method, queue_binding(channel, method), done)


def on_queue_unbind(channel: Channel, method: Method) -> None:
    assert isinstance(method, Methods.Unbind)
    done = answer(channel, make(Methods.UnbindOk), nowait=False)
    unbind(channel, method, queue_binding(channel, method), done)


def on_queue_purge(channel: Channel, method: Method) -> None:
    assert isinstance(method, Methods.Purge)
    queue = channel.readable_queue(method.queue)

    def purged(count: int) -> None:
        traced()
        if queue.spec.durable:
            channel.recorded()
        if not nowait:
            channel.reply(make(Methods.PurgeOk, message_count=count))

    nowait, count = method.nowait, queue.purge()
    tracer = channel.session.vhost.tracer
    traced = tracer.purging(channel.publisher.traced, queue) if tracer is not None else ignore_done
    channel.ask(method, count, purged)


def on_queue_delete(channel: Channel, method: Method) -> None:
    """Delete a queue.  The answer comes before consumers are cancelled."""
    assert isinstance(method, Methods.Delete)
    request = topology.QueueDeletion(
        channel.session,
        channel.queue_name(topology.without_line_breaks(method.queue)),
        if_unused=bool(method.if_unused),
        if_empty=bool(method.if_empty),
    )

    def done() -> None:
        if request.message_count is not None:
            channel.recorded()  # also if it is not durable: what goes with it may be
        if not method.nowait:
            channel.reply(make(Methods.DeleteOk, message_count=request.message_count or 0))

    def delete(_counts: QueueCounts) -> None:
        channel.change(method, request.decide, done)

    channel.ask(method, request.counts(is_certain=channel.is_certain), delete)


def on_access_request(channel: Channel, method: Method) -> None:
    """Realms are gone from AMQP; RabbitMQ still hands out ticket 1 and reads none."""
    assert isinstance(method, Access.Request)
    channel.reply(Access.RequestOk(ticket=1))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    Exchange.Declare: on_exchange_declare,
    Exchange.Delete: on_exchange_delete,
    Exchange.Bind: on_exchange_bind,
    Exchange.Unbind: on_exchange_unbind,
    Methods.Declare: on_queue_declare,
    Methods.Bind: on_queue_bind,
    Methods.Unbind: on_queue_unbind,
    Methods.Purge: on_queue_purge,
    Methods.Delete: on_queue_delete,
    Access.Request: on_access_request,
}
