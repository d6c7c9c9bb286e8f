"""Login of a client of any protocol: what it shows of itself, and the outcomes, each once."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from fluffle.broker.access.access import (
    Access,
    LoginRefused,
    LoopbackOnly,
    PasswordChecksOverloaded,
    User,
)
from fluffle.broker.access.limits import UserLimits
from fluffle.broker.access.verification import Answer, PasswordVerdict, Verifier
from fluffle.broker.base.errors import BrokerError, NotAllowed, SyntaxFailure
from fluffle.broker.base.traffic import TrafficLabels
from fluffle.broker.config.config import Limits
from fluffle.broker.core.client import Client, Handshake
from fluffle.broker.core.connections import Connections, Deadlines
from fluffle.broker.core.login import (
    EXTERNAL,
    HANDSHAKE,
    MECHANISMS,
    ConnectionLimitReached,
    Credentials,
    Login,
    UnknownMechanism,
    VhostNotFound,
    admit,
    check_admission,
    expect_login,
    offered_mechanisms,
    read_response,
)
from fluffle.broker.core.services import Services
from fluffle.broker.process.encryption import PeerCertificate
from fluffle.broker.queues.queue_api import Deferred
from tests.support.definitions import EVERYTHING
from tests.support.edge import Edge
from tests.support.observers import NodeRecorder
from tests.support.passwords import slow_hash
from tests.support.read_barrier import ManualReadBarrier


class Observer(NodeRecorder):
    """Keeps the logins that it sees, and fails at them if it is to."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(None)
        self.seen: list[tuple[str, ...]] = []
        self._fails = fails

    def logged_in(self, connection: Client, mechanism: str, name: str) -> None:
        del connection
        self.seen.append((mechanism, name))
        if self._fails:
            raise RuntimeError("a bug of the observer")

    def refused(self, connection: Client, mechanism: str, name: str, reason: str) -> None:
        del connection
        self.seen.append((mechanism, name, reason))
        if self._fails:
            raise RuntimeError("a bug of the observer")


class LoginConnection:
    """Connection of no protocol: a `LoginClient` as far as a login asks it."""

    name = "a -> b"
    protocol = "Other 1-0"
    traffic_labels = TrafficLabels("other10", "other")
    ends = (("127.0.0.1", 1), ("127.0.0.1", 2))
    handshake_timeout_s = 10.0

    def __init__(self, edge: Edge, *observers: Observer, is_from_loopback: bool = True) -> None:
        self.edge = edge
        self.services: Services = replace(edge.services, observers=observers)
        self.is_from_loopback = is_from_loopback
        self.certificate: PeerCertificate = {}
        self.handshake = Handshake()
        self.hung_up: list[str] = []
        self.deadlines = Deadlines(edge.scheduler.call_later, self)
        self.is_logging_in = True
        self.outcomes: list[User | LoginRefused] = []
        self.errors: list[Exception] = []
        self.services.connections.add(self)  # type: ignore[arg-type]
        expect_login(self)  # type: ignore[arg-type]

    def drop(self, reason: str) -> None:
        self.hung_up.append(reason)

    def log_in(self, name: str, password: bytes | None, mechanism: str = "PLAIN") -> None:
        credentials = Credentials(name, password)
        login = Login(self, mechanism, credentials, self._on_login)  # type: ignore[arg-type]
        login.begin()

    def _on_login(self, outcome: User | LoginRefused) -> None:
        self.is_logging_in = False
        self.outcomes.append(outcome)

    def fail(self, error: BrokerError) -> None:
        self.errors.append(error)

    def give_up(self, error: Exception) -> None:
        self.errors.append(error)

    @property
    def outcome(self) -> User | LoginRefused:
        (outcome,) = self.outcomes
        return outcome

    @property
    def logins(self) -> tuple[int, int]:
        logins = self.services.runtime.traffic.logins_of(self.traffic_labels)
        return logins.succeeded, logins.failed


@pytest.fixture
def edge() -> Edge:
    return Edge()


@pytest.fixture
def read_barrier(edge: Edge) -> ManualReadBarrier:
    barrier = ManualReadBarrier()
    edge.services = replace(edge.services, read_barrier=barrier)
    return barrier


# Outcomes


