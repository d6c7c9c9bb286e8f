"""CONNECT of MQTT: the identity of a client, the session it has, and the answer to it.

    identifier --> credentials --> login --> virtual host --> rights --> takeover --> session

RabbitMQ's order.  What is refused is answered with a code, and nothing of the client is left; a
user without the rights to a session does not end the connection that has it.
Sources: S5 3.1, 3.1.4; RabbitMQ 4.0.5 (rabbit_mqtt_processor, process_connect).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.access.access import LoginRefused, LoopbackOnly, PasswordChecksOverloaded, User
from fluffle.broker.base.client_session import ClientSession
from fluffle.broker.base.errors import BrokerError, NotAllowed, PreconditionFailed
from fluffle.broker.base.message import KEY_BYTES
from fluffle.broker.core.login import (
    MECHANISMS,
    ConnectionLimitReached,
    Credentials,
    Login,
    VhostNotFound,
    admit,
    ask_read_barrier,
    certificate_credentials,
    offered_mechanisms,
)
from fluffle.broker.core.session import Session
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.metadata import change_or_refuse
from fluffle.broker.metadata.nodes import NUMBERS_SESSIONS, check_supported
from fluffle.broker.process.encryption import (
    alternative_name,
    certified_name,
    distinguished_name,
)
from fluffle.broker.protocols.mqtt.authentication import AuthenticatedClient, Authentication
from fluffle.broker.protocols.mqtt.due_wills import ChangeWithWill
from fluffle.broker.protocols.mqtt.reasons import REFUSED_LOGIN, code_of
from fluffle.broker.protocols.mqtt.server import (
    bound_subscriptions,
    has_definitions,
    lasting_queues_of,
    queues_of,
    renew_expiry,
)
from fluffle.broker.protocols.mqtt.session_state import (
    NEVER_S,
    SessionState,
    TopicSubscription,
)
from fluffle.broker.protocols.mqtt.shared_queues import LASTS, memberships
from fluffle.broker.protocols.mqtt.sys_topics import check_may_publish_to, check_may_read
from fluffle.broker.protocols.mqtt.will import (
    NO_RECORD,
    PendingWill,
    decode_record,
    encode_record,
    is_replaced,
)
from fluffle.broker.queues.arguments import DeliveryGuarantee
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.runtime.background import in_pieces
from fluffle.broker.vhosts import queue_changes
from fluffle.broker.vhosts.client_sessions import end_session, keep_session
from fluffle.protocol.mqtt.codes import MQTT_5, ReasonCode
from fluffle.protocol.mqtt.properties import PropertyId
from fluffle.protocol.steps import Steps, whole

if TYPE_CHECKING:
    from fluffle.broker.base.clock import CallLater, Timer
    from fluffle.broker.core.services import Services
    from fluffle.broker.protocols.mqtt.server import MqttServer
    from fluffle.broker.queues.queue_api import QueueHandle
    from fluffle.broker.vhosts.vhost import VirtualHost
    from fluffle.protocol.mqtt.packets import Connect

MECHANISM = "PLAIN"
"""Mechanism of a login with user and password in logs and events; RabbitMQ's lists say "none"."""

TAKEOVER_WAIT_S = 5
"""How long a CONNECT waits at most for the connection before to give its session up."""

CHECKED_AT_ONCE = 256
"""Filters of a session that are looked at in a turn, when its client is back: a millisecond."""


class ConnectClient(AuthenticatedClient, Protocol):
    """Connection of a client that has sent CONNECT."""

    authentication: Authentication | None
    """Its enhanced authentication, if it has chosen a method."""
    came_at_ms: int
    """When its CONNECT came, in ms of common time."""

    @property
    def is_over(self) -> bool: ...

    def accept(self, accepted: Accepted) -> None:
        """Let the client in, and answer it."""

    def refuse_connect(self, code: ReasonCode, text: str, answer: str | None = None) -> None:
        """Answer that it is not let in, and close."""

    def give_up(self, error: Exception) -> None:
        """Close it for an error of the broker's own that concerns it alone."""


