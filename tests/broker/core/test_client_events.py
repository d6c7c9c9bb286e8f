"""Events in amq.rabbitmq.event.  With RabbitMQ it is compared in `tests/compat`."""

import json

import pytest

from fluffle.broker.access.access import User
from fluffle.broker.access.limits import LimitedResource, UserLimits, VhostLimits
from fluffle.broker.access.passwords import SHA256, hashed
from fluffle.broker.core.client import WITHOUT_CHANNELS
from fluffle.broker.core.client_events import AlarmEvents, erlang_version, octets
from fluffle.broker.core.session import Session
from fluffle.broker.event_publisher import EVENT_EXCHANGE, PublishingMetadata
from fluffle.broker.metadata.change import Kind
from fluffle.protocol.methods import (
    Basic,
    Connection,
    Exchange,
    Queue,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import Properties, decode_properties
from tests.support.definitions import Editor
from tests.support.edge import Client, Edge, start_ok
from tests.support.sessions import FakeClient, session_of

ACTOR = "user_who_performed_action"


def watched(*keys: str) -> tuple[Edge, Client]:
    """A node, and the listeners of what happens on it."""
    edge = Edge(announces=True)
    watcher = edge.connect()
    watcher.declare("events")
    for key in keys or ("#",):
        watcher.bind("events", EVENT_EXCHANGE.name, key)
    reported(watcher)
    return edge, watcher


def reported(watcher: Client) -> list[tuple[str, dict[str, object]]]:
    """Take everything that was reported: what has happened, and the headers as plain values."""
    found: list[tuple[str, dict[str, object]]] = []
    while True:
        watcher.send(encode_method(1, Basic.Get(queue="events", no_ack=True)))
        arrival = watcher.take()
        if not isinstance(arrival.method, Basic.GetOk):
            return found
        headers = decode_properties(arrival.header[12:]).headers or {}
        plain: dict[str, object] = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, (_tag, value) in headers.items()
        }
        found.append((arrival.method.routing_key or "", plain))


def what(watcher: Client) -> list[str]:
    return [key for key, _headers in reported(watcher)]


def test_who_binds_a_queue_is_notified_from_then_on() -> None:
    edge = Edge(announces=True)
    client = edge.connect()
    client.declare("events")
    client.bind("events", EVENT_EXCHANGE.name, "queue.*")
    client.declare("q")
    client.delete("q")
    ((_, created), (_, deleted)) = reported(client)
    assert (created["name"], created[ACTOR], created["leader"]) == ("q", "guest", "node")
    assert deleted == {
        "name": "q", "vhost": "/", "type": "rabbit_classic_queue", ACTOR: "guest",
        "timestamp_in_ms": 7_999,
    }  # fmt: skip
    client.call(
        make(Queue.Unbind, queue="events", exchange=EVENT_EXCHANGE.name, routing_key="queue.*"),
        Queue.UnbindOk,
    )
    client.declare("q")
    assert reported(client) == []


def test_announcements_are_persistent_and_without_a_body() -> None:
    edge, watcher = watched("queue.created")
    edge.connect().declare("q")
    watcher.send(encode_method(1, Basic.Get(queue="events")))
    arrival = watcher.take()
    properties = decode_properties(arrival.header[12:])
    assert arrival.body == b""
    assert properties == Properties(headers=properties.headers, delivery_mode=2, timestamp=7)


def test_what_is_so_already_is_not_reported_again() -> None:
    edge, watcher = watched("queue.*", "binding.*", "exchange.*")
    client = edge.connect()
    for _ in range(2):
        client.declare("q")
        client.declare_exchange("x", "fanout")
        client.bind("q", "x")
    assert what(watcher) == ["queue.created", "exchange.created", "binding.created"]


def test_what_is_refused_is_not_reported() -> None:
    edge, watcher = watched("queue.*")
    client = edge.connect()
    client.send(encode_method(1, make(Queue.Bind, queue="none", exchange="amq.fanout")))
    client.expect_channel_closed(404)
    assert reported(watcher) == []


def test_an_exchange_goes_before_its_bindings_and_a_queue_behind() -> None:
    edge, watcher = watched("*.deleted")
    client = edge.connect()
    client.declare("q")
    client.declare_exchange("x", "fanout")
    client.bind("q", "x")
    client.call(make(Exchange.Delete, exchange="x"), Exchange.DeleteOk)
    client.bind("q", "amq.fanout")
    client.delete("q")
    assert [(key, headers[ACTOR]) for key, headers in reported(watcher)] == [
        ("exchange.deleted", "guest"),
        ("binding.deleted", "guest"),
        ("binding.deleted", "rmq-internal"),
        ("queue.deleted", "guest"),
    ]