def test_a_login_is_counted_observed_and_keeps_its_place(edge: Edge) -> None:
    edge.services = replace(edge.services, connections=Connections(strangers_max=1))
    client = LoginConnection(edge, observer := Observer())
    client.log_in("alice", b"wonder")
    assert client.outcome is edge.access.users["alice"]
    assert client.handshake.user is client.outcome
    assert observer.seen == [("PLAIN", "alice")]
    assert client.logins == (1, 0)
    LoginConnection(edge)  # which would have had it dropped before


@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("alice", b"wrong", "user 'alice' gave a wrong password"),
        ("alice", b"", "user 'alice' gave a wrong password"),
        ("bob", b"wonder", "user 'bob' does not exist"),
    ],
)
def test_a_refusal_is_counted_logged_and_observed_with_its_reason(
    edge: Edge, caplog: pytest.LogCaptureFixture, name: str, password: bytes, reason: str
) -> None:
    client = LoginConnection(edge, observer := Observer())
    with caplog.at_level(logging.WARNING):
        client.log_in(name, password)
    assert (type(client.outcome), str(client.outcome)) == (LoginRefused, reason)
    assert observer.seen == [("PLAIN", name, reason)]
    assert client.logins == (0, 1)
    assert caplog.messages == ["authentication_failed"]
    assert client.handshake.user is None


def test_who_may_come_from_this_machine_alone_is_refused_as_such(edge: Edge) -> None:
    client = LoginConnection(edge, is_from_loopback=False)
    client.log_in("guest", b"guest")
    assert isinstance(client.outcome, LoopbackOnly)
    client = LoginConnection(edge, is_from_loopback=False)
    client.log_in("guest", b"wrong")
    assert type(client.outcome) is LoginRefused


def test_a_certificate_proves_a_name_without_a_password(edge: Edge) -> None:
    client = LoginConnection(edge)
    client.log_in("alice", None, EXTERNAL)
    assert client.outcome is edge.access.users["alice"]
    client = LoginConnection(edge)
    client.log_in("", None, EXTERNAL)
    assert str(client.outcome) == "the certificate names nobody"


def slow(edge: Edge) -> list[Answer]:
    """Have alice's password be compared elsewhere; what answers that."""
    answers: list[Answer] = []
    edge.access._verifier = Verifier(lambda _job, answer: answers.append(answer))
    edge.editor.put_user(User("alice", slow_hash(b"wonder")))
    return answers


def test_who_has_gone_hears_nothing_and_is_not_counted(edge: Edge) -> None:
    answers = slow(edge)
    client = LoginConnection(edge, observer := Observer())
    client.log_in("alice", b"wonder")
    client.is_logging_in = False
    answers[0](PasswordVerdict.RIGHT)
    assert (client.outcomes, observer.seen, client.logins) == ([], [], (0, 0))


