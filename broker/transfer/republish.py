"""Publishing by the broker itself: of messages that were in a queue, and of its own.

One that was in a queue has died there, and says so from now on; or it has waited there for its
time, and that was all.  Its own are copies of messages, and events (`publish_own`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.queues.conversion_buffer import ConversionBuffer
from fluffle.broker.queues.dead_letters import PendingDeadLetter
from fluffle.broker.queues.publish_target import PublishTarget, QueueTarget
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.routing.recent_history import HistoryMessage, MessageHistory
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.headers import (
    Death,
    DeathReason,
    died,
    is_cycle,
    long_strings,
    queues_of,
    waited,
    without_bcc,
)
from fluffle.protocol.properties import (
    DELIVERY_MODE_PERSISTENT,
    Properties,
    build_content,
    decode_properties,
    encode_properties,
    is_persistent,
)
from fluffle.protocol.wire import cut_to_shortstr


def identity_of(target: QueueTarget) -> object:
    """Return what no other queue has, of the same name neither; on a single node that is the queue
    itself."""
    queue = target.queue if isinstance(target, ConversionBuffer) else target
    return queue.definition.id or queue


def successions_of(
    successor: object, predecessors: Mapping[object, object]
) -> list[tuple[object, object]]:
    """Yield the successions until a queue had this place, from the first on: those between may
    never have been tried."""
    line: list[tuple[object, object]] = []
    while (older := predecessors.get(successor)) is not None:
        line.insert(0, (successor, older))
        successor = older
    return line


def current_queue(vhost: VirtualHost, target: QueueTarget) -> QueueTarget | None:
    """Return where messages for this queue go by now: it may be held, or have become another.  None
    if it is gone."""
    queue, now = vhost.queues.get(target.name), vhost.redirects.get(target.name)
    if queue is None:
        return None
    if now is target:
        return target
    known, wanted = identity_of(queue), identity_of(target)
    while known is not None and known != wanted:
        known = vhost.predecessors.get(known)
    return None if known is None else now or queue


class Destination(NamedTuple):
    """Where messages go together."""

    targets: tuple[QueueTarget, ...]
    persistent: bool
    expiration_ms: int | None


class RepublishedMessage(NamedTuple):
    """Message to be republished, for all that have one origin and the same properties."""

    origin: Origin
    raw: bytes
    targets: tuple[QueueTarget, ...]
    persistent: bool
    cycles: tuple[tuple[str, ...], ...]
    """Round which queues it would go, once for each that does not get it."""
    more_routing_keys: tuple[str, ...]
    histories: tuple[MessageHistory, ...]
    """Histories that keep it."""
    expiration_ms: int | None = None
    """Remaining TTL in ms, if its publisher gave one."""
    pending: PendingDeadLetter | None = None

    def keep(self, content: bytes) -> None:
        """Have exchanges on its way keep one of the messages."""
        message = HistoryMessage(self.origin, content, self.more_routing_keys, self.persistent)
        for history in self.histories:
            history.keep(message)

    def sent_as(
        self, pending: PendingDeadLetter | None, predecessors: Mapping[object, object]
    ) -> RepublishedMessage:
        """Return the message with the targets that the pending one has not reached; `predecessors`
        as in `VirtualHost`."""
        if pending is None:
            return self
        for successor in predecessors.keys() & set(map(identity_of, self.targets)):
            for younger, older in successions_of(successor, predecessors):
                pending.succeed(younger, older)
        lacking = pending.lead(map(identity_of, self.targets))
        targets = tuple(target for target in self.targets if identity_of(target) in lacking)
        return self._replace(targets=targets, pending=pending)

    @property
    def way(self) -> Destination:
        """Key that messages have in common which are published together."""
        return Destination(self.targets, self.persistent, self.expiration_ms)


class DeathHeaders(NamedTuple):
    """Writes into headers how messages have died that did so together."""

    vhost: VirtualHost
    queue: str
    settings: QueueSettings
    reason: DeathReason
    time_s: int

    def write(self, origin: Origin, raw: bytes) -> RepublishedMessage:
        settings = self.settings
        exchange, own_key = settings.dead_letter_exchange, settings.dead_letter_routing_key
        assert exchange is not None
        keys = all_keys(origin, raw)
        seen = shown_keys(keys, origin.blind_keys)
        death = Death(self.queue, self.reason, self.time_s, origin.exchange, seen)
        raw, deaths = died(raw, death, again=origin.past is not MessageAnnotations.NONE)
        past = max(origin.past, MessageAnnotations.DIED)
        if own_key is not None:
            keys, past = (cut_to_shortstr(own_key),), MessageAnnotations.REDIRECTED
        targets, histories, _ = self.vhost.route(exchange, keys, decode_properties(raw))
        cycles: tuple[tuple[str, ...], ...] = ()
        if self.reason is not DeathReason.REJECTED:
            ended = [target for target in targets if is_cycle(deaths, target.name)]
            targets = tuple(target for target in targets if target not in ended)
            cycles = tuple((target.name, *queues_of(deaths)) for target in ended)
        new_origin = self.vhost.origin(
            exchange, keys[0], past, origin.blind_keys, origin.annotations
        )
        return RepublishedMessage(
            new_origin, raw, targets, is_persistent(raw), cycles, keys[1:], histories
        )


class DelayedMessages(NamedTuple):
    """Sends on what has waited in the delayed queue of an exchange, as if it came to that now."""

    vhost: VirtualHost
    exchange: str

    def write(self, origin: Origin, raw: bytes) -> RepublishedMessage:
        keys, properties = all_keys(origin, raw), decode_properties(raw)
        if "BCC" in (properties.headers or {}):
            keys = routing_keys(origin, raw) + blind_keys(properties)
            raw = without_bcc(properties)
        raw = waited(raw)
        properties = decode_properties(raw)
        targets, histories, _ = self.vhost.route(self.exchange, keys, properties)
        expiration = properties.expiration
        expiration_ms = int(expiration) if expiration is not None else None
        is_kept = is_persistent(raw)
        return RepublishedMessage(
            origin, raw, targets, is_kept, (), keys[1:], histories, expiration_ms
        )


def blind_keys(properties: Properties) -> tuple[str, ...]:
    """Return the keys of the BCC header, which messages have while they wait."""
    _tag, more = (properties.headers or {})["BCC"]
    return long_strings(more) if isinstance(more, list) else ()


def all_keys(origin: Origin, raw: bytes) -> tuple[str, ...]:
    """Under which keys a message was published, those of BCC included."""
    keys = routing_keys(origin, raw)
    return keys if origin.past is MessageAnnotations.REDIRECTED else (*keys, *origin.blind_keys)


def shown_keys(keys: tuple[str, ...], blind_keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys without those of BCC.  As with RabbitMQ each takes the first that is like it,
    so a key by which a queue has redirected the message may be missing, too."""
    shown = [*keys]
    for key in blind_keys:
        if key in shown:
            shown.remove(key)
    return tuple(shown)


