"""Connections under rights and limits that change while they are open."""

from dataclasses import replace

import pytest

from fluffle.broker.access import verification
from fluffle.broker.access.access import Permission, TopicPermission, User
from fluffle.broker.access.limits import LimitedResource, UserLimits, VhostLimits
from fluffle.broker.access.passwords import hashed
from fluffle.broker.access.verification import Answer, PasswordVerdict, Verifier
from fluffle.broker.config.config import Limits
from fluffle.protocol.methods import Basic, Connection, Queue, encode_method, make
from fluffle.protocol.methods import Channel as ChannelMethods
from fluffle.protocol.properties import Properties
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.support.definitions import EVERYTHING
from tests.support.edge import Client, Edge, publish_frames, start_ok
from tests.support.passwords import slow_hash


def connect(edge: Edge, name: str = "alice", password: str = "wonder") -> Client:
    """A connection of alice, who may do everything so far."""
    return edge.connect(user=name, password=password)


def knock(edge: Edge, name: str = "alice", vhost: str = "/") -> Client:
    """A connection of alice that has asked for its virtual host."""
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start, channel=0)
    client.call(start_ok(f"\0{name}\0wonder"), Connection.Tune, channel=0)
    tune_ok = Connection.TuneOk(2047, 131_072, 0)
    client.send(encode_method(0, tune_ok), encode_method(0, Connection.Open(vhost)))
    return client


def allow(edge: Edge, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
    edge.editor.put_permission("alice", "/", Permission(configure, write, read))
    edge.run()


def test_a_publisher_that_loses_its_right_is_refused_at_once() -> None:
    edge = Edge()
    client = connect(edge)
    client.declare("q")
    client.publish(b"1", b"2")
    allow(edge, write="^q$")
    client.publish(b"3")
    client.expect_channel_closed(
        403, "write access to exchange 'amq.default' in vhost '/' refused for user 'alice'"
    )
    assert edge.vhost.queues["q"].ready_count == 2


def test_a_right_that_is_given_later_counts_too() -> None:
    edge = Edge()
    client = connect(edge)
    allow(edge, configure="^a")
    client.send(encode_method(1, make(Queue.Declare, queue="b")))
    client.expect_channel_closed(403, "configure access to queue 'b'")
    allow(edge)
    client.open_channel(2)
    client.declare("b", 2)


def test_the_route_of_another_user_is_not_touched() -> None:
    edge = Edge()
    guest, alice = edge.connect(), connect(edge)
    for client in (guest, alice):
        client.declare("q")
        client.publish(b"first")
    routes = guest.connection._session.route_cache.by_key  # type: ignore[union-attr]
    assert len(routes) == 1
    allow(edge)
    assert len(routes) == 1
    assert alice.connection._session.route_cache.by_key == {}  # type: ignore[union-attr]


def test_consumers_that_may_not_read_any_more_are_ended() -> None:
    edge = Edge()
    client = connect(edge)
    for name in ("mine", "theirs"):
        client.declare(name)
        client.consume(name, tag=name)
    client.publish(b"held", queue="theirs")
    assert client.bodies() == [b"held"]
    allow(edge, read="^mine")
    cancel = client.take()
    assert isinstance(cancel.method, Basic.Cancel)
    assert cancel.method.consumer_tag == "theirs"
    client.publish(b"later", queue="theirs")
    client.publish(b"for me", queue="mine")
    assert client.bodies() == [b"for me"]
    client.ack(1)
    assert edge.vhost.queues["theirs"].ready_count == 1
    client.expect_nothing()


def test_a_deleted_user_is_shown_out() -> None:
    edge = Edge()
    client, other = connect(edge), edge.connect()
    edge.editor.delete_user("alice")
    edge.run()
    client.expect_closed(320, "CONNECTION_FORCED - user 'alice' is deleted")
    other.declare("q")


def test_connections_to_a_deleted_virtual_host_are_closed() -> None:
    edge = Edge()
    client = connect(edge)
    edge.editor.delete_vhost("/")
    edge.run()
    client.expect_closed(320, "CONNECTION_FORCED - vhost '/' is deleted")


def test_a_connection_that_cannot_ask_again_is_closed_and_the_others_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edge = Edge()
    broken, other = connect(edge), connect(edge)
    other.declare("q")
    other.consume("q")
    monkeypatch.setattr(broken.connection._session, "rights", None)
    edge.editor.clear_permission("alice", "/")
    edge.run()
    broken.expect_closed(541, "INTERNAL_ERROR")
    assert other.names() == ["Basic.Cancel"]
    assert "a handler failed on" in caplog.text


def test_a_login_does_not_survive_its_user() -> None:
    edge = Edge()
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start, channel=0)
    client.call(start_ok("\0alice\0wonder"), Connection.Tune, channel=0)
    edge.editor.delete_user("alice")
    edge.editor.grant_everything("alice", b"another", ["/"])
    tune_ok = Connection.TuneOk(2047, 131_072, 0)
    client.send(encode_method(0, tune_ok), encode_method(0, Connection.Open("/")))
    client.expect_closed(530, "access to vhost '/' refused for user 'alice'")