def test_a_password_that_is_not_compared_is_refused_and_not_logged(
    edge: Edge, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overloaded(
        _self: Access, _name: str, _password: bytes, answer: Answer, **_: object
    ) -> None:
        answer(PasswordChecksOverloaded())  # type: ignore[arg-type]

    monkeypatch.setattr(Access, "login", overloaded)
    client = LoginConnection(edge)
    client.log_in("alice", b"wonder")
    assert isinstance(client.outcome, PasswordChecksOverloaded)
    assert client.logins == (0, 1)
    assert caplog.messages == []


@pytest.mark.parametrize("password", [b"wonder", b"wrong"])
def test_an_observer_that_fails_ends_the_connection_and_not_who_called(
    edge: Edge, password: bytes
) -> None:
    answers = slow(edge)
    client = LoginConnection(edge, Observer(fails=True))
    client.log_in("alice", password)
    is_right = password == b"wonder"
    answers[0](PasswordVerdict.RIGHT if is_right else PasswordVerdict.WRONG)
    assert [str(error) for error in client.errors] == ["a bug of the observer"]
    assert client.outcomes == []
    assert client.logins == (is_right, not is_right)


# What was answered elsewhere


def test_a_refusal_waits_until_all_is_known(edge: Edge, read_barrier: ManualReadBarrier) -> None:
    client = LoginConnection(edge)
    client.log_in("bob", b"builder")
    assert (client.outcomes, len(read_barrier)) == ([], 1)
    edge.editor.grant_everything("bob", b"builder", ["/"])
    read_barrier.confirm()
    assert client.outcome is edge.access.users["bob"]
    assert client.logins == (1, 0)


def test_the_time_to_log_in_begins_again_behind_what_was_waited_for(
    edge: Edge, read_barrier: ManualReadBarrier
) -> None:
    client = LoginConnection(edge)
    client.log_in("bob", b"builder")
    edge.advance(60)
    read_barrier.confirm()
    assert isinstance(client.outcome, LoginRefused)
    edge.advance(9)
    assert client.hung_up == []
    edge.advance(1)
    assert client.hung_up == ["no answer in time"]


def test_what_cannot_be_known_fails_the_connection(
    edge: Edge, read_barrier: ManualReadBarrier
) -> None:
    client = LoginConnection(edge)
    client.log_in("bob", b"builder")
    read_barrier.fail()
    assert [str(error) for error in client.errors] == ["nobody has confirmed it"]
    assert client.outcomes == []


# Admission


def test_reasons_not_to_open_a_virtual_host_are_distinguished(edge: Edge) -> None:
    alice, services = edge.access.users["alice"], edge.services
    assert check_admission(services, alice, "/") is edge.vhost
    with pytest.raises(VhostNotFound):
        check_admission(services, alice, "nowhere")
    edge.editor.vhost("other")
    with pytest.raises(NotAllowed) as refused:
        check_admission(services, alice, "other")
    assert type(refused.value) is NotAllowed
    full = replace(services, limits=Limits(connections_max=0))
    edge.editor.put_user(replace(alice, limits=UserLimits(max_connections=0)))
    for each in (full, services):
        with pytest.raises(ConnectionLimitReached):
            check_admission(each, alice, "/")


def test_a_virtual_host_that_may_only_be_unknown_here_is_known_later(
    edge: Edge, read_barrier: ManualReadBarrier
) -> None:
    client = LoginConnection(edge)
    client.log_in("alice", b"wonder")
    found: list[object] = []
    for makes_it in (False, True):
        admission = admit(client, "other")  # type: ignore[arg-type]
        assert isinstance(admission, Deferred)
        admission.then(found.append, found.append)
        if makes_it:
            edge.editor.vhost("other")
            edge.editor.put_permission("alice", "other", EVERYTHING)
        read_barrier.confirm()
    refused, vhost = found
    assert isinstance(refused, VhostNotFound)
    assert vhost is edge.catalogue.vhosts["other"]
    assert admit(client, "/") is edge.vhost  # type: ignore[arg-type]


# Mechanisms


def test_a_mechanism_reads_who_the_client_is(edge: Edge) -> None:
    client = LoginConnection(edge)
    client.deadlines.met(HANDSHAKE)
    offered = offered_mechanisms(client, MECHANISMS)  # type: ignore[arg-type]
    assert offered == ("PLAIN",)
    read = read_response(client, MECHANISMS, "PLAIN", b"\0alice\0wonder")  # type: ignore[arg-type]
    assert read == Credentials("alice", b"wonder")
    with pytest.raises(SyntaxFailure):
        read_response(client, MECHANISMS, "PLAIN", b"alice")  # type: ignore[arg-type]


def test_a_certificate_is_what_external_takes(edge: Edge) -> None:
    client = LoginConnection(edge)
    with pytest.raises(UnknownMechanism):
        read_response(client, MECHANISMS, EXTERNAL, b"")  # type: ignore[arg-type]
    client.certificate = {"subject": ((("commonName", "alice"),),)}
    read = read_response(client, MECHANISMS, EXTERNAL, b"")  # type: ignore[arg-type]
    assert read == Credentials("CN=alice", None)


def test_what_is_switched_off_is_not_offered(edge: Edge) -> None:
    client = LoginConnection(edge)
    client.services = replace(client.services, mechanisms=("EXTERNAL",))
    with pytest.raises(UnknownMechanism, match="unknown authentication mechanism 'PLAIN'"):
        read_response(client, MECHANISMS, "PLAIN", b"\0alice\0wonder")  # type: ignore[arg-type]