class Accepted(NamedTuple):
    """Client that has been let in."""

    packet: Connect
    session: Session
    state: SessionState
    is_present: bool
    """True if the session was there."""
    is_assigned: bool
    """True if its identifier was given to it here."""
    will_key: bytes
    """Key of the message of its will."""


class TakeoverWait:
    """Wait of a CONNECT until the connection before has given the session up, or has had its time
    for that: then what is on record counts."""

    __slots__ = ("_go_on", "_timer")

    def __init__(self, go_on: Callable[[], None], call_later: CallLater) -> None:
        self._go_on = go_on
        self._timer: Timer | None = call_later(TAKEOVER_WAIT_S, self.end)
        """Timer that ends it; None once it is over."""

    def end(self) -> None:
        """Go on, unless that has been done."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._go_on()


class ConnectRequest:
    """CONNECT of a client, until it is accepted or refused."""

    __slots__ = (
        "_client",
        "_client_id",
        "_expiry_s",
        "_is_checked",
        "_is_present",
        "_keeps_colons",
        "_kept",
        "_packet",
        "_server",
        "_vhost_name",
        "_waiting_will",
        "_will_key",
    )

    def __init__(self, server: MqttServer, client: ConnectClient, packet: Connect) -> None:
        self._server = server
        self._client = client
        client.came_at_ms = server.now_ms()
        self._packet = packet
        self._client_id = packet.client_id or server.services.random_name()
        self._vhost_name = server.config.vhost
        self._keeps_colons = server.config.ignore_colons_in_user
        """True if the user name has no virtual host before a colon."""
        self._expiry_s = self._asked_expiry_s()
        """How long the session is to last behind its connection."""
        self._kept: ClientSession | None = None
        """Record of the session, in whose place this client's comes."""
        self._will_key = b""
        if packet.will is not None:
            drawn = server.services.random_name().encode()
            self._will_key = blake2b(drawn, digest_size=KEY_BYTES).digest()
        self._is_present = False
        """True if the session is there, and goes on."""
        self._is_checked = False
        """True if the user may have that."""
        self._waiting_will: PendingWill | None = None
        """Will that waited for the client, if the session goes on."""
        client.handshake.client_id = self._client_id

    def begin(self) -> None:
        """Log the client in, now or later."""
        try:
            check_supported(NUMBERS_SESSIONS, self._server.services.nodes)
        except PreconditionFailed as refused:  # what MQTT writes ends a node of a version before
            self._refuse(ReasonCode.SERVER_UNAVAILABLE, refused.explanation)
            return
        method = self._packet.properties.text(PropertyId.AUTHENTICATION_METHOD)
        if method is not None and method not in offered_mechanisms(self._client, MECHANISMS):
            self._refuse(ReasonCode.BAD_AUTHENTICATION_METHOD, "no such method")
            return
        if not self._is_own_id():
            self._refuse(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "not that of the certificate")
            return
        limit = self._server.config.connections_max
        if limit is not None and len(self._server.connected) >= limit:
            self._refuse(ReasonCode.QUOTA_EXCEEDED, "there are as many connections as may be")
            return
        if self._server.services.global_parameters:
            self._map_vhost()
        if method is not None:
            self._authenticate(method)
            return
        credentials = self._credentials()
        if credentials is None:
            self._refuse(ReasonCode.BAD_USER_NAME_OR_PASSWORD, "no user name and password")
            return
        self._log_in(MECHANISM, credentials)

    def _log_in(self, mechanism: str, credentials: Credentials) -> None:
        """Log the client in, unless its virtual host is not there: RabbitMQ looks for that first,
        and counts a login that failed."""
        client, services = self._client, self._server.services
        login = Login(client, mechanism, credentials, self._on_login)

        def known() -> None:
            if not client.is_logging_in:
                return
            if self._vhost_name in services.vhosts:
                login.begin()
            else:
                failed(VhostNotFound(f"vhost {self._vhost_name} not found"))

        def failed(error: BrokerError) -> None:
            if client.is_logging_in:
                services.runtime.traffic.logins_of(client.traffic_labels).failed += 1
                self._not_admitted(error)

        if self._vhost_name in services.vhosts:
            login.begin()
        else:
            ask_read_barrier(client, known, failed)

    def _authenticate(self, method: str) -> None:
        """Log the client in by a SASL mechanism, once it has given its response."""
        client, packet = self._client, self._packet
        authentication = client.authentication = Authentication(client, method)
        client.handshake.mechanism = method

        def take(response: bytes) -> None:
            try:
                credentials = authentication.credentials(response)
            except BrokerError as refused:
                self._refuse(ReasonCode.BAD_USER_NAME_OR_PASSWORD, refused.explanation)
                return
            if credentials.password is not None:
                name = self._without_vhost(credentials.name)
                credentials = credentials._replace(name=name)
            self._log_in(method, credentials)

        authentication.ask(packet.properties.binary(PropertyId.AUTHENTICATION_DATA), take)

    def _is_own_id(self) -> bool:
        """True if the client has the identifier that its certificate has, if that is asked for."""
        config, certificate = self._server.config, self._client.certificate
        if config.cert_client_id_from is None or not certificate:
            return True
        if config.cert_client_id_from == "distinguished_name":
            own = distinguished_name(certificate)
        else:
            own = alternative_name(certificate, config.cert_san_type, config.cert_san_index)
        return self._packet.client_id == own != ""

    def _credentials(self) -> Credentials | None:
        """Return the client's credentials; None if it must have some and has none."""
        config, user, password = self._server.config, self._packet.user, self._packet.password
        if user and password:
            return Credentials(self._without_vhost(user), password)
        if user or password:
            return None
        if config.cert_login and self._client.certificate:
            return certificate_credentials(self._client)
        if config.allow_anonymous and config.anonymous_user is not None:
            return Credentials(config.anonymous_user, config.anonymous_password.encode())
        return None

    def _map_vhost(self) -> None:
        """Take the virtual host that global parameters of RabbitMQ's name: for a certificate, or
        for the port.  A client with a certificate does not say another by its user name."""
        client, services = self._client, self._server.services
        certificate = client.certificate if self._server.config.cert_login else None
        mapped = None
        if certificate:
            name = certified_name(certificate, services.certificate_login)
            mapped = mapped_vhost(services, "mqtt_default_vhosts", name)
        _, (_, port) = client.ends
        mapped = mapped or mapped_vhost(services, "mqtt_port_to_vhost_mapping", str(port))
        if mapped is not None:
            self._vhost_name = mapped
            self._keeps_colons = self._keeps_colons or bool(certificate)

    def _without_vhost(self, user: str) -> str:
        """The user of "vhost:user"; the virtual host is taken from it."""
        vhost, colon, name = user.rpartition(":")
        if not colon or self._keeps_colons:
            return user
        self._vhost_name = vhost
        return name

    def _on_login(self, outcome: User | LoginRefused) -> None:
        if isinstance(outcome, LoopbackOnly):
            self._refuse(ReasonCode.NOT_AUTHORIZED, str(outcome), REFUSED_LOGIN)
        elif isinstance(outcome, PasswordChecksOverloaded):
            self._refuse(ReasonCode.SERVER_BUSY, str(outcome))
        elif isinstance(outcome, LoginRefused):
            self._refuse(ReasonCode.BAD_USER_NAME_OR_PASSWORD, str(outcome))
        else:
            self._find_vhost()

    def _find_vhost(self) -> None:
        try:
            found = admit(self._client, self._vhost_name)
        except NotAllowed as refused:
            self._not_admitted(refused)
            return
        if isinstance(found, Deferred):
            found.then(self._take_over, self._not_admitted)
        else:
            self._take_over(found)

    def _not_admitted(self, refused: BrokerError) -> None:
        code = ReasonCode.NOT_AUTHORIZED
        if isinstance(refused, VhostNotFound):
            code = ReasonCode.BAD_USER_NAME_OR_PASSWORD
        elif isinstance(refused, ConnectionLimitReached):
            code = ReasonCode.QUOTA_EXCEEDED
        self._refuse(code, refused.explanation)

    def _take_over(self, vhost: VirtualHost) -> None:
        """Have the connection end that has the session, if there is one, and go on then."""
        if self._client.is_over:
            return
        before = self._server.connected.get((vhost.name, self._client_id))  # mutant: MQ28
        self._allow(vhost, self._opened if before is None else self._end_other)

    def _end_other(self, session: Session) -> None:
        """Have the connection end that has the session of MQTT, which this client may have."""
        vhost = session.vhost
        session.end()
        before = self._server.connected.get((vhost.name, self._client_id))
        if before is None:
            self._open(vhost)
            return
        call_later = self._server.services.runtime.clients_call_later
        before.take_over(TakeoverWait(partial(self._open, vhost), call_later).end)

    def _allow(self, vhost: VirtualHost, then: Callable[[Session], None]) -> None:
        """Open a session in the core and call `then`, now or later, if the client may have that of
        MQTT; else refuse it."""
        client, server = self._client, self._server
        logged_in = client.handshake.user
        assert logged_in is not None, "it has logged in"
        user = self._defined_user(logged_in.name, vhost)
        if user is None:
            return
        session = Session(user=user, vhost=vhost, services=server.services, client=client)
        session.rights.topic_variables["client_id"] = self._client_id
        will = self._packet.will
        try:
            if will is not None:
                check_may_publish(server, session, will.topic.decode())
        except BrokerError as refused:
            self._not_opened(session, refused)
            return
        self._find(session)
        self._is_checked = False
        if self._is_present:
            steps = check_may_resume(server, session, self._client_id)
            self._check(session, steps, then)
        else:
            then(session)

    def _defined_user(self, name: str, vhost: VirtualHost) -> User | None:
        """Return the user; None, and the client is refused, if that or the virtual host is gone."""
        services = self._server.services
        user = services.access.users.get(name)
        if user is not None and services.vhosts.get(vhost.name) is vhost:
            return user
        self._refuse(ReasonCode.NOT_AUTHORIZED, "user or virtual host is deleted")
        return None

    def _check(self, session: Session, steps: Steps[None], then: Callable[[Session], None]) -> None:
        """Go on with `then` once all steps are done: a session may have thousands of filters."""
        if self._client.is_over:
            session.end()
            return
        go_on = partial(self._check, session, steps, then)
        try:
            for _ in steps:
                self._server.services.runtime.turn.act_later(go_on, self._client.give_up)
                return
        except BrokerError as refused:
            self._not_opened(session, refused)
            return
        if self._defined_user(session.user.name, session.vhost) is None:  # by now
            session.end()
            return
        self._is_checked = True
        then(session)

    def _find(self, session: Session) -> None:
        """Find the session of MQTT, and whether it goes on."""
        vhost, server = session.vhost, self._server
        key = vhost.name, self._client_id
        self._kept = server.kept(key)
        # mutant: MQ27
        self._is_present = not self._packet.clean_start and is_there(
            vhost, self._client_id, self._client.came_at_ms
        )

    def _open(self, vhost: VirtualHost) -> None:
        """Have the session of MQTT be this client's."""
        if not self._client.is_over:
            self._allow(vhost, self._opened)

    def _opened(self, session: Session) -> None:
        """Note that the session of MQTT is this client's, where there is something to note."""
        vhost = session.vhost
        server, key = self._server, (vhost.name, self._client_id)
        if not self._expiry_s and self._is_new(vhost):
            self._accept(session)
            return
        server.connecting[key] += 1
        decide = partial(self._decide_session, session)
        change = ChangeWithWill(server.due_wills, decide)
        if self._ends_elsewhere(session):  # which is to hear why, before its queues are gone
            server.unkept.announce(key, self._client.came_at_ms)
        change_or_refuse(
            session.metadata,
            change.decide,
            partial(self._decided, session, change),
            partial(self._not_kept, session),
        )

    def _is_new(self, vhost: VirtualHost) -> bool:
        """True if there is no session of the client, as far as its CONNACK has to say.

        Without a clean start it says whether one is there: another node may know of one, so that a
        change is decided, though it changes nothing, once this node knows what the others do."""
        server = self._server
        if has_definitions(vhost, self._client_id, server.config.exchange):
            return False
        return self._packet.clean_start or server.services.read_barrier.is_complete

    def _ends_elsewhere(self, session: Session) -> bool:
        """True if a connection to another node has exclusive queues of the session, and ends."""
        try:
            ending = self._ending_queues(session)
        except BrokerError:
            return False
        return any(each.owner is not None for each in ending)

    def _decided(self, session: Session, change: ChangeWithWill) -> None:
        change.done()
        self._server.connect_over((session.vhost.name, self._client_id), is_let_in=True)
        self._accept(session)

    def _not_kept(self, session: Session, error: BrokerError) -> None:
        self._server.connect_over((session.vhost.name, self._client_id), is_let_in=False)
        self._not_opened(session, error)

    def _decide_session(self, session: Session) -> tuple[Change, PendingWill | None]:
        """Keep the session if it is to last or has lasted so far, and delete what ends: all of it
        with a clean start, and in any case exclusive queues, which are of a connection before.
        Return that, and the will that is due as this client has come.

        A session that lasts no longer than this connection is kept until that ends, so that it
        ends when the node starts again, too."""
        self._find(session)
        vhost, client_id, is_present = session.vhost, self._client_id, self._is_present
        if is_present and not self._is_checked:
            whole(check_may_resume(self._server, session, client_id))
        change = queue_changes.delete_queues(vhost, self._ending_queues(session))
        if not is_present:
            exchange = self._server.config.exchange
            leaving = memberships(vhost, exchange, client_id, LASTS)
            change = change.joined(queue_changes.leave_groups(vhost, leaving))
            change = change.joined(end_session(vhost, client_id))
        expiry_s = self._expiry_s
        due = self._replaced_will(vhost)
        if not (expiry_s or is_present):
            return change, due
        node, before = self._server.services.owners.node, self._kept
        record = encode_record(self._pending_will(session))
        if is_present and before is not None and before.node == node:
            number = before.number
        else:
            number = self._server.packet_requests.session_number(before)
        kept = ClientSession(session.user.name, expiry_s, 0, node, record, number)
        if is_present and expiry_s:
            change = change.joined(renew_expiry(vhost, client_id, expiry_s))  # mutant: MQ67
        return change.joined(keep_session(vhost, client_id, kept)), due  # mutant: MQ57

    def _replaced_will(self, vhost: VirtualHost) -> PendingWill | None:
        """Return the will that is on record of the session, if it is due now."""
        key, kept = (vhost.name, self._client_id), self._kept
        pending = None if kept is None else decode_record(key, kept.record)
        if kept is None or pending is None:
            return None
        is_own = self._packet.will is not None and pending.message_key == self._will_key
        is_due = is_replaced(kept, pending, is_present=self._is_present)
        return pending if is_due and not is_own else None  # mutant: MQ74

    def _ending_queues(self, session: Session) -> tuple[QueueHandle, ...]:
        """Return the queues of the session that end with this.  AccessRefused, ResourceLocked."""
        vhost, there = session.vhost, queues_of(session.vhost, self._client_id)
        is_present = self._is_present
        ending = tuple(each for each in there if not is_present or each.owner is not None)
        for queue in ending:
            if not self._may_end(queue):
                raise vhost.locked(queue.name)
            session.rights.check("configure", "queue", queue.name)
        return ending

    def _may_end(self, queue: QueueHandle) -> bool:
        """True if a queue with a name of the session is of it, and not an exclusive one that a
        client of another protocol has."""
        owners, owner = self._server.services.owners, queue.owner
        if owner is None or owners.has_ended(owner):
            return True
        if owner.node == owners.node:  # where the session has been taken over by now
            return False
        return queue.spec.guarantee is not DeliveryGuarantee.AT_LEAST_ONCE  # as no session's is

    def _pending_will(self, session: Session) -> PendingWill | None:
        """The will as it is kept, should the node end before the connection does."""
        client, will = self._client, self._packet.will
        if will is None:
            return None
        key = session.vhost.name, self._client_id
        user = session.user.name
        return PendingWill(key, user, will, client.ends, client.name, self._will_key)

    def _not_opened(self, session: Session, error: BrokerError) -> None:
        session.end()
        self._refuse(code_of(error), error.explanation)

    def _accept(self, session: Session) -> None:
        """Take the session of MQTT, unless another has come for it meanwhile."""
        server, vhost = self._server, session.vhost
        kept, is_present = self._kept, self._is_present
        key = vhost.name, self._client_id
        expiry_s = self._expiry_s
        is_kept = bool(expiry_s) or is_present
        if key in server.connected or (is_kept and key in server.ending):
            session.end()
            self._take_over(vhost)
            return
        if is_kept and not server.is_own(key):
            session.end()
            self._refuse(ReasonCode.SERVER_UNAVAILABLE, "taken over before it was answered")
            return
        state = server.opened(key, kept, is_present=is_present)
        state.expiry_s, state.user, state.is_kept = expiry_s, session.user.name, is_kept
        own = server.kept(key) if is_kept else None
        state.number = 0 if own is None else own.number
        state.record = NO_RECORD if own is None else own.record
        if is_present:
            server.connecting[key] += 1
            self._waiting_will = server.wills.take(key, kept)
            self._restore(session, state, own, restore_subscriptions(server, session, state))
        else:
            self._let_in(session, state)

    def _restore(
        self, session: Session, state: SessionState, own: ClientSession | None, steps: Steps[None]
    ) -> None:
        """Let the client in once its subscriptions are known: a session may have thousands.  If
        another has come for it meanwhile, that one has it.

        `own`: the record of the session, as it is this client's.
        """
        server, key = self._server, state.key
        if key in server.connected or server.kept(key) is not own:
            session.end()
            server.connect_over(key, is_let_in=False)
            self._refuse(ReasonCode.SERVER_UNAVAILABLE, "taken over before it was answered")
            return
        if not self._client.is_over:
            go_on = partial(self._restore, session, state, own, steps)
            for _ in steps:
                server.services.runtime.turn.act_later(go_on, self._client.give_up)
                return
        server.connect_over(key, is_let_in=True)
        self._let_in(session, state)

    def _let_in(self, session: Session, state: SessionState) -> None:
        """Let the client in, unless it or its user has gone meanwhile: then its session waits
        again, as it did."""
        server, client, is_present = self._server, self._client, self._is_present
        user = session.user.name
        if client.is_over or self._defined_user(user, session.vhost) is None:
            session.end()
            server.detach(state, client, user, self._waiting_will)
            return
        accepted = Accepted(
            self._packet,
            session,
            state,
            is_present,
            is_assigned=not self._packet.client_id,
            will_key=self._will_key,
        )
        try:
            client.accept(accepted)
        except Exception as error:  # noqa: BLE001 - a bug ends one connection
            client.give_up(error)

    def _asked_expiry_s(self) -> int:
        """Return how long the session may and is to last behind its connection."""
        longest_s = self._server.config.session_expiry_s_max
        longest_s = NEVER_S if longest_s is None else longest_s
        if self._packet.version < MQTT_5:
            return 0 if self._packet.clean_start else longest_s
        asked_s = self._packet.properties.integer(PropertyId.SESSION_EXPIRY_INTERVAL, 0)
        return min(asked_s, longest_s)

    def _refuse(self, code: ReasonCode, text: str, answer: str | None = None) -> None:
        if not self._client.is_over:
            self._client.refuse_connect(code, text, answer)


