"""Changes of exchanges, queues and bindings that clients ask for, whatever their protocol.

What stands here decides: it checks the rights of the user, names and limits, and returns a `Change`
for `Metadata.change`, or raises what is to be answered.  Where something is left to be done or to
be asked once that has come true, the request is an object.  A protocol decodes, calls, and answers.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from fluffle.broker.access.limits import is_reached
from fluffle.broker.base.errors import AccessRefused, NotFound, PreconditionFailed
from fluffle.broker.core.direct_reply_to import PREFIX
from fluffle.broker.core.property_facts import read_expiration
from fluffle.broker.core.session import Session
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import UnconfirmedAbsence
from fluffle.broker.queues.arguments import (
    DEAD_LETTER_EXCHANGE,
    DEFAULT_QUEUE_TYPE,
    Declaration,
    check_server_named,
    with_type,
)
from fluffle.broker.queues.publish_target import EnqueueResult, PartialResult, QueueTarget
from fluffle.broker.queues.queue_api import Deferred, QueueCounts, QueueHandle
from fluffle.broker.routing import changes as topologies
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import (
    RESERVED_PREFIX,
    ExchangeSpec,
    check_bindable,
    check_creatable,
    check_deletable,
    check_not_default,
    check_type,
    declared_alternate,
)
from fluffle.broker.routing.recent_history import HistoryMessage
from fluffle.broker.routing.topic_filter import GROUP_MEMBER, member_of
from fluffle.broker.vhosts import queue_changes as queues
from fluffle.protocol.properties import decode_properties, priority_of, raw_properties
from fluffle.protocol.spec import DIRECT_REPLY_TO

LINE_BREAKS = str.maketrans("", "", "\r\n")


def without_line_breaks(name: str) -> str:
    """The name of an exchange or a queue that is declared, deleted or bound: RabbitMQ takes line
    breaks out of it, but not where it is used."""
    return name.translate(LINE_BREAKS)


# Exchanges


def check_exchange_exists(session: Session, name: str) -> None:
    """Find an exchange for a passive declare.  NotFound, AccessRefused.

    RabbitMQ compares nothing but the name.
    """
    check_not_default(name)
    session.rights.check_any("exchange", name)
    session.vhost.topology.require(name)


def declare_exchange(session: Session, spec: ExchangeSpec) -> Change:
    """Make an exchange, unless the same is there."""
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


def check_exchange_limit(session: Session, name: str) -> None:
    """PreconditionFailed when there can be no more exchanges in all."""
    limit, vhost = session.limits.exchanges_max, session.vhost.name
    if limit is not None and is_reached(
        limit, sum(len(each.topology) for each in session.vhosts.values())
    ):
        raise PreconditionFailed(
            f"cannot declare exchange '{name}' in vhost '{vhost}': exchange limit of {limit} is "
            "reached"
        )


def delete_exchange(session: Session, name: str, *, if_unused: bool) -> Change:
    """Remove an exchange with its bindings, unless it is gone already."""
    check_deletable(name, session.vhost.name)
    session.rights.check("configure", "exchange", name)
    return topologies.delete_exchange(session.vhost.topology, name, if_unused=if_unused)


# Bindings


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


def check_no_reply_target(queue: str) -> None:
    """AccessRefused, as with RabbitMQ 4.3: the pseudo-queues of direct reply-to have no
    bindings."""
    if queue.startswith(PREFIX):
        raise AccessRefused("cannot bind or unbind to a volatile (direct reply-to) queue")


def check_in_no_group(binding: Binding) -> None:
    """PreconditionFailed for a binding that makes a client share a queue: with the last of these
    the queue is deleted, and no right to configure it was asked for."""
    if member_of(binding):
        raise PreconditionFailed(f"argument '{GROUP_MEMBER}' is the broker's own")


class BindingRequest:
    """Request of a client to bind, which gives a new binding what its source has kept."""

    __slots__ = ("_binding", "_is_new", "_session")

    def __init__(self, session: Session, binding: Binding) -> None:
        self._session = session
        self._binding = binding
        self._is_new = False
        """True if it was not there when that was last decided."""

    def decide(self) -> Change:
        """Bind, unless that is so."""
        check_in_no_group(self._binding)
        check_may_bind(self._session, self._binding)
        change = queues.bind(self._session.vhost, self._binding, self._session.owner)
        self._is_new = not change.changes_nothing
        return change

    def replay_history(self) -> bool:
        """Put what the source has kept into the queue of the binding, if that is new, or where the
        exchange leads; whether any of it is safe only once the commit that collects has been done.
        """
        return self._is_new and replay_history(self._session, self._binding)


def unbind(session: Session, binding: Binding) -> Change:
    """Remove a binding, unless it is gone already."""
    check_may_bind(session, binding)
    return queues.unbind(session.vhost, binding, session.owner)


def replay_history(session: Session, binding: Binding) -> bool:
    """Do as `BindingRequest.replay_history` does for a new binding, the oldest message first."""
    vhost, is_recorded = session.vhost, False
    source = vhost.topology.find(binding.source)
    if source is None or source.history is None:
        return False
    if binding.destination_kind is DestinationKind.EXCHANGE:
        for message in source.history:
            for target in pass_on(session, binding.destination, message):
                is_recorded |= put(target, [message])
        return is_recorded
    name = binding.destination
    inlet = vhost.redirects.get(name) or vhost.queues.get(name)
    if inlet is not None:
        for _alike, run in groupby(source.history, key=way_in):
            is_recorded |= put(inlet, list(run))
    return is_recorded


def pass_on(session: Session, exchange: str, message: HistoryMessage) -> tuple[QueueTarget, ...]:
    """Find where an exchange leads a kept message, having kept it there, too."""
    keys = (message.origin.routing_key, *message.more_routing_keys)
    properties = decode_properties(raw_properties(message.content))
    targets, histories, _ = session.vhost.route(exchange, keys, properties)
    for history in histories:
        history.keep(message)
    return targets


def way_in(message: HistoryMessage) -> tuple[bool, int | None, int | None]:
    """Persistence, priority and TTL of a message, which are the same for all that are enqueued
    together."""
    return message.persistent, priority_of(message.content), lifetime_ms(message)


def lifetime_ms(message: HistoryMessage) -> int | None:
    """Read how long it may wait, which begins anew, as with RabbitMQ."""
    text = decode_properties(raw_properties(message.content)).expiration
    return read_expiration(text) if text is not None else None


def put(target: QueueTarget, run: list[HistoryMessage]) -> bool:
    """Put messages with one way in; whether they are recorded.  No caller waits until a queue
    elsewhere has them, as with RabbitMQ."""
    contents = [message.content for message in run]
    answer = target.enqueue(
        [message.origin for message in run],
        contents,
        sum(map(len, contents)),
        persistent=run[0].persistent,
        expiration_ms=lifetime_ms(run[0]),
    )
    taken = answer.accepted if isinstance(answer, PartialResult) else answer
    return taken is EnqueueResult.RECORDED


# Queues


def check_here(queue: QueueHandle) -> None:
    """NotFound while the queue lives on a node that is away."""
    if queue.unreachable_error is not None:
        raise queue.unreachable_error


def readable_queue(session: Session, name: str) -> QueueHandle:
    """The queue of that name that this client may use and read; RabbitMQ asks the right before
    whether it is there.  NotFound, AccessRefused, ResourceLocked."""
    session.rights.check("read", "queue", name)
    queue = session.vhost.queue(name, session.owner)
    check_here(queue)
    return queue


def existing_queue(session: Session, name: str) -> QueueHandle:
    """The queue that a client declares passively.  NotFound, AccessRefused, ResourceLocked."""
    session.rights.check_any("queue", name)
    queue = session.vhost.queue(name, session.owner)
    check_here(queue)
    return queue


def is_reply_target(name: str) -> bool:
    """True if it is a pseudo-queue of direct reply-to, or is called as one."""
    return name == DIRECT_REPLY_TO or name.startswith(PREFIX)


def has_requester(session: Session, name: str) -> bool | Deferred[bool]:
    """True if a requester uses that name of a pseudo-queue; the bare one always exists."""
    return name == DIRECT_REPLY_TO or session.replies.is_alive(name)


def no_queue(session: Session, name: str) -> NotFound:
    """The error that there is no such queue."""
    return NotFound(f"no queue '{name}' in vhost '{session.vhost.name}'")


def named(session: Session, declared: Declaration) -> Declaration:
    """A declaration under a name that may be, generated if it has none, with the default type.

    AccessRefused for a reserved name, PreconditionFailed for a type that gets no name.
    """
    session.vhost.counts.declared += 1
    name = declared.name
    if name.startswith(RESERVED_PREFIX):
        raise AccessRefused(f"queue name '{name}' contains reserved prefix '{RESERVED_PREFIX}*'")
    if not name:
        declared = replace(declared, name=f"amq.gen-{session.random_name()}")
    declared = with_type(declared, session.vhost.metadata.get(DEFAULT_QUEUE_TYPE))
    if not name:
        check_server_named(declared.arguments)
    return declared


class QueueDeclaration:
    """Request of a client to declare a queue."""

    __slots__ = ("_declared", "_is_new", "_session")

    def __init__(self, session: Session, declared: Declaration) -> None:
        """`declared` is as `named` returns it."""
        self._session = session
        self._declared = declared
        self._is_new = False
        """True if it was not there when that was last decided."""

    @property
    def name(self) -> str:
        """The name of the queue, generated if the client gave none."""
        return self._declared.name

    def decide(self) -> Change:
        """Make the queue, unless the same is there."""
        session, declared = self._session, self._declared
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

    @property
    def found(self) -> QueueHandle | None:
        """The queue that was there already, once it is decided, if it still is.

        What is in a new one need not be asked: it may take a while until a node leads it.  Nor in
        one that was deleted while the other nodes heard of it.
        """
        return None if self._is_new else self._session.vhost.queues.get(self.name)


def check_queue_limit(session: Session, name: str) -> None:
    """PreconditionFailed when there can be no more queues in all."""
    limit = session.limits.queues_max
    if limit is not None and is_reached(limit, sum(len(v.queues) for v in session.vhosts.values())):
        raise PreconditionFailed(
            f"cannot declare queue '{name}': queue limit in cluster ({limit}) is reached"
        )


def check_may_dead_letter(session: Session, declared: Declaration) -> None:
    """AccessRefused for who lets the broker move messages as he may not do himself."""
    tag, value = declared.arguments.get(DEAD_LETTER_EXCHANGE, ("V", None))
    if tag == "S" and isinstance(value, bytes):
        session.rights.check("read", "queue", declared.name)
        session.rights.check("write", "exchange", value.decode(errors="surrogateescape"))


class QueueDeletion:
    """Request of a client to delete a queue, perhaps only if it is unused or empty.

    Deleting what does not exist succeeds.
    """

    __slots__ = ("_if_empty", "_if_unused", "_session", "message_count", "name")

    def __init__(self, session: Session, name: str, *, if_unused: bool, if_empty: bool) -> None:
        self._session = session
        self._if_unused = if_unused
        self._if_empty = if_empty
        self.name = name
        self.message_count: int | None = None
        """How many messages went with it, once it is decided; None if there was no queue."""

    def counts(self, *, is_certain: bool) -> QueueCounts | Deferred[QueueCounts]:
        """Find out how many messages and consumers there are, before anything is decided.

        UnconfirmedAbsence if it is not there, unless it `is_certain` that it is nowhere.
        """
        session, name = self._session, self.name
        session.rights.check("configure", "queue", name)
        if name in session.vhost.queues:
            queue = session.vhost.queue(name, session.owner)
            queue.deliver_ready()  # mutant: CO7
            return queue.queue_counts
        if not is_certain:
            raise UnconfirmedAbsence
        return QueueCounts(0, 0, 0)

    def decide(self) -> Change:
        """Remove the queue with its messages and bindings, if it is there."""
        session, name = self._session, self.name
        session.rights.check("configure", "queue", name)
        if name not in session.vhost.queues:
            return NOTHING
        queue = session.vhost.queue(name, session.owner)
        session.vhost.check_deletable(queue, unused=self._if_unused, empty=self._if_empty)
        self.message_count = queue.ready_count
        return queues.delete_queue(session.vhost, queue)
