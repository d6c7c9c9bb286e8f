"""Wills of MQTT clients: messages that are published when their connections end without a word.

A will that is to be delayed waits for its client: it is published when its time has come, or when
the session ends before, and not at all if the client comes back to the session.  The user must
have the right to publish it at that time.  Source: S5 3.1.2.5, 3.1.3.2.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import event
from fluffle.broker.base.message import with_key
from fluffle.broker.base.traffic import TrafficLabels
from fluffle.broker.core.client import Handshake
from fluffle.broker.core.publisher import Publisher
from fluffle.broker.core.session import Session
from fluffle.broker.metadata.metadata import ignore_done, is_premature
from fluffle.broker.protocols.mqtt.annotations import client_mark
from fluffle.broker.protocols.mqtt.prepared_runs import (
    PreparedRun,
    PublishTerms,
    find_route,
    note_unreached,
    prepared_run,
    retain,
)
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.packets import Will
from fluffle.protocol.mqtt.reader import Publishes
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluffle.broker.base.client_session import ClientSession
    from fluffle.broker.base.clock import Timer
    from fluffle.broker.base.logs import LimitedLog
    from fluffle.broker.core.confirms import Confirms
    from fluffle.broker.core.route_lookup import RoutedBatch
    from fluffle.broker.core.services import Services
    from fluffle.broker.definitions.retained import RetainedStore
    from fluffle.broker.protocols.mqtt.conversion import MessageConverter
    from fluffle.broker.protocols.mqtt.session_state import SessionKey
    from fluffle.broker.queues.publish_target import BackloggedTarget
    from fluffle.protocol.proxy import Address

logger = logging.getLogger(__name__)

UNCONFIRMED_MAX = 512
"""Most wills that wait until it is known whether there are more queues; in 32 MiB, if all are as
long as they can be.  Further ones go to the queues that are known."""


class PendingWill(NamedTuple):
    """Will of a client whose connection has ended."""

    key: SessionKey
    user: str
    will: Will
    ends: tuple[Address, Address]
    name: str
    """Name of the connection."""
    message_key: bytes = b""
    """Key by which queues of a cluster know the message, should two nodes publish it."""


class WillClient:
    """Client of a connection that has ended, for which a will is published: a `core.Client`."""

    __slots__ = ("close_reason", "ends", "handshake", "name")
    kind = ""
    protocol = "MQTT"
    traffic_labels = TrafficLabels("mqtt50", "mqtt")
    is_encrypted = False
    heartbeat_s = read_bytes = written_bytes = 0

    def __init__(self, pending: PendingWill) -> None:
        self.ends = pending.ends
        self.name = pending.name
        self.handshake = Handshake()
        self.close_reason = "done"

    def on_behind(self, target: BackloggedTarget, count: int) -> None:
        """Ignore backpressure: one message needs none."""

    def on_disk_behind(self) -> None:
        """Ignore it: nothing waits for the disk here."""


class Wills:
    """Wills of a node that wait for their time."""

    __slots__ = (
        "_converter", "_exchange", "_retained", "_services", "_timers", "_unconfirmed", "_waiting",
        "_warnings",
    )  # fmt: skip

    def __init__(
        self,
        services: Services,
        converter: MessageConverter,
        exchange: str,
        retained: RetainedStore | None,
        warnings: LimitedLog,
    ) -> None:
        self._warnings = warnings
        self._retained = retained
        self._services = services
        self._converter = converter
        self._exchange = exchange
        self._waiting: dict[SessionKey, PendingWill] = {}
        self._timers: dict[SessionKey, Timer] = {}
        """Timers of the wills that wait for their delay."""
        self._unconfirmed = 0
        """Wills that wait until all is known here that others have defined."""

    def __len__(self) -> int:
        return len(self._waiting)

    def publish_later(
        self, pending: PendingWill, delay_s: float, publish: Callable[[], None]
    ) -> None:
        """Call `publish` in so many seconds, unless the client comes back or its session ends
        before."""
        self.session_resumed(pending.key)  # if another waits, this one takes its place
        self._waiting[pending.key] = pending
        call_later = self._services.runtime.call_later
        self._timers[pending.key] = call_later(delay_s, publish)

    def session_resumed(self, key: SessionKey) -> PendingWill | None:
        """The client is back: what waited is not published.  Return it."""
        pending = self._waiting.pop(key, None)
        if pending is not None:
            self._timers.pop(key).cancel()
        return pending

    def take(self, key: SessionKey, kept: ClientSession | None) -> PendingWill | None:
        """Take the will that waits for the client of a session, here or where it was before.
        `kept`: what was kept of the session then."""
        pending = self.session_resumed(key)
        if pending is None and kept is not None and kept.node != self._services.owners.node:
            pending = decode_record(key, kept.record)
        return None if pending is None or not pending.will.delay_s else pending

    def publish(self, pending: PendingWill, done: Callable[[], None] | None = None) -> None:
        """Publish a will now, as far as its user may.

        `done` is called once its queues have the message and it is retained, or that is refused;
        where a node is alone, as soon as it is in them: what follows is in one commit with it.

        A node that may be behind with its definitions asks what there is by now, before it takes
        queues for not there, or the user to have no right."""
        is_certain = self._services.read_barrier.is_complete
        self._publish(pending, done, is_certain=is_certain or self._unconfirmed >= UNCONFIRMED_MAX)

    def _publish_knowing(self, pending: PendingWill, done: Callable[[], None] | None) -> None:
        """Publish a will once all is known here that has been defined by now."""

        def known() -> None:
            self._unconfirmed -= 1
            self._publish(pending, done, is_certain=True)

        self._unconfirmed += 1
        self._services.read_barrier.ask(known)

    def _publish(
        self, pending: PendingWill, done: Callable[[], None] | None, *, is_certain: bool
    ) -> None:
        """Publish a will; unless it `is_certain`, only if nothing is missing here."""
        services, (vhost_name, client_id) = self._services, pending.key
        again = None if is_certain else partial(self._publish_knowing, pending, done)
        user, vhost = services.access.users.get(pending.user), services.vhosts.get(vhost_name)
        if user is None or vhost is None:
            (again or done or ignore_done)()
            return
        client = WillClient(pending)
        session = Session(user=user, vhost=vhost, services=services, client=client)
        session.rights.topic_variables["client_id"] = client_id
        terms = PublishTerms(
            MQTT_5,
            self._exchange,
            client_mark(client_id),
            receive_max=1,
            disconnects=True,
            warnings=self._warnings,
        )
        is_alone = services.read_barrier.is_complete
        message_key = b"" if is_alone else pending.message_key
        outcome = WillOutcome(
            session, done or ignore_done, is_awaited=done is not None, again=again
        )
        if not is_alone:
            outcome.confirm()
        turn = services.runtime.turn
        ends_turn = turn.begin()
        try:
            steps = publish_will(
                *(outcome, self._converter, terms, pending.will, self._retained),
                message_key=message_key,
            )
            for _ in steps:
                services.runtime.background_tasks.finish(steps)
                break
        finally:
            if ends_turn:
                turn.end()


def is_replaced(kept: ClientSession, pending: PendingWill, *, is_present: bool) -> bool:
    """True if a will is due as a client comes in the place of the session that has it on record.
    `is_present`: whether the session goes on.

    A connection that was not on record as ended ends with this; a will that waits for its delay is
    called off by a client that is back, and no longer waits for a session that has ended."""
    if pending.will.delay_s:
        return not is_present  # mutant: MQ29
    return not kept.ended_at_ms


NO_RECORD = b""


def encode_record(pending: PendingWill | None) -> bytes:
    """Encode what is kept of a session whose client is away, or connected without a will."""
    if pending is None:
        return NO_RECORD
    will, (peer, here) = pending.will, pending.ends
    fields = (
        *(pending.user, pending.name, *peer, *here, will.topic, will.payload),
        *(will.qos, will.retain, will.delay_s, will.properties, pending.message_key),
    )
    packed: bytes = msgpack.packb(fields, unicode_errors="surrogateescape")
    return packed


def decode_record(key: SessionKey, record: bytes) -> PendingWill | None:
    """Return the will that a record has, if it has one; without one the session of a client goes
    on whose record a later version has written in another way."""
    if not record:
        return None
    try:
        user, name, peer, peer_port, here, here_port, *fields = msgpack.unpackb(
            record, unicode_errors="surrogateescape"
        )
        ends = (str(peer), int(peer_port)), (str(here), int(here_port))
        message_key = fields.pop()
        return PendingWill(key, str(user), Will(*fields), ends, str(name), message_key)
    except (ValueError, TypeError) as error:
        vhost, client = key
        event(
            logger,
            logging.WARNING,
            "will_unreadable",
            vhost=vhost,
            client=client,
            reason=repr(error),
        )
        return None


class WillOutcome:
    """Outcome of a will that is published: the `PublishOutcomes` of its publisher."""

    __slots__ = ("_done", "_is_awaited", "_waits", "again", "publisher")

    def __init__(
        self,
        session: Session,
        done: Callable[[], None],
        *,
        is_awaited: bool,
        again: Callable[[], None] | None,
    ) -> None:
        """`done` is called once what is awaited is known."""
        self._done = done
        self.again = again
        """Publishes it once it is known what there is; None if that is known."""
        self._is_awaited = is_awaited
        self._waits = 1
        """Number of events that it waits for: the message was given to its queues, these have
        answered, it is retained or that is refused."""
        self.publisher = Publisher(session, self)

    def confirm(self) -> None:
        """Wait for the answers of queues, if anything is awaited."""
        if self._is_awaited:
            self._waits += 1  # mutant: MQ79
            self.publisher.confirm()

    def returned(self, routed: RoutedBatch) -> None:
        """No message of MQTT is mandatory."""

    def report(self, confirms: Confirms) -> None:
        """Note that the queues have answered."""
        known = confirms.take()
        if known.accepted or known.refused:
            self.one_known()

    report_later = report

    def retain(self, store: RetainedStore, prepared: PreparedRun) -> None:
        """Have the message retained."""
        if not self._is_awaited:
            retain(store, self.publisher.session, prepared, ignore_done, ignore_error)
            return
        self._waits += 1  # mutant: MQ80
        retain(store, self.publisher.session, prepared, self.one_known, self._not_retained)

    def _not_retained(self, _error: BrokerError) -> None:
        """Note that the message is not retained: no client is there to hear why."""
        self.one_known()

    def failed(self) -> None:
        """Note that the message is not published: nothing more will be known."""
        self._waits = 1  # mutant: MQ76
        self.one_known()

    def premature(self, again: Callable[[], None]) -> None:
        """Note that the message is not published yet, but `again`."""
        self.publisher.end()
        self.publisher.session.end()
        again()

    def one_known(self) -> None:
        self._waits -= 1
        if not self._waits:
            self.publisher.end()
            self.publisher.session.end()
            self._done()


def ignore_error(_error: BrokerError) -> None:
    """Ignore the error: a will that was not retained is not reported."""


def publish_will(
    outcome: WillOutcome,
    converter: MessageConverter,
    terms: PublishTerms,
    will: Will,
    retained: RetainedStore | None,
    *,
    message_key: bytes,
) -> Steps[None]:
    """Publish a will, under a key if it has one."""
    publisher, session = outcome.publisher, outcome.publisher.session
    try:
        prepared = prepared_run(session, converter, terms, run_of(will))
        annotations = prepared.annotations
        route = yield from find_route(session, prepared)
        yield from publisher.publish_batch_in_steps(
            route,
            prepared.facts,
            prepared.messages,
            prepared.lifetimes_ms,
            annotations=with_key(annotations, message_key) if message_key else annotations,
            is_certain=outcome.again is None,
        )
        if not prepared.reaches_amqp:
            note_unreached(session, prepared, terms.warnings)
        if prepared.retain and retained is not None:
            outcome.retain(retained, prepared)
        session.confirm()
    except BrokerError as error:
        if outcome.again is not None and is_premature(error, session.read_barrier):
            outcome.premature(outcome.again)
            return
        event(
            logger,
            logging.WARNING,
            "will_refused",
            connection=session.name,
            topic=will.topic.decode(),
            reason=error.explanation,
        )
        outcome.failed()
        return
    except Exception:
        outcome.failed()
        raise
    outcome.one_known()


def run_of(will: Will) -> Publishes:
    """The message of a will, as its client would have published it."""
    return Publishes(
        topic=will.topic,
        properties=will.properties,
        qos=will.qos,
        retain=will.retain,
        dup=False,
        packet_ids=[],
        payloads=[will.payload],
        content_bytes=len(will.payload),
    )