def mapped_vhost(services: Services, parameter: str, key: str) -> str | None:
    """Return the virtual host that a global parameter names under a key."""
    value = services.global_parameters.get((parameter,), {}).get("value")
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def is_there(vhost: VirtualHost, client_id: str, at_ms: int) -> bool:
    """True if there is a session, which had not ended at that time.  One that ends with its
    connection is over once its client connects anew, wherever that is.  S5 3.1.4."""
    kept = vhost.client_sessions.by_client.get(client_id)
    if kept is None:
        return bool(lasting_queues_of(vhost, client_id))
    if not kept.expiry_s:  # mutant: MQ72
        return False
    if not kept.ended_at_ms or kept.expiry_s == NEVER_S:
        return True
    return at_ms < kept.ended_at_ms + kept.expiry_s * 1000


def check_may_publish(server: MqttServer, session: Session, topic: str) -> None:
    """Check that a user may publish to a topic.  AccessRefused, NotFound."""
    exchange = server.config.exchange
    check_may_publish_to(topic)
    session.rights.check("write", "exchange", exchange)
    session.vhost.router.publishable(exchange)
    key = server.converter.topics.routing_key(topic)
    session.rights.check_topic("write", exchange, key)


def check_may_resume(server: MqttServer, session: Session, client_id: str) -> Steps[None]:
    """Check that a user may read what is in the queues of a session, which may have been
    another's.  AccessRefused."""
    vhost, exchange, rights = session.vhost, server.config.exchange, session.rights
    for queue in queues_of(vhost, client_id):
        rights.check("read", "queue", queue.name)
        found = queue_changes.subscriptions(vhost, exchange, queue.name)
        for part in in_pieces(found, CHECKED_AT_ONCE):
            for binding, subscription in part:
                rights.check_topic("read", exchange, binding.routing_key)
                check_may_read(session, subscription.topic_filter, exchange)
            if len(part) == CHECKED_AT_ONCE:
                yield
    for binding in memberships(vhost, exchange, client_id, LASTS):
        rights.check("read", "queue", binding.destination)
        rights.check_topic("read", exchange, binding.routing_key)


def restore_subscriptions(server: MqttServer, session: Session, state: SessionState) -> Steps[None]:
    """Read the subscriptions of a session from its bindings, which others may have changed while
    its client was away."""
    vhost, there = session.vhost, state.subscriptions
    bound: dict[str, TopicSubscription] = {}
    found = bound_subscriptions(vhost, server.config.exchange, state.client_id)
    for part in in_pieces(found, CHECKED_AT_ONCE):
        for each in part:
            own = there.get(each.full_filter)
            bound[each.full_filter] = own if own == each else each
        if len(part) == CHECKED_AT_ONCE:
            yield
    for filters in in_pieces(there.keys() - bound.keys(), CHECKED_AT_ONCE):
        for gone in map(there.__getitem__, filters):
            if not gone.share_name or gone.queue(state.client_id) in vhost.queues:
                state.unsubscribe(gone.full_filter)
        if len(filters) == CHECKED_AT_ONCE:
            yield
    for new in in_pieces(bound.items(), CHECKED_AT_ONCE):
        for full_filter, subscription in new:
            if there.get(full_filter) is not subscription:
                state.subscribe(subscription)
        if len(new) == CHECKED_AT_ONCE:
            yield