def test_an_exchange_that_goes_with_its_last_queue_is_deleted_by_nobody() -> None:
    edge, watcher = watched("*.deleted")
    client = edge.connect()
    client.declare("q")
    client.call(make(Exchange.Declare, exchange="x", auto_delete=True), Exchange.DeclareOk)
    client.bind("q", "x")
    client.delete("q")
    assert [(key, headers[ACTOR]) for key, headers in reported(watcher)] == [
        ("exchange.deleted", "rmq-internal"),
        ("binding.deleted", "rmq-internal"),
        ("queue.deleted", "guest"),
    ]


def test_a_delayed_exchange_is_deleted_by_who_deletes_it() -> None:
    edge, watcher = watched("exchange.deleted")
    client = edge.connect()
    arguments = pamqp_table({"x-delayed-type": ("S", b"fanout")})
    declare = make(
        Exchange.Declare, exchange="x", exchange_type="x-delayed-message", arguments=arguments
    )
    client.call(declare, Exchange.DeclareOk)
    client.call(make(Exchange.Delete, exchange="x"), Exchange.DeleteOk)
    assert [headers[ACTOR] for _key, headers in reported(watcher)] == ["guest"]


def test_a_connection_and_what_goes_with_it() -> None:
    edge, watcher = watched("connection.*", "channel.*", "consumer.*", "queue.deleted")
    client = edge.accept()
    client.log_in(name="worker")
    client.open_channel()
    client.declare("own", exclusive=True)
    client.consume("own")
    reported_so_far = reported(watcher)
    assert [key for key, _ in reported_so_far] == [
        "connection.created",
        "channel.created",
        "consumer.created",
    ]
    (_, connection), (_, channel), (_, consumer) = reported_so_far
    assert (connection["user_provided_name"], connection["auth_mechanism"]) == ("worker", "PLAIN")
    assert channel["connection"] == connection["pid"]
    assert consumer["channel"] == channel["pid"] != connection["pid"]
    client.close()
    ended = reported(watcher)
    assert [key for key, _ in ended] == [
        "consumer.deleted",
        "channel.closed",
        "queue.deleted",
        "connection.closed",
    ]
    assert ended[1][1]["consumer_count"] == 1
    assert ended[2][1][ACTOR] == "rmq-internal"
    assert ended[3][1]["pid"] == connection["pid"]


def test_a_consumer_whose_queue_goes_is_notified_once() -> None:
    edge, watcher = watched("consumer.*")
    client = edge.connect()
    client.declare("q")
    client.consume("q")
    client.send(encode_method(1, Basic.Consume(queue="q", consumer_tag="c")))  # refused
    client.arrivals()
    client = edge.connect()
    client.consume("q", "d")
    client.delete("q")
    assert [(key, headers["consumer_tag"]) for key, headers in reported(watcher)] == [
        ("consumer.created", "c"),
        ("consumer.deleted", "c"),
        ("consumer.created", "d"),
        ("consumer.deleted", "d"),
    ]


def test_logins() -> None:
    edge, watcher = watched("user.authentication.*")
    client = edge.accept()
    client.log_in()
    client = edge.accept()
    client.send(b"AMQP\0\0\x09\x01")
    client.expect(Connection.Start, channel=0)
    client.send(encode_method(0, start_ok("\0guest\0wrong")))
    (succeeded, failed) = reported(watcher)
    assert succeeded[0] == "user.authentication.success"
    assert failed[0] == "user.authentication.failure"
    for headers in (succeeded[1], failed[1]):
        assert (headers["name"], headers["peer_host"]) == ("guest", "{127,0,0,1}")
    assert failed[1]["error"]


def test_alarms_are_reported_when_they_begin_and_end() -> None:
    edge, watcher = watched("alarm.*")
    alarms = edge.services.alarms
    AlarmEvents(edge.announcing().announcer, alarms)
    alarms.set("disk", low=True)
    alarms.set("memory", low=True)
    alarms.set("disk", low=False)
    assert [(key, headers["source"]) for key, headers in reported(watcher)] == [
        ("alarm.set", "disk"),
        ("alarm.set", "memory"),
        ("alarm.cleared", "disk"),
    ]