def routing_keys(origin: Origin, raw: bytes) -> tuple[str, ...]:
    """Routing keys with which a message was published, without BCC."""
    if origin.past is MessageAnnotations.REDIRECTED:
        return (origin.routing_key,)
    _tag, more = (decode_properties(raw).headers or {}).get("CC", ("A", []))
    return (origin.routing_key, *(long_strings(more) if isinstance(more, list) else ()))


def whatever_waits(_queue: PublishTarget) -> bool:
    """Accept every queue."""
    return True


def while_it_has_room(queue: PublishTarget) -> bool:
    """Accept a queue unless so much waits for it that clients are held back."""
    return not queue.is_full


def publish_own(
    vhost: VirtualHost,
    exchange: str,
    messages: Iterable[tuple[str, Properties, bytes]],
    is_given: Callable[[PublishTarget], bool] = whatever_waits,
) -> None:
    """Put messages (routing key, properties, body) where an exchange leads.

    At most once: no answer is awaited, and what leads nowhere is gone.
    """
    for routing_key, properties, body in messages:
        queues, histories, _ = vhost.route(exchange, (routing_key,), properties)
        if not (queues or histories):
            continue
        origin = vhost.origin(exchange, routing_key)
        content = build_content(encode_properties(properties), body)
        persistent = properties.delivery_mode == DELIVERY_MODE_PERSISTENT
        for history in histories:
            history.keep(HistoryMessage(origin, content, (), persistent))
        for queue in filter(is_given, queues):
            queue.enqueue(
                [origin],
                [content],
                len(content),
                persistent=persistent,
                expiration_ms=lifetime_ms(properties),
            )


def lifetime_ms(properties: Properties) -> int | None:
    """Return how long a message may wait from now on, in milliseconds; None: for ever."""
    text = properties.expiration
    return int(text) if text is not None and text.lstrip("+").isdecimal() else None
