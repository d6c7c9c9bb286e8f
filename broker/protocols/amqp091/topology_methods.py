"""exchange.*, queue.* and access.request: what exists, and what leads where."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from fluffle.broker.access.limits import is_reached
from fluffle.broker.base.errors import AccessRefused, NotFound, PreconditionFailed
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.metadata.read_barrier import UnconfirmedAbsence
from fluffle.broker.protocols.amqp091.channel import Channel, check_here
from fluffle.broker.protocols.amqp091.direct_reply_to import PREFIX
from fluffle.broker.protocols.amqp091.properties import read_expiration
from fluffle.broker.protocols.amqp091.session import Session
from fluffle.broker.queues.argument_checks import DEAD_LETTER_EXCHANGE
from fluffle.broker.queues.arguments import (
    DEFAULT_QUEUE_TYPE,
    Declaration,
    check_server_named,
    with_type,
)
from fluffle.broker.queues.queue_api import (
    Deferred,
    EnqueueResult,
    PartialResult,
    QueueCounts,
    QueueTarget,
)
from fluffle.broker.routing import changes as topologies
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import (
    ExchangeSpec,
    check_not_default,
    check_type,
    declared_alternate,
)
from fluffle.broker.routing.exchange_rules import (
    RESERVED_PREFIX,
    check_bindable,
    check_creatable,
    check_deletable,
)
from fluffle.broker.routing.recent_history import HistoryMessage
from fluffle.broker.vhosts import queue_changes as queues
from fluffle.protocol.methods import Access, Exchange, Method, field_table, make
from fluffle.protocol.methods import Queue as Methods
from fluffle.protocol.properties import decode_properties, priority_of, raw_properties
from fluffle.protocol.spec import DIRECT_REPLY_TO

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel


def replay_history(channel: Channel, binding: Binding) -> None:
    """Put what the source has kept into the queue of a new binding, or where the exchange leads.

    The oldest first.  What answers the binding then vouches for messages that are recorded.
    """
    vhost = channel.session.vhost
    source = vhost.topology.find(binding.source)
    if source is None or source.history is None:
        return
    if binding.destination_kind is DestinationKind.EXCHANGE:
        for message in source.history:
            for target in pass_on(channel, binding.destination, message):
                put(channel, target, [message])
        return
    name = binding.destination
    inlet = vhost.inlets.get(name) or vhost.queues.get(name)
    if inlet is not None:
        for _alike, run in groupby(source.history, key=way_in):
            put(channel, inlet, list(run))


def pass_on(channel: Channel, exchange: str, message: HistoryMessage) -> tuple[QueueTarget, ...]:
    """Where an exchange leads a kept message, having kept it there, too."""
    keys = (message.origin.routing_key, *message.more_routing_keys)
    properties = decode_properties(raw_properties(message.content))
    targets, histories, _ = channel.session.vhost.route(exchange, keys, properties)
    for history in histories:
        history.keep(message)
    return targets


def way_in(message: HistoryMessage) -> tuple[bool, int | None, int | None]:
    """Whether it is persistent, its priority, and for how long it may wait: what those have in
    common that a queue is given together."""
    return message.persistent, priority_of(message.content), lifetime_ms(message)


def lifetime_ms(message: HistoryMessage) -> int | None:
    """It begins anew, as with RabbitMQ."""
    text = decode_properties(raw_properties(message.content)).expiration
    return read_expiration(text) if text is not None else None


def put(channel: Channel, target: QueueTarget, run: list[HistoryMessage]) -> None:
    """Messages with one way in; nobody waits until a queue elsewhere has them, as with RabbitMQ."""
    contents = [message.content for message in run]
    answer = target.enqueue(
        [message.origin for message in run],
        contents,
        sum(map(len, contents)),
        persistent=run[0].persistent,
        expiration_ms=lifetime_ms(run[0]),
    )
    if (answer.taken if isinstance(answer, PartialResult) else answer) is EnqueueResult.RECORDED:
        channel.recorded()


LINE_BREAKS = str.maketrans("", "", "\r\n")
"""RabbitMQ takes these out of the names of exchanges and queues that are declared, deleted or
bound, but not where they are used."""


def clean(name: str) -> str:
    return name.translate(LINE_BREAKS)


def answer(channel: Channel, reply: Method, *, nowait: bool | None) -> Callable[[], None]:
    """What to do once something has had its effect."""
    return nothing if nowait else partial(channel.reply, reply)


def nothing() -> None:
    """The client wants no answer."""


def on_exchange_declare(channel: Channel, method: Method) -> None:
    assert isinstance(method, Exchange.Declare)
    session = channel.session
    name = clean(method.exchange)
    done = answer(channel, make(Exchange.DeclareOk), nowait=method.nowait)
    if method.passive:  # RabbitMQ compares nothing but the name
        check_not_default(name)
        session.rights.check_any("exchange", name)
        session.vhost.topology.require(name)
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
    channel.change(method, partial(declare_exchange, session, spec), done)


def declare_exchange(session: Session, spec: ExchangeSpec) -> Change:
    check_may_declare_exchange(session, spec)
    return queues.declare_exchange(session.vhost, spec, session.nodes)


def check_may_declare_exchange(session: Session, spec: ExchangeSpec) -> None:
    """Its own right; for a new one with an alternate exchange, also read here and write there."""
    vhost, rights = session.vhost, session.rights
    check_type(spec.type)
    check_not_default(spec.name)
    rights.check("configure", "exchange", spec.name)
    if vhost.topology.find(spec.name) is not None:
        return
    check_creatable(spec, vhost.name)
    check_exchange_limit(session, spec.name)
    alternate = declared_alternate(spec)
    if alternate is not None:
        rights.check("read", "exchange", spec.name)
        rights.check("write", "exchange", alternate)


def on_exchange_delete(channel: Channel, method: Method) -> None:
    assert isinstance(method, Exchange.Delete)
    session, name = channel.session, clean(method.exchange)

    def decide() -> Change:
        check_deletable(name, session.vhost.name)
        session.rights.check("configure", "exchange", name)
        topology = session.vhost.topology
        return topologies.delete_exchange(topology, name, if_unused=method.if_unused)

    done = answer(channel, make(Exchange.DeleteOk), nowait=method.nowait)
    channel.change(method, decide, done)


def exchange_binding(method: Exchange.Bind | Exchange.Unbind) -> Binding:
    return Binding(
        source=clean(method.source),
        destination=clean(method.destination),
        destination_kind=DestinationKind.EXCHANGE,
        routing_key=method.routing_key,
        arguments=field_table(method.arguments),
    )


def check_may_bind(session: Session, binding: Binding) -> None:
    """Write at the destination, read at the source: there, if it is a topic exchange, by key."""
    is_queue = binding.destination_kind is DestinationKind.QUEUE
    rights, source = session.rights, binding.source
    rights.check("write", "queue" if is_queue else "exchange", binding.destination)
    check_bindable(binding)
    rights.check("read", "exchange", source)
    exchange = session.vhost.topology.find(source)
    if exchange is not None and exchange.spec.type == "topic":
        rights.check_topic("read", source, binding.routing_key)


def on_exchange_bind(channel: Channel, method: Method) -> None:
    assert isinstance(method, Exchange.Bind)
    done = answer(channel, make(Exchange.BindOk), nowait=method.nowait)
    bind(channel, method, exchange_binding(method), done)


def on_exchange_unbind(channel: Channel, method: Method) -> None:
    assert isinstance(method, Exchange.Unbind)
    done = answer(channel, make(Exchange.UnbindOk), nowait=method.nowait)
    unbind(channel, method, exchange_binding(method), done)


def bind(channel: Channel, method: Method, binding: Binding, done: Callable[[], None]) -> None:
    session = channel.session
    is_new = False

    def decide() -> Change:
        nonlocal is_new
        check_may_bind(session, binding)
        change = queues.bind(session.vhost, binding, session.owner)
        is_new = not change.changes_nothing
        return change

    def bound() -> None:
        if is_new:
            replay_history(channel, binding)
        done()

    channel.change(method, decide, bound)


def unbind(channel: Channel, method: Method, binding: Binding, done: Callable[[], None]) -> None:
    session = channel.session

    def decide() -> Change:
        check_may_bind(session, binding)
        return queues.unbind(session.vhost, binding, session.owner)

    channel.change(method, decide, done)


def on_queue_declare(channel: Channel, method: Method) -> None:
    assert isinstance(method, Methods.Declare)
    name = clean(method.queue)
    if name == DIRECT_REPLY_TO or name.startswith(PREFIX):
        declare_reply_target(channel, method, name)
        return
    session = channel.session
    if method.passive:  # here RabbitMQ does not take the empty name for the last queue
        session.rights.check_any("queue", name)
        check_here(session.vhost.queue(name, session.owner))
        declared_queue(channel, method, name)
        return
    session.vhost.counts.declared += 1
    wanted = QueueDeclaration(channel, method, declaration(channel, name, method))
    channel.change(method, wanted.decide, wanted.done)


def declaration(channel: Channel, name: str, method: Methods.Declare) -> Declaration:
    """What is asked for, under a generated name if it is given none."""
    if name.startswith(RESERVED_PREFIX):
        raise AccessRefused(f"queue name '{name}' contains reserved prefix '{RESERVED_PREFIX}*'")
    declared = Declaration(
        name=name or f"amq.gen-{channel.session.random_name()}",
        durable=method.durable,
        exclusive=method.exclusive,
        auto_delete=method.auto_delete,
        arguments=field_table(method.arguments),
    )
    default = channel.session.vhost.metadata.get(DEFAULT_QUEUE_TYPE)
    declared = with_type(declared, default)
    if not name:
        check_server_named(declared.arguments)
    return declared


class QueueDeclaration:
    """Request of a client to declare a queue."""

    __slots__ = ("_channel", "_declared", "_is_new", "_method")

    def __init__(self, channel: Channel, method: Methods.Declare, declared: Declaration) -> None:
        self._channel = channel
        self._method = method
        self._declared = declared
        self._is_new = False
        """Whether it was not there when that was last decided."""

    def decide(self) -> Change:
        session, declared = self._channel.session, self._declared
        session.rights.check("configure", "queue", declared.name)
        self._is_new = declared.name not in session.vhost.queues
        if self._is_new:
            check_may_dead_letter(session, declared)
        change = queues.declare_queue(session.vhost, declared, session.owner, session.compare)
        if self._is_new:
            check_queue_limit(session, declared.name)
        else:
            check_here(session.vhost.queues[declared.name])
        return change

    def done(self) -> None:
        """Answer.  What is in a new queue need not be asked: it may take a while until a node leads
        it.  Nor in one that was deleted while the other nodes heard of it."""
        channel, name = self._channel, self._declared.name
        if not self._is_new and name in channel.session.vhost.queues:
            declared_queue(channel, self._method, name)
            return
        channel.last_queue_name = name
        if not self._method.nowait:
            answer_declare(channel, name, QueueCounts(0, 0, 0))


def declared_queue(channel: Channel, method: Methods.Declare, name: str) -> None:
    """A queue is there: say how it is."""
    channel.last_queue_name = name
    if not method.nowait:
        queue = channel.session.vhost.queues[name]

        def told(queue_counts: QueueCounts) -> None:
            check_here(queue)  # that its node is away may have been found out meanwhile
            answer_declare(channel, name, queue_counts)

        channel.ask(method, queue.queue_counts_in_use, told)


def check_queue_limit(session: Session, name: str) -> None:
    """PreconditionFailed when there can be no more queues in all."""
    limit = session.limits.queues_max
    if limit is not None and is_reached(limit, sum(len(v.queues) for v in session.vhosts.values())):
        raise PreconditionFailed(
            f"cannot declare queue '{name}': queue limit in cluster ({limit}) is reached"
        )


def check_exchange_limit(session: Session, name: str) -> None:
    """The same of exchanges."""
    limit, vhost = session.limits.exchanges_max, session.vhost.name
    if limit is not None and is_reached(
        limit, sum(len(each.topology) for each in session.vhosts.values())
    ):
        raise PreconditionFailed(
            f"cannot declare exchange '{name}' in vhost '{vhost}': exchange limit of {limit} is "
            "reached"
        )


def check_may_dead_letter(session: Session, declared: Declaration) -> None:
    """Who lets the broker move messages out of a queue must be allowed to do so himself."""
    tag, value = declared.arguments.get(DEAD_LETTER_EXCHANGE, ("V", None))
    if tag == "S" and isinstance(value, bytes):
        session.rights.check("read", "queue", declared.name)
        session.rights.check("write", "exchange", value.decode(errors="surrogateescape"))


def answer_declare(channel: Channel, name: str, queue_counts: QueueCounts) -> None:
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
            raise NotFound(f"no queue '{name}' in vhost '{channel.session.vhost.name}'")
        channel.last_queue_name = name
        if not method.nowait:
            answer_declare(channel, name, QueueCounts(ready=0, unacked=0, consumers=1))

    is_bare = name == DIRECT_REPLY_TO
    channel.ask(method, is_bare or channel.session.replies.is_alive(name), known)


def queue_binding(channel: Channel, method: Methods.Bind | Methods.Unbind) -> Binding:
    """The binding that is meant; without a queue it is the last one, then also as the key."""
    name = clean(method.queue)
    refuse_volatile(name)
    routing_key = method.routing_key
    if not name:
        name = channel.queue_name(name)
        routing_key = routing_key or name
    return Binding(
        source=clean(method.exchange),
        destination=name,
        destination_kind=DestinationKind.QUEUE,
        routing_key=routing_key,
        arguments=field_table(method.arguments),
    )


def refuse_volatile(name: str) -> None:
    """RabbitMQ 4.3: the pseudo-queues of direct reply-to have no bindings."""
    if name.startswith(PREFIX):
        raise AccessRefused("cannot bind or unbind to a volatile (direct reply-to) queue")


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
    traced = tracer.purging(channel, queue) if tracer is not None else ignore_done
    channel.ask(method, count, purged)


def on_queue_delete(channel: Channel, method: Method) -> None:
    """Deleting what does not exist succeeds.  The answer comes before consumers are cancelled."""
    assert isinstance(method, Methods.Delete)
    session = channel.session
    name = channel.queue_name(clean(method.queue))
    session.rights.check("configure", "queue", name)
    if name not in session.vhost.queues and not channel.is_certain:
        raise UnconfirmedAbsence
    queue_counts: QueueCounts | Deferred[QueueCounts] = QueueCounts(0, 0, 0)
    if name in session.vhost.queues:
        queue = channel.queue(name)
        queue.deliver_ready()  # mutant: CO7
        queue_counts = queue.queue_counts
    channel.ask(method, queue_counts, partial(delete_queue, channel, method, name))


def delete_queue(channel: Channel, method: Methods.Delete, name: str, _tally: QueueCounts) -> None:
    """Once it is known here how many messages and consumers there are."""
    session = channel.session
    count: int | None = None

    def decide() -> Change:
        nonlocal count
        session.rights.check("configure", "queue", name)
        if name not in session.vhost.queues:
            return NOTHING
        queue = channel.queue(name)
        session.vhost.check_deletable(queue, unused=method.if_unused, empty=method.if_empty)
        count = queue.ready_count
        return queues.delete_queue(session.vhost, queue)

    def done() -> None:
        if count is not None:
            channel.recorded()  # also if it is not durable: what goes with it may be
        if not method.nowait:
            channel.reply(make(Methods.DeleteOk, message_count=count or 0))

    channel.change(method, decide, done)


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
