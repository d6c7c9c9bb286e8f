"""Messages on their way to an MQTT client: PUBLISH packets, and what the client answers to them.

    queue --> PublishWriter.send(batch) --> PUBLISH --> client
    queue <-- settled <-- PUBACK, PUBREC; PUBREC --> PUBREL --> PUBCOMP

One consumer a queue of the session, and one a queue that it shares with others.  Which
subscriptions a message is for, and so its QoS, is said by the session's own when it is delivered:
once for each origin; of a shared queue by the one it is for.  A message of QoS 0 is settled when
it is sent, one of QoS 1 by its PUBACK, one of QoS 2 by its PUBREC; its identifier stays in use up
to its PUBCOMP, and so does its place in the window of the client.  A hot file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.base.client_session import OUTGOING
from fluffle.broker.base.queue_names import is_shared
from fluffle.broker.base.traffic import ClientDrop, Deliveries
from fluffle.broker.core.output_buffer import BURST_BYTES, burst_bytes
from fluffle.broker.core.settlement import Stretch
from fluffle.broker.protocols.mqtt.conversion import expiry_property, with_identifiers
from fluffle.broker.protocols.mqtt.delivery_terms import (
    PACKET_OVERHEAD_BYTES,
    DeliveryTerms,
    TopicAliases,
    publish_bytes,
)
from fluffle.broker.protocols.mqtt.packet_keeper import NotedPackets
from fluffle.broker.protocols.mqtt.publish_runs import (
    FORMS_MAX,
    NOT_SENT,
    Form,
    LastRun,
    MessageGroup,
    Variant,
)
from fluffle.broker.protocols.mqtt.session_state import DirectMessage, SentBefore
from fluffle.broker.protocols.mqtt.topics import is_reserved
from fluffle.broker.queues.deduplication import spans_of
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, Outcome
from fluffle.protocol.mqtt.codes import MQTT_5, InvalidPacket, PacketType, ReasonCode
from fluffle.protocol.mqtt.hot import build_acks, build_publishes
from fluffle.protocol.mqtt.packets import publish_flags

if TYPE_CHECKING:
    from fluffle.broker.base.message import Origin
    from fluffle.broker.core.observer import ChannelObserver
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.session import Session
    from fluffle.broker.core.settlement import Settlements
    from fluffle.broker.protocols.mqtt.conversion import MessageConverter
    from fluffle.broker.protocols.mqtt.packet_keeper import PacketKeeper
    from fluffle.broker.protocols.mqtt.session_state import SessionState
    from fluffle.broker.queues.queue_api import SharedCredit

REMEMBERED_BYTES_MAX = 512
"""Longer forms are found each time: properties that long are seldom those of the next message."""

ACKED = Outcome.ACKED

RETURNED_AFTER_MS = 120_000
"""Time by which messages of a node that cannot be reached are back in their queue: see
`DEAD_AFTER_MS`."""


class RetainedFeed(Protocol):
    """Retained messages that wait to be sent to a client."""

    def go_on_later(self) -> None:
        """Send some in a turn of its own, if there are any."""


class DeliveryChannel(Protocol):
    """Channel of an MQTT client, as far as it is given messages."""

    output: OutputBuffer
    prefetch: int
    """How many messages of QoS 1 and 2 may be under way."""
    shared_credit: SharedCredit
    """Count of those under way, for all consumers that need the window."""

    @property
    def settlements(self) -> Settlements:
        """Settlement of what the client is given."""

    @property
    def packets(self) -> PacketKeeper | None:
        """Keeper of its packets of QoS 2; None if its session does not last."""

    @property
    def session(self) -> Session: ...

    observer: ChannelObserver | None

    @property
    def mailbox_consumer(self) -> Consumer:
        """The consumer of the session's queue of QoS 0, which it has."""

    @property
    def retained(self) -> RetainedFeed: ...

    @property
    def window_consumer(self) -> Consumer | None:
        """The consumer of the session's own queue of QoS 1 and 2, once there is one."""

    def give_up(self, error: Exception) -> None:
        """Close the connection for an error of the broker's own that concerns it alone."""


