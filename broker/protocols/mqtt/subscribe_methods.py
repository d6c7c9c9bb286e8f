"""SUBSCRIBE and UNSUBSCRIBE: the queues and bindings of a session, and its subscriptions.

    SUBSCRIBE --> rights --> queue, if it is not there --> bindings --> consumer --> SUBACK

A subscription is a binding from the exchange of MQTT to a queue of the session.  One that is shared
is a binding to a queue that all have together who subscribe to `$share/NAME/FILTER`, whichever node
they are at: each has a binding of it, and with the last the queue goes.  What cannot be granted is
answered filter by filter; the connection stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.core import topology
from fluffle.broker.core.input_queue import EVENT_COST
from fluffle.broker.core.property_facts import EXPIRATION_MS_MAX
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import change_or_refuse
from fluffle.broker.protocols.mqtt.conversion import is_text
from fluffle.broker.protocols.mqtt.reasons import REASON_LENGTH_MAX, code_of
from fluffle.broker.protocols.mqtt.session_state import NEVER_S, QOS_MASK, TopicSubscription
from fluffle.broker.protocols.mqtt.shared_queues import memberships
from fluffle.broker.protocols.mqtt.sys_topics import check_may_read
from fluffle.broker.protocols.mqtt.topics import is_reserved
from fluffle.broker.queues.arguments import Declaration, DeliveryGuarantee
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.topic_filter import BINDING_KEY, FilterBinding, arguments_of
from fluffle.broker.vhosts import queue_changes
from fluffle.protocol.mqtt.codes import MQTT_5, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Connack,
    Disconnect,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import PropertyId
from fluffle.protocol.mqtt.topics import parse_filter
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.config.config import MqttConfig
    from fluffle.broker.protocols.mqtt.channel import Channel

X_EXPIRES = "x-expires"

FILTERS_AT_ONCE = 32
"""Most filters bound, or unbound, in one turn, which takes a millisecond or two."""


def filters_cost(filters: Sequence[object]) -> int:
    """Return the cost of a packet with these filters: each costs as much as a packet."""
    return EVENT_COST * (1 + min(len(filters), FILTERS_AT_ONCE))


QUEUE_QOS = (0, 1, 1)
"""The QoS in the name of the queue for subscriptions of each QoS."""

GUARANTEES = (
    DeliveryGuarantee.AT_MOST_ONCE,
    DeliveryGuarantee.EXACTLY_ONCE,
    DeliveryGuarantee.EXACTLY_ONCE,
)
"""Guarantee of the queue for subscriptions of each QoS."""


A = TypeVar("A", Connack, Disconnect, Suback)


class SubscriptionTerms:
    """How the subscriptions of one client are kept, and how it is answered."""

    __slots__ = (
        "durable_queue_type",
        "exchange",
        "group_expiry_s",
        "mailbox_limit",
        "packet_bytes_max",
        "version",
        "wants_reasons",
    )

    def __init__(self, version: int, config: MqttConfig, durable_queue_type: str) -> None:
        self.version = version
        self.exchange = config.exchange
        self.mailbox_limit = config.mailbox_soft_limit
        """How many messages of QoS 0 may wait for a client that does not read; 0: all."""
        longest_s = config.session_expiry_s_max
        self.group_expiry_s = NEVER_S if longest_s is None else longest_s
        """How long the queue of a group may be unused: as long as any session may last."""
        self.durable_queue_type = durable_queue_type
        """Type of the queue for QoS 1 and 2 of a session that lasts."""
        self.packet_bytes_max = 0
        """Size of the largest packet that the client takes; 0: any."""
        self.wants_reasons = True
        """True unless the client has declined reasons in all answers but CONNACK and DISCONNECT."""

    def explained(self, packet: A, reason: str) -> A:
        """Give an answer its reason in words: to a client of version 5, if the packet is not larger
        than it takes.  S5 3.2.2.3.9."""
        if self.version < MQTT_5 or not reason or not is_text(reason):
            return packet
        packet.properties.values[PropertyId.REASON_STRING] = reason[:REASON_LENGTH_MAX]
        if 0 < self.packet_bytes_max < len(encode(packet, self.version)):
            del packet.properties.values[PropertyId.REASON_STRING]
        return packet


def declaration_of(channel: Channel, qos: int, terms: SubscriptionTerms) -> Declaration:
    """The queue of a session for subscriptions of a QoS."""
    state, is_lasting = channel.state, channel.state.is_lasting
    arguments = lasting_arguments(terms, state.expiry_s, is_sure=qos > 0) if is_lasting else {}
    return Declaration(
        name=channel.queue_name(qos),
        durable=True,
        exclusive=not is_lasting,
        auto_delete=False,
        arguments=arguments,
        mailbox_limit=terms.mailbox_limit if qos == 0 and not is_lasting else None,
        guarantee=GUARANTEES[qos],
    )


def expiry_arguments(expiry_s: int) -> FieldTable:
    """Arguments that let a queue be unused for so long."""
    is_limited = expiry_s != NEVER_S and expiry_s * 1000 <= EXPIRATION_MS_MAX
    return {X_EXPIRES: ("l", expiry_s * 1000)} if is_limited else {}


def lasting_arguments(terms: SubscriptionTerms, expiry_s: int, *, is_sure: bool) -> FieldTable:
    """Arguments of a queue that outlives connections.  `is_sure`: whether its messages are to
    outlive nodes."""
    arguments = expiry_arguments(expiry_s)
    if is_sure and terms.durable_queue_type != "classic":
        arguments["x-queue-type"] = ("S", terms.durable_queue_type.encode())
    if is_sure and terms.durable_queue_type == "quorum":  # else a bad line would use up messages
        arguments["x-delivery-limit"] = ("l", -1)
    return arguments


def shared_declaration(name: str, terms: SubscriptionTerms) -> Declaration:
    """The queue of a group: its members come and go, at whichever nodes, so that it is as that of a
    session that lasts."""
    return Declaration(
        name=name,
        durable=True,
        exclusive=False,
        auto_delete=False,
        arguments=lasting_arguments(terms, terms.group_expiry_s, is_sure=True),
        guarantee=DeliveryGuarantee.EXACTLY_ONCE,
    )


def binding_of(
    channel: Channel, subscription: TopicSubscription, terms: SubscriptionTerms
) -> Binding:
    """The binding that a subscription is."""
    topic_filter = subscription.topic_filter
    key = channel.converter.topics.routing_key(topic_filter)
    kept = FilterBinding(topic_filter, subscription.options, subscription.identifier or None)
    if subscription.share_name:
        group, member = subscription.share_name, channel.state.client_id
        kept = kept._replace(group=group, member=member, connection=channel.groups.mark)
    return Binding(
        source=terms.exchange,
        destination=subscription.queue(channel.state.client_id),
        destination_kind=DestinationKind.QUEUE,
        routing_key=key,
        arguments=arguments_of(kept, key if terms.version == MQTT_5 else None),
    )


def imported_bindings(exchange: str, queue: str, key: str) -> tuple[Binding, Binding]:
    """Return the bindings that RabbitMQ has for a subscription, before version 5 of MQTT and in
    it."""
    of_v5: FieldTable = {BINDING_KEY: ("S", key.encode())}
    plain = Binding(exchange, queue, DestinationKind.QUEUE, key)
    return plain, Binding(exchange, queue, DestinationKind.QUEUE, key, of_v5)


def unbind_imported(
    channel: Channel, topic_filters: Iterable[str], terms: SubscriptionTerms
) -> tuple[Change, list[str]]:
    """Have no bindings of the queues of a session that have the routing keys of these filters and
    say no filter, as those that are imported from RabbitMQ; return the filters that had such."""
    vhost, owner = channel.session.vhost, channel.session.owner
    change, found = NOTHING, list[str]()
    keys = {each: channel.converter.topics.routing_key(each) for each in topic_filters}
    for queue in map(channel.queue_name, (0, 1)):
        bound = vhost.topology.bindings_to(DestinationKind.QUEUE, queue)
        for topic_filter, key in keys.items():
            there = [
                each for each in imported_bindings(terms.exchange, queue, key) if each in bound
            ]
            for binding in there:
                change = change.joined(queue_changes.unbind(vhost, binding, owner))
                found.append(topic_filter)
    return change, found


def identifier_of(packet: Subscribe) -> int:
    """The subscription identifier of all filters of a SUBSCRIBE; 0 is none."""
    identifiers = packet.properties.subscription_ids
    return identifiers[0] if identifiers else 0


class SubscribeRequest:
    """SUBSCRIBE of a client, until it is answered."""

    __slots__ = (
        "_channel", "_codes", "_done", "_new", "_packet", "_part_at", "_refusal", "_terms",
        "_wanted",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        packet: Subscribe,
        terms: SubscriptionTerms,
        done: Callable[[], None],
    ) -> None:
        """`done` is called once it is answered, now or later.  Without an identifier of its packet
        it is not answered: the subscriptions are to be as they were."""
        self._channel = channel
        self._packet = packet
        self._terms = terms
        self._done = done
        self._codes: list[ReasonCode] = []
        """The answer to each filter, as far as it is known."""
        self._wanted: list[TopicSubscription] = []
        """Subscriptions of the current part that are granted, if they can be."""
        self._part_at = 0
        """Where that part begins."""
        self._new: list[tuple[TopicSubscription, bool]] = []
        """Granted subscriptions, each with whether it is new."""
        self._refusal = ""
        """Why the first filter that is refused is so."""

    def begin(self) -> None:
        if not self._channel.is_open:
            self._done()
            return
        identifier = identifier_of(self._packet)
        self._wanted, self._part_at = [], len(self._codes)
        for text, options in self._packet.filters[self._part_at :][:FILTERS_AT_ONCE]:
            self._codes.append(self._checked(text, options, identifier))
        self._declare_next()

    def _checked(self, text: str, options: int, identifier: int) -> ReasonCode:
        """Note what is wanted if it may be; the answer to it."""
        parsed = parse_filter(text)
        if parsed is None or (parsed.share_name and is_reserved(parsed.topic_filter)):
            self._refusal = self._refusal or f"topic filter '{text}' is not valid"
            return ReasonCode.TOPIC_FILTER_INVALID  # the figures of a node go past all queues
        subscription = TopicSubscription(
            parsed.topic_filter, options, identifier, parsed.share_name
        )
        channel, rights = self._channel, self._channel.session.rights
        binding = binding_of(channel, subscription, self._terms)
        try:
            rights.check("read", "queue", binding.destination)
            topology.check_may_bind(channel.session, binding)
            check_may_read(channel.session, parsed.topic_filter, self._terms.exchange)
        except BrokerError as refused:
            self._refusal = self._refusal or refused.explanation
            return code_of(refused)
        self._wanted.append(subscription)
        return ReasonCode(options & QOS_MASK)

    def _declare_next(self) -> None:
        """Declare a queue of the session that is missing; once none is, bind.  One that is shared
        is declared with its binding: it is not there without a member."""
        channel, metadata = self._channel, self._channel.session.metadata
        if not channel.is_open:
            self._done()
            return
        missing = self._missing_queue()
        if missing is not None:
            request = topology.QueueDeclaration(
                channel.session, topology.named(channel.session, missing)
            )
            change_or_refuse(metadata, request.decide, self._declare_next, self._refuse)
        elif self._wanted:
            change_or_refuse(metadata, self._decide_bindings, self._bound, self._refuse)
        else:
            self._next()

    def _missing_queue(self) -> Declaration | None:
        """Find a queue of the session that is wanted and is not there."""
        channel, queues = self._channel, self._channel.session.vhost.queues
        for each in self._wanted:
            if not each.share_name and each.queue(channel.state.client_id) not in queues:
                return declaration_of(channel, QUEUE_QOS[each.qos], self._terms)
        return None

    def _next(self) -> None:
        """Go on with the next part, or answer."""
        if len(self._codes) < len(self._packet.filters):
            self._channel.turn.act_later(self.begin, self._channel.give_up)
        else:
            self._answer()

    def _decide_bindings(self) -> Change:
        """Have all subscriptions, each in the place of one with the same filter."""
        channel, terms = self._channel, self._terms
        vhost, owner = channel.session.vhost, channel.session.owner
        wanted = {each.full_filter: each for each in self._wanted}
        bindings = [binding_of(channel, each, terms) for each in wanted.values()]
        groups = {each.queue("") for each in wanted.values() if each.share_name}
        change, new = NOTHING, [name for name in groups if name not in vhost.queues]
        for name in new:
            declared = topology.named(channel.session, shared_declaration(name, terms))
            request = topology.QueueDeclaration(channel.session, declared)
            change = change.joined(request.decide())
        change = change.joined(queue_changes.subscribe(vhost, bindings, owner, new))
        own = [each for each in wanted.values() if not each.share_name]
        for qos in (0, 1):  # a filter whose QoS has changed may be bound to the other queue
            moved = [each.topic_filter for each in own if QUEUE_QOS[each.qos] != qos]
            queue = channel.queue_name(qos)
            unbound = queue_changes.unsubscribe(vhost, terms.exchange, queue, moved, owner)
            change = change.joined(unbound)
        imported, _ = unbind_imported(channel, [each.topic_filter for each in own], terms)
        return change.joined(imported)

    def _bound(self) -> None:
        channel, there = self._channel, self._channel.state.subscriptions
        for subscription in self._wanted:
            self._new.append((subscription, subscription.full_filter not in there))
            channel.state.subscribe(subscription)
        if not channel.is_open:
            channel.groups.leave()  # it had ended before
            self._done()
            return
        channel.subscriptions_changed()
        for subscription in self._wanted:
            if subscription.share_name:
                channel.groups.consume(subscription)
            else:
                channel.consume(subscription.qos)
        self._next()

    def _refuse(self, error: BrokerError) -> None:
        """None of them can be had."""
        code = code_of(error)
        self._refusal = self._refusal or error.explanation
        self._codes[self._part_at :] = [
            code if each < ReasonCode.UNSPECIFIED_ERROR else each
            for each in self._codes[self._part_at :]
        ]
        self._next()

    def _answer(self) -> None:
        channel, packet = self._channel, self._packet
        if channel.is_open and not packet.packet_id:
            if self._codes[0].is_error:
                text = "a queue that it shares is gone, and cannot be made anew"
                channel.connection.end(self._codes[0], text)
        elif channel.is_open:
            channel.vouch()
            suback = Suback(packet.packet_id, self._codes)
            if self._terms.wants_reasons:
                suback = self._terms.explained(suback, self._refusal)
            channel.output.add(encode(suback, self._terms.version))
            for subscription, is_new in self._new:
                if not subscription.share_name:  # S5 4.8: a group is sent nothing that is retained
                    channel.retained.subscribed(subscription, is_new=is_new)
            channel.retained.go_on()
        self._done()


class UnsubscribeRequest:
    """UNSUBSCRIBE of a client, until it is answered."""

    __slots__ = (
        "_channel", "_codes", "_done", "_imported", "_packet", "_part", "_pending_count", "_terms",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        packet: Unsubscribe,
        terms: SubscriptionTerms,
        done: Callable[[], None],
    ) -> None:
        """`done` is called once it is answered, now or later."""
        self._channel = channel
        self._packet = packet
        self._terms = terms
        self._done = done
        self._codes: list[ReasonCode] = []
        """The answer to each filter, as far as it is known."""
        self._part: list[str] = []
        """Filters that are unbound now."""
        self._imported: list[str] = []
        """Filters among them that were bound, and that no binding says."""
        self._pending_count = 0
        """Number of things to wait for before these can be."""

    def begin(self) -> None:
        if not self._channel.is_open:
            self._done()
            return
        begin = len(self._codes)
        self._part = self._packet.filters[begin : begin + FILTERS_AT_ONCE]
        shared = self._shared()
        self._pending_count = len(shared) + 1
        for subscription in shared:
            self._channel.groups.stop(subscription, self._stopped)
        self._stopped()

    def _stopped(self) -> None:
        """A shared queue gives nothing any more: answer once all do."""
        self._pending_count -= 1
        if self._pending_count:
            return
        if self._channel.is_open:
            metadata = self._channel.session.metadata
            change_or_refuse(metadata, self._decide, self._unbound, self._refuse)
        else:
            self._done()

    def _shared(self) -> list[TopicSubscription]:
        """Return the subscriptions that are to end and are shared."""
        there = self._channel.state.subscriptions
        found = [there[each] for each in dict.fromkeys(self._part) if each in there]
        return [each for each in found if each.share_name]

    def _decide(self) -> Change:
        """Have none of these subscriptions; those that are not there need no change."""
        session, state, exchange = self._channel.session, self._channel.state, self._terms.exchange
        queues = {each.queue(state.client_id) for each in self._shared()}
        change = NOTHING
        if queues:
            bindings = memberships(session.vhost, exchange, state.client_id)
            leaving = [each for each in bindings if each.destination in queues]
            change = queue_changes.leave_groups(session.vhost, leaving)
        for qos in (0, 1):
            queue = self._channel.queue_name(qos)
            unbound = queue_changes.unsubscribe(
                session.vhost, exchange, queue, self._part, session.owner
            )
            change = change.joined(unbound)
        imported, self._imported = unbind_imported(self._channel, self._part, self._terms)
        return change.joined(imported)

    def _unbound(self) -> None:
        channel, codes = self._channel, self._codes
        for topic_filter in self._part:
            if topic_filter in channel.state.subscriptions:
                channel.state.unsubscribe(topic_filter)
                codes.append(ReasonCode.SUCCESS)
            elif topic_filter in self._imported:
                codes.append(ReasonCode.SUCCESS)
            elif parse_filter(topic_filter) is None:
                codes.append(ReasonCode.TOPIC_FILTER_INVALID)
            else:
                codes.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)
        channel.subscriptions_changed()
        self._next()

    def _refuse(self, error: BrokerError) -> None:
        """None of these can be unbound.  UNSUBACK before 5.0 has no code, and would say that they
        were: S3 4.8.0-2."""
        channel = self._channel
        if self._terms.version < MQTT_5:
            if channel.is_open:
                channel.connection.disconnect(code_of(error), error.explanation)
            self._done()
            return
        for subscription in self._shared():
            channel.groups.consume(subscription)
        self._codes += [code_of(error)] * len(self._part)
        self._next()

    def _next(self) -> None:
        """Go on with the next part, or answer."""
        channel, packet = self._channel, self._packet
        if channel.is_open and len(self._codes) < len(packet.filters):
            channel.turn.act_later(self.begin, channel.give_up)
            return
        if channel.is_open:
            channel.vouch()
            unsuback = Unsuback(packet.packet_id, self._codes)
            channel.output.add(encode(unsuback, self._terms.version))
        self._done()