class Operator:
    """Changes definitions, and has that announced."""

    def __init__(self, edge: Edge) -> None:
        announcing = edge.announcing()
        self.editor = Editor(edge.catalogue)
        self.editor.metadata = PublishingMetadata(
            self.editor.metadata, announcing.announcer, edge.catalogue.known,
            actor="rmq-cli", settler="rmq-cli",
        )  # fmt: skip


def test_each_change_of_a_user_is_reported_by_its_name() -> None:
    edge, watcher = watched("user.#", "permission.*")
    editor = Operator(edge).editor
    password = hashed(b"pw", SHA256)
    editor.put_user(User("u", password, ("monitoring",)))
    editor.put_user(User("u", password, ("monitoring",)))
    editor.put_user(User("u", password, (), UserLimits(max_channels=3)))
    editor.put_user(User("u", None, ()))
    editor.put_user(User("u", password, ()))
    editor.delete_user("u")
    assert what(watcher) == [
        *("user.created", "user.tags.set"),
        *("user.tags.set", "user.limits.set"),
        *("user.password.cleared", "user.limits.cleared"),
        "user.password.changed",
        "user.deleted",
    ]


def test_a_virtual_host_comes_and_goes_with_its_exchanges() -> None:
    edge, watcher = watched("vhost.#", "exchange.*", "queue.*")
    editor = Operator(edge).editor
    editor.vhost("v", limits=VhostLimits(max_queues=5))
    assert what(watcher) == [*["exchange.created"] * 7, "vhost.created", "vhost.limits.set"]
    editor.delete_vhost("v")
    gone = ["vhost.limits.cleared", "vhost.deleted"]
    assert what(watcher) == [*["exchange.deleted"] * 7, *gone]


def test_policies_and_parameters_are_reported() -> None:
    edge, watcher = watched("policy.*", "parameter.*")
    editor = Operator(edge).editor
    policy = {"vhost": "/", "name": "p", "pattern": "^a", "apply-to": "all", "priority": 1,
              "definition": {"max-length": 5}}  # fmt: skip
    editor.keep(Kind.POLICY, policy)
    ((key, headers),) = reported(watcher)
    assert key == "policy.set"
    assert (headers["pattern"], headers["definition"]) == ("^a", {"max-length": ("l", 5)})


def test_a_policy_of_operators_is_reported_as_a_policy_and_as_a_parameter() -> None:
    edge, watcher = watched("policy.*", "operator.#", "parameter.*")
    editor = Operator(edge).editor
    value = {"pattern": "^a", "apply-to": "all", "priority": 1, "definition": {"max-length": 5}}
    kept = {"vhost": "/", "component": "operator_policy", "name": "o", "value": value}
    editor.keep(Kind.PARAMETER, kept)
    (parameter, headers), (policy, said) = reported(watcher)
    assert (parameter, headers["component"]) == ("parameter.set", "operator_policy")
    assert (policy, said["name"], said["pattern"]) == ("policy.set", "o", "^a")
    editor.clear(Kind.PARAMETER, ("/", "operator_policy", "o"))
    assert what(watcher) == ["parameter.cleared", "operator.policy.cleared"]


def test_global_parameters_are_reported() -> None:
    edge, watcher = watched("parameter.*")
    editor = Operator(edge).editor
    editor.keep(Kind.GLOBAL_PARAMETER, {"name": "g", "value": 1})
    editor.clear(Kind.GLOBAL_PARAMETER, ("g",))
    (put, headers), (removed, _) = reported(watcher)
    assert (put, removed) == ("parameter.set", "parameter.cleared")
    assert (headers["component"], headers["name"], headers["value"]) == ("global", "g", 1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, str(2**63)),
        ({"a": [1, -(2**70)]}, f'{{"a": [1, {-(2**70)}]}}'),
        ({"k" * 300: 1}, f'{{"{"k" * 300}": 1}}'),
        (json.loads("[" * 150 + "]" * 150), "[" * 150 + "]" * 150),
        ("é" * (1 << 16), "é" * (1 << 15)),
    ],
)
def test_what_no_table_can_have_is_reported_as_text(value: object, said: object) -> None:
    edge, watcher = watched("parameter.set")
    Operator(edge).editor.keep(Kind.GLOBAL_PARAMETER, {"name": "g", "value": value})
    [(_, headers)] = reported(watcher)
    assert headers["value"] == said


