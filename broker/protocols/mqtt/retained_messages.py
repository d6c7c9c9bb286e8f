"""Retained messages on their way to new subscriptions of an MQTT client.

A client that subscribes is sent what its filter matches, a few at a time: as its socket and its
window have room; a subscription of QoS 0 needs no window.  Nothing is copied: a cursor goes through
the topics, and is made when its turn comes.  What a client has not been sent yet is state of its
session, which may go on over another connection; it ends with the subscription.
Source: S5 3.3.1.3, 3.8, 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.base.message import NEVER_EXPIRES_MS, Origin, RetainedMessage
from fluffle.broker.protocols.mqtt.conversion import expiry_property, with_identifiers
from fluffle.broker.protocols.mqtt.session_state import (
    DirectMessage,
    TopicSubscription,
)
from fluffle.broker.protocols.mqtt.sys_topics import WatchingChannel
from fluffle.broker.protocols.mqtt.topics import is_reserved
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.properties import body_of, raw_properties

if TYPE_CHECKING:
    from fluffle.broker.protocols.mqtt.conversion import MessageConverter
    from fluffle.broker.protocols.mqtt.sys_topics import SysTopics
    from fluffle.broker.vhosts.retained import RetainedCursor

MESSAGES_AT_ONCE = 64
"""Most retained messages sent in one turn, which takes a millisecond or two."""

RETAIN_ALWAYS, RETAIN_IF_NEW, RETAIN_NEVER = range(3)
"""Retain Handling of a subscription: when it is sent retained messages.  S5 3.8.3.1."""


class SubscribedChannel(WatchingChannel, Protocol):
    """Channel of a client that subscribes."""

    converter: MessageConverter
    prefetch: int


class RetainedSender:
    """Sender of retained messages to one client."""

    __slots__ = ("_channel", "_is_scheduled", "_now_ms", "_sys")

    def __init__(
        self, channel: SubscribedChannel, sys: SysTopics, now_ms: Callable[[], int]
    ) -> None:
        """`now_ms`: common time, since 1970."""
        self._channel = channel
        self._sys = sys
        self._now_ms = now_ms
        self._is_scheduled = False

    def subscribed(self, subscription: TopicSubscription, *, is_new: bool) -> None:
        """Begin with what matches a subscription, if it wants that."""
        handling, topic_filter = subscription.retain_handling, subscription.topic_filter
        wants = handling == RETAIN_ALWAYS or (handling == RETAIN_IF_NEW and is_new)
        wanted, other = self._channel.state.retained
        if subscription.qos:
            wanted, other = other, wanted
        if topic_filter in other:  # the subscription has had another QoS
            wanted[topic_filter] = other.pop(topic_filter)
        if wants:
            wanted[topic_filter] = None
        if is_reserved(topic_filter):
            self._sys.watch(self._channel)

    def go_on(self) -> None:
        """Send some, if there are any and there is room."""
        channel, all_pending = self._channel, self._channel.state.retained
        pending = all_pending[0] or all_pending[1]
        if not pending or not channel.is_open or channel.output.has_enough:
            return
        room = MESSAGES_AT_ONCE
        if pending is all_pending[1]:
            room = min(room, channel.outgoing.room(channel.prefetch))
        if room <= 0:
            return  # an acknowledgement makes room, and calls this
        topic_filter, cursor = next(iter(pending.items()))
        if cursor is None:
            cursor = pending[topic_filter] = self._cursor(topic_filter)
        subscription = channel.state.subscriptions[topic_filter]
        for topic, message in cursor.take(room, self._now_ms()):
            self._send(topic, message, subscription)
        if cursor.is_done:
            del pending[topic_filter]
        if any(all_pending):
            self.go_on_later()

    def _cursor(self, topic_filter: str) -> RetainedCursor:
        """Return a cursor at the first match: of the broker's own, and of those of clients."""
        published = self._channel.session.vhost.retained.cursor(topic_filter)
        if not is_reserved(topic_filter):
            return published
        figures = self._sys.cursor(topic_filter)
        figures.then(published)
        return figures

    def go_on_later(self) -> None:
        """Send some in a turn of its own, if there are any."""
        if any(self._channel.state.retained) and not self._is_scheduled:
            self._is_scheduled = True
            self._channel.turn.act_later(self._go_on, self._channel.give_up)

    def _go_on(self) -> None:
        self._is_scheduled = False
        self.go_on()

    def _send(self, topic: str, message: RetainedMessage, subscription: TopicSubscription) -> None:
        channel = self._channel
        terms = channel.outgoing.terms
        is_v5 = terms.version == MQTT_5
        origin = Origin(
            "", channel.converter.topics.routing_key(topic), annotations=message.annotations
        )
        raw = raw_properties(message.content)
        found = channel.converter.delivered(origin, raw, with_properties=is_v5)
        if found is None:
            return
        properties = found.properties
        if is_v5:
            identifiers = (subscription.identifier,) if subscription.identifier else ()
            properties = with_identifiers(properties, identifiers)
            if message.expires_at_ms != NEVER_EXPIRES_MS:
                left_ms = max(1, message.expires_at_ms - self._now_ms())
                properties = expiry_property(left_ms) + properties
        payload = body_of(message.content)
        direct = DirectMessage(
            min(found.qos, subscription.qos), topic.encode(), properties, payload
        )
        channel.outgoing.send(direct)
