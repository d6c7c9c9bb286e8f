"""Messages that an MQTT client publishes: PUBLISH packets, and what is answered to them.

    PUBLISH run --> topic alias --> QoS 2: only new identifiers --> route by topic --> publisher
    client <-- PUBACK, PUBREC <-- confirms, in the order of the publishes

The route of a topic is remembered by the topic.  A message of QoS 2 is taken when its PUBLISH
comes; its identifier is remembered up to PUBREL, and keeps it from being taken again.  A hot file.

In a cluster identifiers and messages are in several logs.  So a packet of a session that lasts is
noted first, with a number, and its message has a key of that: should a node end before PUBREC, the
message is published once more, and a queue that has it knows it by the key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from fluffle.broker.base.client_session import INCOMING
from fluffle.broker.base.errors import AccessRefused, BrokerError, PreconditionFailed
from fluffle.broker.base.message import KEY_BYTES
from fluffle.broker.base.traffic import ClientDrop
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.publisher import EnqueueObserver, Publisher
from fluffle.broker.core.route_lookup import (
    LOOKUP_STOPS_MAX,
    CachedRoute,
    LookupTooLong,
    RoutedBatch,
)
from fluffle.broker.metadata.metadata import UnconfirmedAbsence, ignore_done
from fluffle.broker.protocols.mqtt.conversion import LONG_BYTES
from fluffle.broker.protocols.mqtt.prepared_runs import (
    PreparedRun,
    PublishTerms,
    find_route,
    note_unreached,
    part_of,
    prepared_run,
    retain,
)
from fluffle.broker.protocols.mqtt.reasons import code_of
from fluffle.broker.protocols.mqtt.session_state import BegunPacket
from fluffle.protocol.mqtt.codes import MQTT_5, InvalidPacket, PacketType, ReasonCode
from fluffle.protocol.mqtt.hot import build_acks
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.core.input_queue import ReadControl
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.session import Session
    from fluffle.broker.definitions.retained import RetainedStore
    from fluffle.broker.protocols.mqtt.conversion import AmqpProperties, MessageConverter
    from fluffle.broker.protocols.mqtt.packet_keeper import PacketKeeper
    from fluffle.broker.protocols.mqtt.session_state import SessionState
    from fluffle.protocol.mqtt.reader import Publishes


UNANSWERED = "unanswered"
NONE_REFUSED: Mapping[int, ReasonCode] = MappingProxyType({})
"""Reason for not reading a client: one that does not know its Receive Maximum waits for answers."""


class Unanswered:
    """Run of messages of QoS 1 or 2 that a client has sent, and that is not answered yet."""

    __slots__ = ("code", "first", "kind", "packet_ids", "refused", "waits")

    def __init__(
        self,
        kind: PacketType,
        packet_ids: Sequence[int],
        *,
        first: int = 0,
        code: ReasonCode | None = ReasonCode.SUCCESS,
    ) -> None:
        self.kind = kind
        """PUBACK or PUBREC."""
        self.packet_ids = packet_ids
        self.first = first
        """Publish sequence number of the first; 0 for what was not published here."""
        self.code = code
        """Reason code of the answer, unless a queue refuses it; None while that is not known."""
        self.waits = 0
        """Number of other events awaited: that it is retained, that its packets are noted."""
        self.refused: Mapping[int, ReasonCode] = NONE_REFUSED
        """Reason codes of packets that are refused, beside those that a queue refuses by the
        numbers of the client."""


class NotedRun:
    """Run of messages of QoS 2 whose packets are noted before they are published: the
    `PublishOutcomes` of its publisher."""

    __slots__ = (
        "_incoming", "_known_count", "_observer", "_publisher", "_waits", "answer", "code", "keys",
        "numbers", "prepared", "refused",
    )  # fmt: skip

    def __init__(
        self,
        incoming: IncomingPublishes,
        prepared: PreparedRun,
        numbers: Mapping[int, int],
        keys: Sequence[bytes],
        observer: EnqueueObserver | None,
    ) -> None:
        """`numbers`: of the messages, by packet.  `keys`: by which queues know the messages.
        `observer`: that of the client."""
        self._incoming = incoming
        self.prepared = prepared
        self.numbers = numbers
        self.keys = keys
        self.answer = Unanswered(PacketType.PUBREC, prepared.packet_ids, code=None)
        self.refused: dict[int, ReasonCode] = {}
        """Reason codes of the packets that are refused; all others are taken."""
        self._observer = observer
        self._publisher: Publisher | None = None
        """Publisher of these messages, once they are published."""
        self._known_count = 0
        """How many of them are in queues, or refused."""
        self._waits = 1
        """Count of events that it waits for: that they are in queues, that one is retained."""

    @property
    def packet_ids(self) -> Sequence[int]:
        return self.prepared.packet_ids

    def publish(self, session: Session, retained: RetainedStore | None) -> None:
        """Publish them, and retain the last if it is to be.  LookupTooLong."""
        prepared, routes = self.prepared, session.route_cache
        publisher = self._own_publisher(session)
        routes.stops_left = LOOKUP_STOPS_MAX
        try:
            route = routes.current(prepared.topic_key)
            if route is None:
                route = routes.run_at_once(find_route(session, prepared))
            publisher.publish_batch(
                *(route, prepared.facts, prepared.messages, prepared.lifetimes_ms),
                annotations=prepared.annotations,
                keys=self.keys,
                is_certain=True,  # what was defined before their packets were noted is known here
            )
        except BrokerError as error:
            self._refuse(publisher, error)
        else:
            self._published(session, retained, route)

    def publish_in_steps(self, session: Session, retained: RetainedStore | None) -> Steps[None]:
        """Publish them as `publish` does, whatever it takes to find where they go."""
        prepared, publisher = self.prepared, self._own_publisher(session)
        try:
            route = yield from find_route(session, prepared)
            yield from publisher.publish_batch_in_steps(
                *(route, prepared.facts, prepared.messages, prepared.lifetimes_ms),
                annotations=prepared.annotations,
                keys=self.keys,
                is_certain=True,
            )
        except BrokerError as error:
            self._refuse(publisher, error)
        else:
            self._published(session, retained, route)

    def _own_publisher(self, session: Session) -> Publisher:
        publisher = self._publisher
        if publisher is None:
            publisher = self._publisher = Publisher(session, self)
            publisher.observer = self._observer
            publisher.confirm()
        return publisher

    def _refuse(self, publisher: Publisher, error: BrokerError) -> None:
        publisher.end()
        self._incoming.noted_refused(self, error)

    def _published(
        self, session: Session, retained: RetainedStore | None, route: CachedRoute
    ) -> None:
        """Note that messages are on their way into queues; retain the last, if it is to be."""
        if not self.prepared.reaches_amqp:
            self._incoming.note_unreached(self.prepared)
        if self.prepared.retain and retained is not None:
            self._waits += 1  # mutant: MQ61
            client_id = str(session.rights.topic_variables["client_id"])
            done, failed = self._one_known, self._not_retained
            retain(retained, session, self.prepared, done, failed, client_id=client_id)
        confirms = self._own_publisher(session).mode.confirms
        if confirms is not None:
            self.report(confirms)

    def returned(self, routed: RoutedBatch) -> None:
        """No message of MQTT is mandatory."""
        raise AssertionError(f"a message of MQTT was returned: {routed.origins[0]!r}")

    def report(self, confirms: Confirms) -> None:
        """Note which of them are safe, or refused."""
        accepted, refused, _open_from = confirms.take()
        for first, last in refused:
            packet_ids = self.packet_ids[first - 1 : last]
            self.refused.update(dict.fromkeys(packet_ids, ReasonCode.QUOTA_EXCEEDED))
        known = sum(last - first + 1 for first, last in (*accepted, *refused))
        self._known_count += known
        if known and self._known_count == len(self.packet_ids):
            assert self._publisher is not None, "they are published"
            self._publisher.end()
            self._one_known()

    report_later = report

    def _not_retained(self, error: BrokerError) -> None:
        code = self._incoming.code_of_unretained(error)
        if code is not None:
            self.refused[self.packet_ids[-1]] = code  # mutant: MQ70
        self._one_known()

    def _one_known(self) -> None:
        self._waits -= 1
        if not self._waits:
            self._incoming.settle_noted(self)


def message_key(client_id: str, packet_id: int, number: int) -> bytes:
    """Return the key of the message of a packet."""
    named = f"{packet_id} {number} {client_id}".encode()
    return blake2b(named, digest_size=KEY_BYTES).digest()


class IncomingPublishes:
    """Publishes of one client over one connection: the `PublishOutcomes` of its publishers."""

    __slots__ = (
        "_at_least_once",
        "_at_most_once",
        "_begun",
        "_converter",
        "_is_ended",
        "_known_below",
        "_known_runs",
        "_long_runs",
        "_output",
        "_packets",
        "_read_control",
        "_refused",
        "_retained",
        "_session",
        "_size",
        "_state",
        "_terms",
        "_unanswered",
        "_unanswered_count",
        "_waiting",
    )

    def __init__(
        self,
        session: Session,
        state: SessionState,
        output: OutputBuffer,
        converter: MessageConverter,
        *,
        terms: PublishTerms,
        retained: RetainedStore | None,
        packets: PacketKeeper | None,
        read_control: ReadControl,
    ) -> None:
        """`retained`: where messages are kept; None if none are.  `packets`: where those of QoS 2
        are noted; None if the session does not last."""
        self._read_control = read_control
        self._session = session
        self._state = state
        self._output = output
        self._converter = converter
        self._terms = terms
        self._retained = retained
        self._packets = packets
        self._at_most_once = Publisher(session, self)
        """Publisher of QoS 0."""
        self._at_least_once = Publisher(session, self)
        """Publisher of QoS 1 and 2."""
        self._at_least_once.confirm()
        self._unanswered: deque[Unanswered] = deque()
        """In the order in which they came, which is that of their answers: S5 4.6."""
        self._unanswered_count = 0
        """Messages of QoS 1 in it: those of QoS 2 are known by their identifiers."""
        self._size = 0
        """All messages in it."""
        self._known_below = 1
        """All publishes with lower numbers are accepted or refused."""
        self._known_runs: dict[int, int] = {}
        """First and last of those that are, beyond."""
        self._refused: set[int] = set()
        """Identifiers of packets that are refused and not answered yet."""
        self._waiting: dict[int, list[Callable[[ReasonCode], None]]] = {}
        """Functions to call with the answer, by packet identifier: of a client that has come back
        and sends again what was not answered when its connection ended."""
        self._begun: dict[int, int] = {}
        """Packets that are being noted, and whose messages are not published yet: their numbers."""
        self._long_runs: deque[NotedRun] = deque()
        """Runs that take long to route; while there are any, others wait behind them."""
        self._is_ended = False

    @property
    def traced(self) -> Publisher:
        """The publisher under whose name tracers see this client."""
        return self._at_most_once

    @property
    def publishers(self) -> tuple[Publisher, Publisher]:
        return self._at_most_once, self._at_least_once

    # What the client sends

    def take(self, run: Publishes, *, is_certain: bool) -> int:
        """Publish a run of messages; what that costs.

        InvalidPacket for what ends the connection, UnconfirmedAbsence and LookupTooLong as
        `Publisher.publish_batch`: nothing has been done then.
        """
        if len(run.properties) > LONG_BYTES:
            raise LookupTooLong
        prepared = self._prepared(run)
        if prepared is None:
            return 1
        if prepared.qos == 2 and self._notes_first:
            return self._note_first(prepared)
        routes, publisher = self._session.route_cache, self._publisher_of(prepared)
        found_count, routes.stops_left = routes.found_count, LOOKUP_STOPS_MAX
        first, cost = self._next_number, 1
        try:
            route = routes.current(prepared.topic_key)
            if route is None:
                route = routes.run_at_once(find_route(self._session, prepared))
            cost += publisher.publish_batch(
                route,
                prepared.facts,
                prepared.messages,
                prepared.lifetimes_ms,
                annotations=prepared.annotations,
                is_certain=is_certain,
            )
        except UnconfirmedAbsence:
            raise
        except BrokerError as error:
            self._refuse(prepared, error)
        else:
            self._published(prepared, first, route)
        return cost + routes.found_count - found_count

    def take_in_steps(self, run: Publishes, *, is_certain: bool) -> Steps[None]:
        """Publish a run of messages as `take` does, whatever it takes to find where they go."""
        converted = None
        if len(run.properties) > LONG_BYTES:
            converted = yield from self._converter.convert_in_steps(run.properties, run.qos)
            yield
        prepared = self._prepared(run, converted)
        if prepared is None:
            return
        if prepared.qos == 2 and self._notes_first:
            self._note_first(prepared)
            return
        first, publisher = self._next_number, self._publisher_of(prepared)
        try:
            route = yield from find_route(self._session, prepared)
            yield from publisher.publish_batch_in_steps(
                route,
                prepared.facts,
                prepared.messages,
                prepared.lifetimes_ms,
                annotations=prepared.annotations,
                is_certain=is_certain,
            )
        except UnconfirmedAbsence:
            raise
        except BrokerError as error:
            self._refuse(prepared, error)
        else:
            self._published(prepared, first, route)

    @property
    def _next_number(self) -> int:
        """The publish sequence number of the next message of QoS 1 or 2."""
        confirms = self._at_least_once.mode.confirms
        assert confirms is not None
        return confirms.assigned_count + 1

    def _publisher_of(self, prepared: PreparedRun) -> Publisher:
        return self._at_least_once if prepared.qos else self._at_most_once

    def _prepared(
        self, run: Publishes, converted: AmqpProperties | None = None
    ) -> PreparedRun | None:
        """Convert messages; None if there are none that have not come before.

        InvalidPacket for more messages than may be under way.
        """
        if not run.payloads:
            raise ValueError("a run without messages")
        if run.qos and self._terms.version == MQTT_5:
            incoming, new_count = self._state.incoming, len(run.payloads)
            if run.qos == 2 and incoming:
                new_count -= len(incoming.keys() & run.packet_ids)
            if self._unanswered_count + len(incoming) + new_count > self._terms.receive_max:
                raise InvalidPacket(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "too many under way")
        if run.retain and self._retained is None and self._terms.version == MQTT_5:
            raise InvalidPacket(ReasonCode.RETAIN_NOT_SUPPORTED, "nothing is retained")
        repeated_ids: Sequence[int] = ()
        if run.qos == 2:
            run, repeated_ids = self._without_repeated(run)
        elif run.qos and self._terms.version == MQTT_5 and self._state.incoming:
            run, repeated_ids = self._without_used(run)
        if not run.payloads:
            self._answer_repeated(repeated_ids, run.qos)
            return None
        return prepared_run(
            *(self._session, self._converter, self._terms, run, repeated_ids), converted=converted
        )

    def _without_repeated(self, run: Publishes) -> tuple[Publishes, Sequence[int]]:
        """Return the messages of QoS 2 that have not come before, and the packets that have."""
        incoming, new = self._state.incoming, dict[int, bytes]()
        repeated_ids: list[int] = []
        for packet_id, payload in zip(run.packet_ids, run.payloads, strict=True):
            # mutant: MQ7
            if packet_id in incoming and not isinstance(incoming[packet_id], BegunPacket):
                repeated_ids.append(packet_id)
            else:
                new.setdefault(packet_id, payload)
        return part_of(run, list(new), list(new.values())), repeated_ids

    def _without_used(self, run: Publishes) -> tuple[Publishes, Sequence[int]]:
        """Return the messages of QoS 1 whose identifiers are free, and the packets whose
        identifiers messages of QoS 2 have."""
        incoming = self._state.incoming
        if incoming.keys().isdisjoint(run.packet_ids):
            return run, ()
        pairs = list(zip(run.packet_ids, run.payloads, strict=True))
        free = [pair for pair in pairs if pair[0] not in incoming]
        used_ids = [packet_id for packet_id, _ in pairs if packet_id in incoming]
        return part_of(run, [pair[0] for pair in free], [pair[1] for pair in free]), used_ids

    def _answer_repeated(self, packet_ids: Sequence[int], qos: int) -> None:
        """Answer packets of messages of QoS 2 that were taken before, as far as that is known; and
        those of QoS 1 that have identifiers of such."""
        if qos == 1:
            code = ReasonCode.PACKET_IDENTIFIER_IN_USE
            self._expect(Unanswered(PacketType.PUBACK, packet_ids, code=code))
            self._answer()
            return
        for packet_id in packet_ids:
            taker = self._state.incoming.get(packet_id)
            if taker is None:
                self._expect(Unanswered(PacketType.PUBREC, (packet_id,)))
            elif taker is not self:  # on a connection that has ended
                assert not isinstance(taker, BegunPacket), "its message is published again"
                unanswered = Unanswered(PacketType.PUBREC, (packet_id,), code=None)
                taker.tell(packet_id, partial(self._answer_earlier, unanswered))
                self._expect(unanswered)
        self._answer()

    # What is answered

    def on_pubrel(self, packet_ids: Sequence[int]) -> None:
        """Handle PUBREL: the client will not send these again, and gets PUBCOMP once they are
        forgotten."""
        if self._packets is None:  # mutant: MQ6
            self._forgotten(packet_ids)
        else:
            self._packets.forget(INCOMING, packet_ids, partial(self._forgotten, packet_ids))

    def _forgotten(self, packet_ids: Sequence[int]) -> None:
        """Answer PUBREL packets: it is noted that the client may use their identifiers again."""
        incoming, codes = self._state.incoming, list[ReasonCode]()
        for packet_id in packet_ids:
            if packet_id in incoming:
                del incoming[packet_id]  # mutant: MQ5
                codes.append(ReasonCode.SUCCESS)
            else:
                codes.append(ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
        if not self._is_ended:
            self._add_acks(PacketType.PUBCOMP, packet_ids, codes)

    def _published(self, prepared: PreparedRun, first: int, route: CachedRoute) -> None:
        """Messages are on their way into queues; retain the last of them, if it is to be."""
        if not prepared.reaches_amqp:
            self.note_unreached(prepared)
        if prepared.repeated_ids:
            self._answer_repeated(prepared.repeated_ids, prepared.qos)
        unanswered = None
        if prepared.qos:
            kind = PacketType.PUBACK if prepared.qos == 1 else PacketType.PUBREC
            unanswered = Unanswered(kind, prepared.packet_ids, first=first)
            if prepared.qos == 1 and not route.targets and route.needs is None:
                unanswered.code = ReasonCode.NO_MATCHING_SUBSCRIBERS
            if prepared.qos == 2:
                self._state.incoming.update(dict.fromkeys(prepared.packet_ids, self))  # mutant: MQ1
                if self._packets is not None:  # mutant: MQ2
                    unanswered.waits += 1
                    noted = partial(self._stored, unanswered, None)
                    self._packets.keep(INCOMING, prepared.packet_ids, noted)
            self._expect(unanswered)  # mutant: MQ4
        if prepared.retain and self._retained is not None:
            if unanswered is not None:
                unanswered.waits += 1  # mutant: MQ62
            stored = partial(self._stored, unanswered)
            done = partial(stored, None)
            client_id = self._state.client_id
            retain(self._retained, self._session, prepared, done, stored, client_id=client_id)

    def note_unreached(self, prepared: PreparedRun) -> None:
        """Count messages that were published and that queues of AMQP are not given."""
        note_unreached(self._session, prepared, self._terms.warnings)

    def _stored(self, unanswered: Unanswered | None, error: BrokerError | None) -> None:
        """A message is retained, or cannot be, or its packet is noted."""
        code = None if error is None else self.code_of_unretained(error)
        if unanswered is None:
            return
        unanswered.waits -= 1
        if code is not None:  # all others are in their queues, and that is all
            unanswered.refused = {unanswered.packet_ids[-1]: code}  # mutant: MQ69
        self._answer()

    def code_of_unretained(self, error: BrokerError) -> ReasonCode | None:
        """Count a message that was not retained; the answer to it, if that is another for it."""
        self._session.traffic.dropped[ClientDrop.NOT_RETAINED] += 1
        is_over_limit = isinstance(error, PreconditionFailed)
        # before 5.0 there is no code for a limit, and it lasts
        return code_of(error) if self._terms.version == MQTT_5 or not is_over_limit else None

    def _refuse(self, prepared: PreparedRun, error: BrokerError) -> None:
        """Answer messages that may not be published, or drop them; InvalidPacket where neither will
        do."""
        code = code_of(error)
        if prepared.repeated_ids:
            self._answer_repeated(prepared.repeated_ids, prepared.qos)
        if prepared.qos and self._terms.version == MQTT_5:
            kind = PacketType.PUBACK if prepared.qos == 1 else PacketType.PUBREC
            self._expect(Unanswered(kind, prepared.packet_ids, code=code))
        elif self._terms.disconnects or not isinstance(error, AccessRefused):
            raise InvalidPacket(code, error.explanation)
        else:
            count = len(prepared.messages.contents)
            self._session.traffic.dropped[ClientDrop.NOT_AUTHORIZED] += count
            if prepared.qos:
                kind = PacketType.PUBACK if prepared.qos == 1 else PacketType.PUBREC
                self._expect(Unanswered(kind, prepared.packet_ids))
        self._answer()

    def _expect(self, unanswered: Unanswered) -> None:
        """Have messages answered in their turn; none more is read while that is so of too many."""
        self._unanswered.append(unanswered)
        self._count(unanswered.kind, len(unanswered.packet_ids))

    def _count(self, kind: PacketType, count: int) -> None:
        self._size += count
        if kind is PacketType.PUBACK:
            self._unanswered_count += count
        if self._is_ended:
            return
        if self._size > self._terms.receive_max:
            self._read_control.hold(UNANSWERED)
        elif self._read_control.reasons:
            self._read_control.release(UNANSWERED)

    def returned(self, routed: RoutedBatch) -> None:
        """No message of MQTT is mandatory."""
        raise AssertionError(f"a message of MQTT was returned: {routed.origins[0]!r}")

    def report(self, confirms: Confirms) -> None:
        """More of the messages are safe, or refused."""
        accepted, refused, _open_from = confirms.take()
        for first, last in refused:
            self._refused.update(range(first, last + 1))
        for first, last in (*accepted, *refused):
            self._known_runs[first] = last
        while (last_known := self._known_runs.pop(self._known_below, 0)) > 0:
            self._known_below = last_known + 1
        self._answer()

    report_later = report

    def _answer(self) -> None:
        """Answer all that is known, up to the first message of which it is not."""
        unanswered = self._unanswered
        while unanswered:
            run = unanswered[0]
            known = self._known_of(run)
            if not known:
                return
            self._count(run.kind, -len(known))
            if len(known) == len(run.packet_ids):
                unanswered.popleft()
            self._answer_run(run, known)
            run.packet_ids = run.packet_ids[len(known) :]
            run.first += len(known) if run.first else 0

    def _known_of(self, run: Unanswered) -> Sequence[int]:
        """The packets at the begin of a run whose answers are known."""
        if run.waits:
            return ()
        if run.first:
            return run.packet_ids[: max(0, self._known_below - run.first)]
        return run.packet_ids if run.code is not None else ()

    def _answer_run(self, run: Unanswered, packet_ids: Sequence[int]) -> None:
        """Answer messages of a run, whose answers are known."""
        refused = run.refused
        if run.first and self._refused:
            numbers = range(run.first, run.first + len(packet_ids))
            refused = dict(refused)
            for number, packet_id in zip(numbers, packet_ids, strict=True):
                if number in self._refused:
                    refused[packet_id] = ReasonCode.QUOTA_EXCEEDED
            self._refused.difference_update(numbers)
        if run.first and run.kind is PacketType.PUBREC:
            self._note_taken(packet_ids, refused)
        if self._is_ended:
            return
        code = run.code
        assert code is not None, "it is known by now"
        if not refused:
            self._add_same(run.kind, packet_ids, code)
            return
        codes = [refused.get(packet_id, code) for packet_id in packet_ids]
        self._add_acks(run.kind, packet_ids, codes)

    def _add_acks(
        self, kind: PacketType, packet_ids: Sequence[int], codes: Sequence[ReasonCode]
    ) -> None:
        """Answer messages, each with its code."""
        start = 0
        for code, same in groupby(codes):
            stop = start + sum(1 for _ in same)
            self._add_same(kind, packet_ids[start:stop], code)
            start = stop

    def _add_same(self, kind: PacketType, packet_ids: Sequence[int], code: ReasonCode) -> None:
        """Answer messages alike.  Before version 5 refused ones are not answered, as with RabbitMQ;
        but a PUBCOMP always is."""
        if self._terms.version == MQTT_5:
            self._output.add(build_acks(kind, packet_ids, code))
        elif not code.is_error or kind is PacketType.PUBCOMP:
            self._output.add(build_acks(kind, packet_ids))

    def _note_taken(self, packet_ids: Sequence[int], refused: Collection[int]) -> None:
        """Messages of QoS 2 are safe, or refused: then they may come again."""
        incoming = self._state.incoming
        for packet_id in packet_ids:
            is_refused = packet_id in refused
            code = ReasonCode.QUOTA_EXCEEDED if is_refused else ReasonCode.SUCCESS
            for answer in self._waiting.pop(packet_id, ()):
                answer(code)
            if incoming.get(packet_id) is not self:
                continue  # it is released already
            if is_refused:
                del incoming[packet_id]
                if self._packets is not None:
                    self._packets.forget(INCOMING, (packet_id,), ignore_done)
                    commits = self._session.commits
                    self._output.hold(commits.ticket)
                    commits.wait(self._output, commits.ticket)
            else:
                incoming[packet_id] = None
        self._end_when_known()

    # Messages whose packets are noted first

    @property
    def _notes_first(self) -> bool:
        """True if packets of QoS 2 are noted before their messages are published."""
        return self._packets is not None and not self._packets.goes_with_messages

    def _note_first(self, prepared: PreparedRun) -> int:
        """Note the packets of a run, and publish its messages then; the cost."""
        packets, incoming = self._packets, self._state.incoming
        assert packets is not None, "the session lasts"
        if prepared.repeated_ids:
            self._answer_repeated(prepared.repeated_ids, prepared.qos)
        client_id, numbers, keys = self._state.client_id, dict[int, int](), list[bytes]()
        for packet_id in prepared.packet_ids:
            before = incoming.get(packet_id)
            number = before.number if isinstance(before, BegunPacket) else packets.new_number()
            numbers[packet_id] = number
            keys.append(message_key(client_id, packet_id, number))  # mutant: MQ51
            incoming[packet_id] = self
        self._begun.update(numbers)
        run = NotedRun(self, prepared, numbers, keys, self._at_least_once.observer)
        self._expect(run.answer)
        packets.begin(numbers, partial(self._publish_noted, run))
        return len(numbers)

    def _publish_noted(self, run: NotedRun) -> None:
        """Publish messages whose packets are noted, unless their connection has ended: then the
        client sends them again."""
        if not self._begun.keys() >= set(run.packet_ids):
            return
        for packet_id in run.packet_ids:
            del self._begun[packet_id]
        session = self._session
        if self._long_runs:
            self._long_runs.append(run)
            return
        try:
            run.publish(session, self._retained)
        except LookupTooLong:
            self._long_runs.append(run)
            session.background_tasks.finish(self._publish_long())

    def _publish_long(self) -> Steps[None]:
        """Publish runs that take long to route, and those that came behind them."""
        while self._long_runs:
            yield from self._long_runs[0].publish_in_steps(self._session, self._retained)
            self._long_runs.popleft()

    def noted_refused(self, run: NotedRun, error: BrokerError) -> None:
        """Messages whose packets were noted first may not be published: answer them as refused, or
        as if they were taken, or end the connection where neither will do."""
        is_v5 = self._terms.version == MQTT_5
        if not is_v5 and (self._terms.disconnects or not isinstance(error, AccessRefused)):
            assert self._packets is not None
            self._packets.refuse(error)
            return
        if not is_v5:
            count = len(run.packet_ids)
            self._session.traffic.dropped[ClientDrop.NOT_AUTHORIZED] += count
        else:
            run.refused.update(dict.fromkeys(run.packet_ids, code_of(error)))
        self.settle_noted(run)

    def settle_noted(self, run: NotedRun) -> None:
        """Answer messages of which it is known what becomes of them.  The packets of refused ones
        are forgotten before, for their identifiers are those of other messages then."""
        answer, packets = partial(self._answer_noted, run), self._packets
        refused = [*filter(self._is_refusal_said, run.refused)]
        if refused and packets is not None:
            packets.forget(INCOMING, refused, answer)
        else:
            answer()

    def _is_refusal_said(self, packet_id: int) -> bool:
        """True if the client will be sent that a message is refused.  If not, it sends the message
        again, which must not come twice to queues that have it: S5 4.3.3-10."""
        return self._terms.version == MQTT_5 and (not self._is_ended or packet_id in self._waiting)

    def _answer_noted(self, run: NotedRun) -> None:
        incoming, unsaid = self._state.incoming, dict[int, int]()
        for packet_id in run.packet_ids:
            code = run.refused.get(packet_id, ReasonCode.SUCCESS)
            is_unsaid = code.is_error and not self._is_refusal_said(packet_id)
            for answer in self._waiting.pop(packet_id, ()):
                answer(code)
            if incoming.get(packet_id) is not self:
                continue
            if is_unsaid:
                number = unsaid[packet_id] = run.numbers[packet_id]
                incoming[packet_id] = BegunPacket(number)
            elif code.is_error:
                del incoming[packet_id]
            else:
                incoming[packet_id] = None
        if unsaid and self._packets is not None:  # it may have been forgotten as they ended
            self._packets.begin(unsaid, ignore_done)
        run.answer.code, run.answer.refused = ReasonCode.SUCCESS, run.refused
        self._answer()
        self._end_when_known()

    def tell(self, packet_id: int, answer: Callable[[ReasonCode], None]) -> None:
        """Have `answer` called once it is known of a message."""
        self._waiting.setdefault(packet_id, []).append(answer)

    def _answer_earlier(self, unanswered: Unanswered, code: ReasonCode) -> None:
        """Answer packets of an earlier connection, whose messages are safe or refused."""
        unanswered.code = code
        self._answer()

    def end(self) -> None:
        """The connection has ended: answer nothing more.

        What becomes of messages of QoS 2 is still noted, if the session lasts.
        """
        self._is_ended = True
        for packet_id, number in self._begun.items():
            self._state.incoming[packet_id] = BegunPacket(number)
        self._begun.clear()
        self._at_most_once.end()
        self._end_when_known()

    def _end_when_known(self) -> None:
        """End the publisher of QoS 1 and 2 of a connection that is gone, once nothing is to be
        noted any more of what it has taken: until then it is counted as open."""
        if not self._is_ended:
            return
        if not (self._state.is_lasting and self in self._state.incoming.values()):
            self._at_least_once.end()