class SentPublish(NamedTuple):
    """Message that a client was sent, and has not acknowledged."""

    tag: int
    """Its delivery tag; 0 for one that came from no queue."""
    qos: int
    consumer: Consumer | None


class OutgoingPublishes:
    """Messages that one client was sent over one connection, by packet identifier."""

    __slots__ = (
        "_began_ms",
        "_channel",
        "_sent",
        "_unsent",
        "_window_holders",
        "aliases",
        "noted",
        "of_groups",
        "state",
        "terms",
    )

    def __init__(self, channel: DeliveryChannel, state: SessionState, terms: DeliveryTerms) -> None:
        self._channel = channel
        self.state = state
        self.terms = terms
        self.aliases: TopicAliases | None = None
        """None for a client that takes none, as most do."""
        if terms.aliases_max:
            self.aliases = TopicAliases(terms.aliases_max, terms.packet_bytes_max)
        self._began_ms = terms.now_ms()
        self.noted = NotedPackets(channel, state, self._completed)
        self._sent: dict[int, SentPublish] = {}
        """Messages that wait for their PUBACK or PUBREC, by packet identifier."""
        self.of_groups: dict[int, DirectMessage] = {}
        """Messages among them of QoS 2 and of shared queues, which are to stay with the session."""
        self._unsent: list[int] = []
        """Packet identifiers of messages that came from no queue, were not acknowledged over an
        earlier connection, and wait for room to be sent again: the last one is the first to be."""
        self._window_holders: dict[int, Consumer | None] = {}
        """Packet identifiers that take a place in the window, though their message came from no
        queue or they wait for their PUBCOMP alone; and the consumer that has less room, if there is
        one."""

    def __len__(self) -> int:
        return len(self._sent) + len(self.state.released)

    def resume(self) -> None:
        """Send PUBREL for what the client has had, and send again what came from no queue and was
        not acknowledged, as it has room.  S5 4.4."""
        state = self.state
        if state.released:
            # mutant: MQ14
            self._channel.output.add(build_acks(PacketType.PUBREL, tuple(state.released)))
        for packet_id in (*state.direct, *state.released):
            self._take_place(packet_id, None)
        self._unsent = [*reversed(state.direct)]  # mutant: MQ15
        self._send_again()

    def _send_again(self) -> None:
        """Send again what there is room for, and drop what is too large for this connection."""
        direct, unsent, dropped = self.state.direct, self._unsent, list[int]()
        while unsent and len(self) < self._channel.prefetch:
            packet_id = unsent.pop()
            message = direct[packet_id]
            if not self._is_too_large(message):
                self._sent[packet_id] = SentPublish(0, message.qos, None)
                self._write(packet_id, message, dup=True)
                continue
            self._forget_direct(packet_id, ACKED)
            self._channel.session.traffic.dropped[ClientDrop.PACKET_TOO_LARGE] += 1
            if message.qos == 2:
                self._let_go((packet_id,))
            else:
                dropped.append(packet_id)
        if dropped:
            self._free(dropped)

    def _is_too_large(self, message: DirectMessage) -> bool:
        """True if the client does not take a packet of that size."""
        if not self.terms.packet_bytes_max:
            return False
        topic, properties = message.topic, message.properties
        if message.expires_at_ms:
            properties = expiry_property(1) + properties
        if self.aliases is not None:
            topic, properties = self.aliases.known(topic, properties)
        size_bytes = publish_bytes(topic, properties, len(message.payload), message.qos)
        return self.terms.packet_bytes_max < size_bytes

    def _let_go(self, packet_ids: Sequence[int]) -> None:
        """Have the client forget packets of QoS 2 that it may have had, and is not sent again."""
        self.state.released.update(dict.fromkeys(packet_ids))
        acks = build_acks(PacketType.PUBREL, packet_ids)
        release = partial(self._channel.output.add, acks)
        if self._channel.packets is None:
            release()
        else:
            self._channel.packets.keep(OUTGOING, packet_ids, release)

    def send(self, message: DirectMessage) -> None:
        """Send a message that comes from no queue, unless it is too large for the client."""
        traffic = self._channel.session.traffic
        if self._is_too_large(message):
            traffic.dropped[ClientDrop.PACKET_TOO_LARGE] += 1
            return
        traffic.past_queues += 1
        traffic.sent_bytes += len(message.payload)
        packet_id = 0
        if message.qos:
            packet_id = self.state.packet_ids.take(1)[0]
            self.state.direct[packet_id] = message
            self._sent[packet_id] = SentPublish(0, message.qos, None)
            self._take_place(packet_id, self._channel.window_consumer)
        packets, write = self._channel.packets, partial(self._write, packet_id, message)
        if message.qos == 2 and packets is not None:
            packets.keep_sent({packet_id: 0}, self._channel.output, write)
        else:
            write()

    def consumes(self, consumer: Consumer) -> None:
        """The consumer of the queue of QoS 1 and 2 begins: what came from no queue takes places of
        its window, and so does what waits for its PUBCOMP since an earlier connection."""
        for packet_id, holder in self._window_holders.items():
            if holder is None:
                self._window_holders[packet_id] = consumer
                consumer.in_flight += 1

    def room(self, window: int) -> int:
        """How many more messages may be under way, of so many in all."""
        return window - self._channel.shared_credit.in_flight

    def _take_place(self, packet_id: int, consumer: Consumer | None) -> None:
        """Have a packet take a place in the window, and so in that of a consumer."""
        self._window_holders[packet_id] = consumer
        self._channel.shared_credit.in_flight += 1
        if consumer is not None:
            consumer.in_flight += 1

    def _write(self, packet_id: int, message: DirectMessage, *, dup: bool = False) -> None:
        output = self._channel.output
        topic, properties = message.topic, message.properties
        if message.expires_at_ms:
            left_ms = max(1, message.expires_at_ms - self.terms.now_ms())
            properties = expiry_property(left_ms) + properties
        if self.aliases is not None:
            topic, properties = self.aliases.apply(
                topic, properties, len(message.payload), message.qos
            )
        build_publishes(
            output.pieces,
            topic,
            properties,
            (message.payload,),
            flags=publish_flags(message.qos, retain=message.retain, dup=dup),
            version=self.terms.version,
            packet_ids=(packet_id,) if packet_id else (),
        )
        output.sent(0)

    def number(
        self, delivery_batch: DeliveryBatch, indices: range, qos: int
    ) -> tuple[Sequence[int], int]:
        """Give messages of a batch their packet identifiers, if they need any; and their QoS.  One
        that comes again is given both by itself, as it had them, whatever subscriptions say now."""
        consumer, state = delivery_batch.holder, self.state
        assert isinstance(consumer, Consumer)
        queue = consumer.queue.name
        packet_ids: Sequence[int] = ()
        if queue in state.unfinished:
            if delivery_batch.redelivered:
                (index,) = indices
                # mutant: MQ10
                before = self._sent_before(queue, delivery_batch.sequences[index])
                if before is not None:
                    packet_ids, qos = (before.packet_id,), before.qos  # mutant: MQ11
            elif not is_shared(queue):
                self._drop_unfinished(queue)
        if not qos:
            return (), 0
        packet_ids = packet_ids or state.packet_ids.take(len(indices))
        for packet_id, tag in zip(packet_ids, indices, strict=True):
            self._sent[packet_id] = SentPublish(delivery_batch.first_tag + tag, qos, consumer)
        return packet_ids, qos

    def _sent_before(self, queue: str, sequence: int) -> SentBefore | None:
        """Return how a message was sent before to this client, if it can be sent so again."""
        packet_ids, before = self.state.packet_ids, self.state.take_unfinished(queue, sequence)
        if before is None or not is_shared(queue) or packet_ids.take_again(before.packet_id):
            return before
        return None

    def _drop_unfinished(self, queue: str) -> None:
        """Have the client let go of messages that are not in their queue any more.

        In a cluster a node that cannot be reached may have one for a while yet."""
        packets, state = self._channel.packets, self.state
        if packets is None or packets.goes_with_messages:
            noted = {} if packets is None else packets.sent_under()
            if left := state.drop_unfinished(queue, noted):
                self._let_go(left)
        elif self.terms.now_ms() - self._began_ms >= RETURNED_AFTER_MS:
            left = state.drop_unfinished(queue, packets.sent_under())
            if unknown := [each for each in left if not self.noted.received(each)]:
                self._let_go(unknown)

    # What the client answers

    def acknowledged(self, packet_ids: Sequence[int]) -> None:
        """PUBACK: the client has messages of QoS 1."""
        self._settle_answered(packet_ids, 1, ACKED)

    def known_of(self, packet_ids: Sequence[int]) -> tuple[list[int], int]:
        """Return the identifiers of PUBREC packets under which messages of QoS 2 were sent; and how
        many of all come before one that answers a message of QoS 1."""
        sent, released, known = self._sent, self.state.released, list[int]()
        for at, packet_id in enumerate(packet_ids):
            found = sent.get(packet_id)
            if found is not None and found.qos != 2:
                return known, at
            if found is not None or packet_id in released:
                known.append(packet_id)
        return known, len(packet_ids)

    def received(self, packet_ids: Sequence[int]) -> None:
        """PUBREC: the client has messages of QoS 2, and will not take them again before PUBCOMP;
        identifiers of which nothing is known are passed over."""
        self._settle_answered(packet_ids, 2, ACKED)

    def on_pubcomp(self, packet_ids: Sequence[int]) -> None:
        """PUBCOMP: the client has let go, and the identifiers are free again, once that is
        durable."""
        known: list[int] = []
        for packet_id in packet_ids:
            if packet_id in self._sent:
                raise InvalidPacket(ReasonCode.PROTOCOL_ERROR, "PUBCOMP before PUBREL")
            if packet_id not in self.state.released:
                continue
            del self.state.released[packet_id]
            known.append(packet_id)
        packets = self._channel.packets
        if packets is None:
            self._free(known)
        elif packets.goes_with_messages:
            self.noted.forget(known)
        else:
            expected = {
                each.packet_id
                for queue, sent in self.state.unfinished.items()
                if not is_shared(queue)
                for each in sent.values()
            }
            self.state.completed.update(expected.intersection(known))
            self._free_places([each for each in known if each in expected])
            self.noted.forget([each for each in known if each not in expected])

    def _completed(self, packet_ids: Sequence[int]) -> None:
        """Free identifiers, which is durable by now: retained messages have room, too."""
        self._free(packet_ids)
        self._channel.retained.go_on_later()  # mutant: MQ22

    def refused(self, packet_id: int, qos: int) -> None:
        """PUBACK or PUBREC with an error: the client does not want the message."""
        self._settle_answered((packet_id,), qos, Outcome.REJECTED)

    def _free(self, packet_ids: Sequence[int]) -> None:
        """Let identifiers be used again, and with them places of the window."""
        self.state.packet_ids.free(packet_ids)
        self._free_places(packet_ids)

    def _free_places(self, packet_ids: Sequence[int]) -> None:
        """Let places of the window be used again."""
        if self._window_holders:
            for packet_id in packet_ids:
                if packet_id not in self._window_holders:
                    continue
                consumer = self._window_holders.pop(packet_id)
                if consumer is None:
                    self._channel.shared_credit.settled(1)
                else:
                    consumer.settled(1)
        if self._unsent:
            self._send_again()

    def _settle_answered(self, packet_ids: Sequence[int], qos: int, outcome: Outcome) -> None:
        """Settle messages that the client has answered, and free their identifiers, unless these
        wait for PUBCOMP; identifiers of none are passed over.

        InvalidPacket for an answer that belongs to the other QoS; those before it count.
        """
        sent, is_kept = self._sent, qos == 2 and outcome is ACKED
        tags: list[int] = []
        answered: list[int] = []
        error = None
        for packet_id in packet_ids:
            found = sent.get(packet_id)
            if found is None:
                if qos == 1 and packet_id in self.state.released:
                    error = "PUBACK of a message of QoS 2"
                    break
                continue
            if found.qos != qos:
                error = f"wrong answer to a message of QoS {found.qos}"
                break
            del sent[packet_id]
            answered.append(packet_id)
            if is_kept:
                self.state.released[packet_id] = None  # mutant: MQ13
                if found.consumer is not None:  # its place is free when it is settled
                    self._take_place(packet_id, found.consumer)  # mutant: MQ17
            if found.tag:
                tags.append(found.tag)
                self.of_groups.pop(packet_id, None)
            else:
                self._forget_direct(packet_id, outcome)
        self.settle_tags(tags, outcome)
        if not is_kept:  # mutant: MQ12
            self._free(answered)
        if error is not None:
            raise InvalidPacket(ReasonCode.PROTOCOL_ERROR, error)

    def _forget_direct(self, packet_id: int, outcome: Outcome) -> None:
        """Forget a message that came from no queue, or settle it in the shared one that has it."""
        del self.state.direct[packet_id]
        if (held := self.state.held.pop(packet_id, None)) is not None:
            self._channel.settlements.settle([held], outcome)

    def settle_tags(self, tags: Sequence[int], outcome: Outcome = ACKED) -> None:
        """Settle messages of the queues."""
        unacked, stretches = self._channel.settlements.unacked, list[Stretch]()
        for first, stop in spans_of(tags):
            stretches += unacked.take(first, stop - 1)[0]
        if stretches:
            self._channel.settlements.settle(stretches, outcome)

    def end(self) -> None:
        """The connection has ended: note what was sent, which comes back to its queues.  What has
        come from a shared one may go to another client, unless it stays with the session."""
        sent_by_tag = {
            found.tag: SentBefore(packet_id, found.qos) for packet_id, found in self._sent.items()
        }
        queues: dict[str, dict[int, SentBefore]] = {}
        unacked = self._channel.settlements.unacked
        for held_id, message in self.of_groups.items():
            tag = self._sent[held_id].tag
            (self.state.held[held_id],), _ = unacked.take(tag, tag)
            self.state.direct[held_id] = message
        for run in unacked.open_runs():
            indices = (index for span in run.unsettled() for index in range(*span))
            for index in indices:
                before = sent_by_tag.get(run.first_tag + index)
                if before is not None:
                    queues.setdefault(run.holder.queue.name, {})[run.sequences[index]] = before
        # What came from a shared queue before has been somewhere else since.
        for name in [*filter(is_shared, self.state.unfinished)]:
            del self.state.unfinished[name]
        for name, messages in queues.items():
            if is_shared(name):
                self.state.packet_ids.free(each.packet_id for each in messages.values())
            self.state.keep_unfinished(name, messages)
        self.of_groups.clear()
        self._sent.clear()
        self._unsent.clear()
        self._window_holders.clear()