def test_a_login_survives_a_change_of_its_user_and_has_what_is_new() -> None:
    edge = Edge()
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start, channel=0)
    client.call(start_ok("\0alice\0wonder"), Connection.Tune, channel=0)
    edge.editor.put_user(replace(edge.access.users["alice"], tags=("impersonator",)))
    tune_ok = Connection.TuneOk(2047, 131_072, 0)
    client.send(encode_method(0, tune_ok), encode_method(0, Connection.Open("/")))
    client.expect(Connection.OpenOk, channel=0)
    client.open_channel()
    client.declare("q")
    client.publish(b"x", properties=Properties(user_id="bob"))
    assert client.ready_count() == 1


def test_nothing_is_counted_or_reported_once_a_connection_is_gone() -> None:
    edge = Edge()
    clients = [connect(edge), edge.connect(), knock(edge)]
    clients[2].expect(Connection.OpenOk, channel=0)
    usage = edge.access.usage
    assert usage.here[LimitedResource.CONNECTIONS_OF_USER] == {"alice": 2, "guest": 1}
    assert usage.here[LimitedResource.CHANNELS_OF_USER] == {"alice": 1, "guest": 1}
    clients[0].close()
    clients[1].transport.lose()
    edge.editor.delete_user("alice")
    edge.run()
    assert usage.connection_count == 0
    assert usage.here[LimitedResource.CHANNELS_OF_USER] == {}
    assert edge.access._listeners == {}


@pytest.mark.parametrize(
    ("limits", "node_limit", "text"),
    [
        (
            UserLimits(max_connections=1),
            None,
            "connection refused for user 'alice': user connection",
        ),
        (UserLimits(), 1, "connection refused: node connection limit (1) is reached"),
    ],
)
def test_limits_of_connections(limits: UserLimits, node_limit: int | None, text: str) -> None:
    edge = Edge(Limits(connections_max=node_limit))
    edge.editor.put_user(User("alice", hashed(b"wonder"), limits=limits))
    first = connect(edge)
    knock(edge).expect_closed(530, text)
    first.close()
    knock(edge).expect(Connection.OpenOk, channel=0)


def test_limits_of_virtual_hosts() -> None:
    edge = Edge()
    edge.editor.vhost("/", limits=VhostLimits(max_connections=1, max_queues=1))
    client = connect(edge)
    knock(edge).expect_closed(
        530, "access to vhost '/' refused for user 'alice': connection limit (1) is reached"
    )
    client.declare("q")
    client.declare("q")
    client.send(encode_method(1, make(Queue.Declare, queue="r")))
    client.expect_channel_closed(
        406, "cannot declare queue 'r': queue limit in vhost '/' (1) is reached"
    )


def test_the_newest_limit_of_channels_counts() -> None:
    edge = Edge()
    client = connect(edge)
    client.open_channel(2)
    edge.editor.put_user(User("alice", hashed(b"wonder"), limits=UserLimits(max_channels=2)))
    client.call(ChannelMethods.Close(200, "", 0, 0), ChannelMethods.CloseOk, channel=2)
    client.open_channel(2)
    client.send(encode_method(3, ChannelMethods.Open()))
    client.expect_closed(530, "number of channels opened for user 'alice' has reached")


def test_without_a_permission_there_is_no_way_in() -> None:
    edge = Edge()
    edge.editor.clear_permission("alice", "/")
    knock(edge).expect_closed(530, "access to vhost '/' refused for user 'alice'", (10, 40))
    edge.editor.put_permission("alice", "/", EVERYTHING)
    knock(edge).expect(Connection.OpenOk, channel=0)


def test_topic_permissions_are_looked_at_with_every_key() -> None:
    edge = Edge()
    client = connect(edge)
    client.declare("q")
    client.bind("q", "amq.topic", "#")
    client.publish(b"free", exchange="amq.topic", queue="key")
    edge.editor.put_topic_permission("alice", "/", "amq.topic", TopicPermission("^{username}"))
    client.publish(b"own", exchange="amq.topic", queue="alice.key")
    cc = Properties(headers={"CC": ("A", [("S", b"alice.too"), ("S", b"bob")])})
    client.publish(b"bob's", exchange="amq.topic", queue="alice.key", properties=cc)
    client.expect_channel_closed(403, "write access to topic 'bob' in exchange 'amq.topic'")
    assert edge.vhost.queues["q"].ready_count == 2