def test_clients_can_neither_publish_to_it_nor_delete_it() -> None:
    edge, watcher = watched()
    client = edge.connect()
    client.publish(b"x", exchange=EVENT_EXCHANGE.name)
    client.expect_channel_closed(403, "cannot publish to internal exchange 'amq.rabbitmq.event'")
    client = edge.connect()
    client.send(encode_method(1, make(Exchange.Delete, exchange=EVENT_EXCHANGE.name)))
    client.expect_channel_closed(403, "deletion of system exchange 'amq.rabbitmq.event'")
    assert "queue.created" not in what(watcher)


def test_nothing_is_reported_and_nothing_is_there_where_it_is_off() -> None:
    edge = Edge()
    client = edge.connect()
    assert edge.vhost.topology.find(EVENT_EXCHANGE.name) is None
    bind = make(Queue.Bind, queue="q", exchange=EVENT_EXCHANGE.name)
    client.declare("q")
    client.send(encode_method(1, bind))
    client.expect_channel_closed(404)


def test_what_nobody_hears_is_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange may go with ten thousand bindings."""
    edge = Edge(announces=True)
    client = edge.connect()
    monkeypatch.setattr("fluffle.broker.event_publisher.described", None)
    client.declare("q")
    client.delete("q")


def test_it_may_lead_to_another_exchange() -> None:
    edge, watcher = watched("nothing")
    watcher.declare_exchange("x", "x-recent-history")
    bind = make(
        Exchange.Bind, destination="x", source=EVENT_EXCHANGE.name, routing_key="channel.created"
    )
    watcher.call(bind, Exchange.BindOk)
    edge.connect()
    watcher.bind("events", "x")
    assert what(watcher) == ["channel.created"]


def test_addresses_are_shown_as_numbers() -> None:
    assert octets("127.0.0.1") == "{127,0,0,1}"
    assert octets("::1") == "{0,0,0,0,0,0,0,1}"
    assert octets("unix") == "unix"


def test_a_login_by_a_protocol_without_channels_is_reported_in_three_words() -> None:
    """RabbitMQ does so for MQTT: neither the mechanism nor the reason nor the address is in the
    event."""
    edge, watcher = watched("user.authentication.*")
    client = FakeClient()
    client.kind = ""
    events = edge.announcing()
    events.logged_in(client, "PLAIN", "guest")
    events.refused(client, "PLAIN", "guest", "user 'guest' gave a wrong password")
    said = {"name": "guest", "connection_name": client.name, "connection_type": "network"}
    for key, headers in reported(watcher):
        del headers["timestamp_in_ms"]
        assert headers == said, key


def test_the_end_of_a_connection_without_channels_is_reported_with_all_of_its_beginning() -> None:
    """RabbitMQ does so for MQTT, whose properties it has under atoms."""
    edge, watcher = watched("connection.*")
    client = FakeClient()
    client.kind = ""
    client.handshake.client_properties = {
        "client_id": ("S", b"c"),
        "user_property": ("F", {"a": ("S", b"1")}),
    }
    session, events = session_of(edge), edge.announcing()
    events.opened(client, session)
    events.closed(session)
    (_, created), (_, closed) = reported(watcher)
    assert created["client_properties"] == [
        ("S", b'{user_property,table,[{<<"a">>,longstr,<<"1">>}]}'),
        ("S", b'{client_id,longstr,<<"c">>}'),
    ]
    assert closed == created


class WholeClient:
    """The channel of a client whose protocol has none: an `ObservedChannel`."""

    number = WITHOUT_CHANNELS
    confirms = None

    def __init__(self, session: Session) -> None:
        self.session = session


def test_what_is_no_channel_to_clients_is_not_reported_nor_counted() -> None:
    edge, watcher = watched("channel.*")
    session = session_of(edge)
    channel = WholeClient(session)
    opened = edge.services.runtime.traffic.channels_opened
    session.open_channel(channel)
    session.end_channel(channel, 0)
    assert reported(watcher) == []
    assert edge.services.runtime.traffic.channels_opened == opened
    assert edge.access.usage.here[LimitedResource.CHANNELS_OF_USER].total() == 1, "the watcher's"


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("AMQP 0-9-1", "{0,9,1}"),
        ("MQTT 3-1", "{'MQTT',{3,1,0}}"),
        ("MQTT 3-1-1", "{'MQTT',{3,1,1}}"),
        ("MQTT 5-0", "{'MQTT',{5,0}}"),
        ("Web MQTT 5-0", "{'Web MQTT',{5,0}}"),
    ],
)
def test_a_protocol_is_reported_as_erlang_writes_it(protocol: str, said: str) -> None:
    assert erlang_version(protocol) == said