def stay(
    outgoing: OutgoingPublishes,
    packet_ids: Sequence[int],
    form: Form,
    payloads: Sequence[bytes],
    *,
    left_ms: int = 0,
) -> None:
    """Have messages of QoS 2 of a shared queue stay with the session, if that lasts.

    `left_ms`: time that they have left to live; 0 if they live for ever."""
    if not outgoing.state.is_lasting:
        return
    message = DirectMessage(
        form.qos,
        form.topic,
        form.properties,
        b"",
        retain=form.retain,
        expires_at_ms=outgoing.terms.now_ms() + left_ms if left_ms else 0,
    )
    for packet_id, payload in zip(packet_ids, payloads, strict=True):
        outgoing.of_groups[packet_id] = message._replace(payload=payload)


class PublishWriter:
    """Writer of what one queue of a session gives its client: a `DeliveryWriter`."""

    __slots__ = (
        "_channel",
        "_converter",
        "_counts",
        "_forms",
        "_last_run",
        "_observer",
        "_origin",
        "_outgoing",
        "_output",
        "_queue_qos",
        "_raw",
        "_shared_filter",
        "_traffic",
        "_unsent_count",
        "_variant",
        "_vhost",
    )

    def __init__(
        self,
        channel: DeliveryChannel,
        outgoing: OutgoingPublishes,
        converter: MessageConverter,
        counts: Deliveries,
        *,
        queue_qos: int,
        last_run: LastRun,
        shared_filter: str = "",
    ) -> None:
        """`counts`: where what is sent is counted; `queue_qos`: 0 for the queue of subscriptions
        of QoS 0, 1 for that of all others; `last_run`: of all clients of this node;
        `shared_filter`: of the subscription by which the session shares the queue with others."""
        self._channel = channel
        self._output, self._observer = channel.output, channel.observer
        self._vhost, self._traffic = channel.session.vhost, channel.session.traffic
        self._outgoing = outgoing
        self._converter = converter
        self._counts = counts
        self._queue_qos = queue_qos
        self._last_run = last_run
        self._shared_filter = shared_filter
        self._forms: dict[tuple[Origin, bytes], Form] = {}
        self._unsent_count = 0
        """Messages of this batch that are not for the client, or too large for it."""
        self._origin: Origin | None = None
        """Origin of the last messages that went past the queue."""
        self._raw = b""
        """Properties of these messages in AMQP."""
        self._variant: Variant | None = None
        """How such messages are sent past the queue; None if they are not."""

    def forget(self) -> None:
        """Subscriptions have changed."""
        self._forms.clear()
        self._origin = None

    def forget_beyond(self, count: int) -> None:
        """Forget how messages are sent if more than `count` forms of them are remembered."""
        if len(self._forms) > count:
            self._forms.clear()

    def send_past(self, origins: list[Origin], contents: list[bytes], content_bytes: int) -> bool:
        """Send messages of QoS 0 past the queue, as a `DirectWriter`: those of a fan-out are
        encoded once for all its clients."""
        last = self._last_run
        try:
            if contents is last.passing:
                group = last.passing_group
            else:
                group = last.alike(origins, contents, content_bytes)
            if group is None:
                return False
            if group.origin is not self._origin or group.raw != self._raw:
                self._find_variant(group)
            variant = self._variant
            if variant is None or self._vhost.tracer is not None:
                return False
            if variant.form.qos < 0:
                return True
            output = self._output
            if output.is_draining or output.handed_bytes >= BURST_BYTES:
                return False
            output.handed_bytes += group.burst_bytes
            output.sent_bytes += group.burst_bytes
            output.pieces.append(group.encoded.get(variant) or group.packets(variant))
            output.touch(output)
            self._counts.consumed_auto_ack += len(contents)
            self._traffic.sent_bytes += group.payload_bytes
            if self._observer is not None:
                self._observer.delivered(self._delivered(origins, contents, content_bytes))
        except Exception as error:  # noqa: BLE001 - a bug ends this connection, not the publisher's
            self._channel.give_up(error)
        return True

    def _delivered(
        self, origins: list[Origin], contents: list[bytes], content_bytes: int
    ) -> DeliveryBatch:
        """Return messages that went past the queue, for the counters of deliveries."""
        consumer = self._channel.mailbox_consumer
        return DeliveryBatch(
            consumer, origins, contents, (), redelivered=False, content_bytes=content_bytes
        )

    def _find_variant(self, group: MessageGroup) -> None:
        """Find how messages are sent past the queue, if they can be: all alike."""
        self._origin, self._raw, self._variant = group.origin, group.raw, None
        key, terms = (group.origin, group.raw), self._outgoing.terms
        form = self._forms.get(key) or self._find_form(*key)
        interceptors = self._channel.session.interceptors
        is_intercepted = interceptors is not None and interceptors.outgoing is not None
        is_limited = terms.packet_bytes_max or self._outgoing.aliases is not None
        if not (form.expiry_ms >= 0 or form.qos > 0 or is_intercepted or is_limited):
            self._variant = self._last_run.variant(form, terms.version)

    def send(self, delivery_batch: DeliveryBatch) -> None:
        """Send a run of messages; a bug ends this connection, and not the turn of all."""
        try:
            self._send(delivery_batch)
        except Exception as error:  # noqa: BLE001
            self._channel.give_up(error)

    def _send(self, delivery_batch: DeliveryBatch) -> None:
        """Number the messages of a run, and add their packets to what the connection writes."""
        channel = self._channel
        first_tag = channel.settlements.unacked.number(delivery_batch)
        contents = delivery_batch.contents
        interceptors = channel.session.interceptors
        if interceptors is not None and interceptors.outgoing is not None:
            contents = interceptors.outgoing.intercepted(contents)
        finished: list[int] = []
        self._unsent_count = 0
        for group in self._last_run.split(delivery_batch.origins, contents):
            key = group.origin, group.raw
            form = self._forms.get(key) or self._find_form(*key)
            settled = self._send_alike(delivery_batch, form, group)
            if settled and not delivery_batch.holder.no_ack:
                finished += settled
        channel.output.sent(burst_bytes(delivery_batch))
        self._count(delivery_batch)
        if finished:
            self._outgoing.settle_tags([first_tag + index for index in finished])

    def _send_alike(
        self, delivery_batch: DeliveryBatch, form: Form, group: MessageGroup
    ) -> Sequence[int]:
        """Send messages of one form; the indices of those that are settled with that."""
        if form.qos < 0:
            self._unsent_count += len(group.payloads)
            return group.indices
        terms = self._outgoing.terms
        if terms.packet_bytes_max or form.expiry_ms >= 0 or delivery_batch.redelivered:
            return self._send_each(delivery_batch, form, group)
        if (aliases := self._aliases_for(form.qos)) is not None:
            if not aliases.is_settled(form.topic):
                return self._send_each(delivery_batch, form, group)
            form = aliases.shorten(form)
        output = self._channel.output
        self._traffic.sent_bytes += group.payload_bytes
        if not form.qos:
            output.pieces.append(group.packets(self._last_run.variant(form, terms.version)))
            return group.indices
        packet_ids, _qos = self._outgoing.number(delivery_batch, group.indices, form.qos)
        if self._shared_filter and form.qos == 2:
            stay(self._outgoing, packet_ids, form, group.payloads)
        pieces = [] if form.qos == 2 else output.pieces
        build_publishes(
            pieces,
            form.topic,
            form.properties,
            group.payloads,
            flags=publish_flags(form.qos, retain=form.retain, dup=False),
            version=terms.version,
            packet_ids=packet_ids,
        )
        if form.qos == 2:
            self._outgoing.noted.write(pieces, packet_ids, delivery_batch, group.indices)
        return ()

    def _aliases_for(self, qos: int) -> TopicAliases | None:
        """Return the topic aliases of the client; none for what others overtake."""
        aliases = self._outgoing.aliases
        if aliases is None or self._outgoing.noted.are_overtaken(qos):
            return None
        return aliases

    def _send_each(
        self, delivery_batch: DeliveryBatch, form: Form, group: MessageGroup
    ) -> list[int]:
        """Send messages one by one, for they differ in more than their payloads."""
        terms, output = self._outgoing.terms, self._channel.output
        noted, limit_bytes = self._outgoing.noted, terms.packet_bytes_max
        aliases = self._aliases_for(2 if delivery_batch.redelivered else form.qos)
        finished: list[int] = []
        queue = delivery_batch.holder.queue.name
        for index, payload in zip(group.indices, group.payloads, strict=True):
            if delivery_batch.redelivered and noted.was_received(delivery_batch, index):
                finished.append(index)
                self._unsent_count += 1
                continue
            properties, left_ms = form.properties, 0
            if form.expiry_ms >= 0:
                left_ms = self._left_ms(delivery_batch, form, index)
                properties = expiry_property(left_ms) + properties
            state, sequence = self._outgoing.state, delivery_batch.sequences[index]
            is_again = delivery_batch.redelivered and state.may_have_had(queue, sequence)
            topic, sent_qos = form.topic, form.qos or int(is_again)
            if aliases is not None:
                topic, properties = aliases.apply(topic, properties, len(payload), sent_qos)
            size_bytes = len(topic) + len(properties) + len(payload)
            if 0 < limit_bytes < size_bytes + PACKET_OVERHEAD_BYTES and limit_bytes < (
                publish_bytes(topic, properties, len(payload), sent_qos)
            ):
                finished.append(index)  # as if it had been sent: S5 3.1.2.11.4
                self._unsent_count += 1
                self._traffic.dropped[ClientDrop.PACKET_TOO_LARGE] += 1
                continue
            self._traffic.sent_bytes += len(payload)
            one = range(index, index + 1)
            packet_ids, qos = self._outgoing.number(delivery_batch, one, form.qos)
            if self._shared_filter and qos == 2:
                sent = form._replace(qos=qos)
                stay(self._outgoing, packet_ids, sent, (payload,), left_ms=left_ms)
            if not qos:
                finished.append(index)
            dup = qos > 0 and is_again  # mutant: MQ9
            pieces = [] if qos == 2 else output.pieces
            build_publishes(
                pieces,
                topic,
                properties,
                (payload,),
                flags=publish_flags(qos, retain=form.retain, dup=dup),
                version=terms.version,
                packet_ids=packet_ids,
            )
            if qos == 2:
                noted.write(pieces, packet_ids, delivery_batch, one)
        return finished

    def _left_ms(self, delivery_batch: DeliveryBatch, form: Form, index: int) -> int:
        """How long a message has left to live, at least a moment."""
        expiries = delivery_batch.expiries
        if expiries is None:
            return form.expiry_ms
        return min(form.expiry_ms, max(1, expiries[index] - self._outgoing.terms.now_ms()))

    def _find_form(self, origin: Origin, raw: bytes) -> Form:
        """Find how messages of an origin with these properties are sent; remember it if short."""
        form = self._form(origin, raw)
        key_bytes = len(origin.routing_key) + len(origin.annotations) + len(raw)
        if key_bytes + len(form.properties) <= REMEMBERED_BYTES_MAX:
            if len(self._forms) >= FORMS_MAX:
                self._forms.clear()
            self._forms[origin, raw] = form
        return form

    def _form(self, origin: Origin, raw: bytes) -> Form:
        terms, state = self._outgoing.terms, self._outgoing.state
        is_v5 = terms.version == MQTT_5
        message = self._converter.delivered(origin, raw, with_properties=is_v5)
        if message is None:
            return NOT_SENT
        if self._shared_filter:
            match = state.shared_match(self._shared_filter)
        else:
            match = state.match(message.topic, is_own=message.client == terms.client)
        if match.excluded_queues[self._queue_qos] or is_reserved(message.topic):  # mutant: MQ21
            return NOT_SENT
        if match.qos > 0 and not self._queue_qos and match.is_in_both_queues:  # mutant: MQ20
            return NOT_SENT
        # What is in one of them alone was addressed to it, or its subscription has ended or has
        # another QoS by now.  S5 3.8.4, 3.10.4.
        granted = match.qos
        if not self._shared_filter:
            granted = max(match.qos, 1) if self._queue_qos else 0
        retain = is_v5 and message.retain and match.retain_as_published
        properties = message.properties
        if is_v5:
            properties = with_identifiers(properties, match.identifiers)
        qos = min(message.qos, granted)  # mutant: MQ19
        return Form(qos, retain, message.topic.encode(), properties, message.expiry_ms)

    def _count(self, delivery_batch: DeliveryBatch) -> None:
        count, counts = len(delivery_batch.contents) - self._unsent_count, self._counts
        if delivery_batch.holder.no_ack:
            counts.consumed_auto_ack += count
        else:
            counts.consumed_manual_ack += count
        if delivery_batch.redelivered:
            counts.redelivered += count