def test_an_impersonator_may_sign_as_anybody() -> None:
    edge = Edge()
    edge.editor.put_user(User("alice", hashed(b"wonder"), ("impersonator",)))
    client = connect(edge)
    client.declare("q")
    client.publish(b"x", properties=Properties(user_id="bob"))
    assert client.ready_count() == 1


def test_a_tag_counts_as_long_as_the_user_has_it() -> None:
    edge = Edge()
    client = connect(edge)
    client.declare("q")
    alice = edge.access.users["alice"]
    edge.editor.put_user(replace(alice, tags=("impersonator",)))
    client.publish(b"x", properties=Properties(user_id="bob"))
    assert client.ready_count() == 1
    edge.editor.put_user(replace(alice, tags=()))
    client.publish(b"x", properties=Properties(user_id="bob"))
    client.expect_channel_closed(406, "user_id property set to 'bob' but authenticated user was")


class Elsewhere:
    """Password comparisons that wait to be answered."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.access_verifier = Verifier(lambda _job, answer: self.answers.append(answer))


def slow_login(edge: Edge, elsewhere: Elsewhere) -> Client:
    """A client whose password is being compared elsewhere."""
    edge.access._verifier = elsewhere.access_verifier
    edge.editor.put_user(User("alice", slow_hash(b"wonder")))
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start, channel=0)
    client.send(encode_method(0, start_ok("\0alice\0wonder")))
    client.expect_nothing()
    return client


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [(PasswordVerdict.RIGHT, Connection.Tune), (PasswordVerdict.WRONG, Connection.Close)],
)
def test_a_slow_password_is_waited_for(
    verdict: PasswordVerdict, answer: type[Connection.Tune]
) -> None:
    edge, elsewhere = Edge(), Elsewhere()
    client = slow_login(edge, elsewhere)
    edge.connect()  # others need not wait
    elsewhere.answers[0](verdict)
    edge.run()
    client.expect(answer, channel=0)


def test_who_does_not_wait_for_his_login_is_refused() -> None:
    edge, elsewhere = Edge(), Elsewhere()
    client = slow_login(edge, elsewhere)
    client.send(encode_method(0, Connection.TuneOk(2047, 131_072, 0)))
    client.expect_closed(504, "unexpected method in connection state securing")
    elsewhere.answers[0](PasswordVerdict.RIGHT)
    edge.run()
    client.expect_nothing()


def test_an_answer_for_a_client_that_has_gone_is_dropped() -> None:
    edge, elsewhere = Edge(), Elsewhere()
    client = slow_login(edge, elsewhere)
    client.transport.lose()
    elsewhere.answers[0](PasswordVerdict.RIGHT)
    edge.run()
    client.expect_nothing()


def test_a_topic_permission_that_is_given_later_counts_for_keys_that_were_asked_about() -> None:
    """And of messages that come together, those before the one that is refused are published."""
    edge = Edge()
    client = connect(edge)
    client.declare("q")
    client.bind("q", "amq.topic", "#")
    edge.editor.put_topic_permission("alice", "/", "amq.topic", TopicPermission("^[ab]"))
    frames = {key: publish_frames(b"x", key, exchange="amq.topic") for key in "abc"}
    for count in (2, 4):
        client.send(frames["a"], frames["b"])
        assert edge.vhost.queues["q"].ready_count == count
    edge.editor.put_topic_permission("alice", "/", "amq.topic", TopicPermission("^a"))
    client.send(frames["a"], frames["b"], frames["a"])
    client.expect_channel_closed(403, "write access to topic 'b' in exchange 'amq.topic'")
    assert edge.vhost.queues["q"].ready_count == 5


def test_a_login_that_cannot_be_checked_now_is_refused_as_any_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verification, "WAITING_PER_SOURCE_MAX", 1)
    edge, elsewhere = Edge(), Elsewhere()
    first = slow_login(edge, elsewhere)
    for _ in range(3):
        client = edge.accept()
        client.send(PROTOCOL_HEADER)
        client.expect(Connection.Start, channel=0)
        client.send(encode_method(0, start_ok("\0alice\0wrong")))
        client.expect_closed(403, "Login was refused using authentication mechanism PLAIN")
    assert caplog.messages.count("logins_overloaded") == 1
    assert "authentication_failed" not in caplog.messages
    elsewhere.answers[0](PasswordVerdict.RIGHT)
    edge.run()
    first.expect(Connection.Tune, channel=0)


def test_no_password_is_compared_for_a_client_that_has_gone() -> None:
    edge, elsewhere = Edge(), Elsewhere()
    slow_login(edge, elsewhere)
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.send(encode_method(0, start_ok("\0alice\0wrong")))
    client.transport.lose()
    elsewhere.answers[0](PasswordVerdict.RIGHT)
    assert len(elsewhere.answers) == 1
