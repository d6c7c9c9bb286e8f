"""connections.*, channels.list and consumers.list at the desk."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest

from fluffle.broker.admin.connections import consumer_timeout_ms
from fluffle.broker.admin.context import Row
from fluffle.broker.admin.dispatch import VERBS, Dispatcher
from fluffle.broker.core.client import WITHOUT_CHANNELS, SessionCounts
from fluffle.broker.core.connections import FORCED_CLOSES_AT_ONCE
from fluffle.broker.process.encryption import NOT_ENCRYPTED
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.protocols.http.request_channel import (
    HttpClient,
    MessageChannel,
    RequestAddresses,
)
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.runtime.turn import raise_it
from fluffle.broker.statistics.report import SampleWindows
from fluffle.protocol.methods import Basic, Tx, make, pamqp_table
from tests.broker.admin.verb_harness import VerbHarness
from tests.support.edge import Edge


def test_what_a_connection_is() -> None:
    desk = VerbHarness()
    client = desk.edge.accept(("127.0.0.1", 40_001))
    client.log_in(user="alice", password="wonder", name="worker", heartbeat_s=30)
    client.open_channel(3)
    assert desk.rows("connections.list") == [
        {
            "name": "127.0.0.1:40001 -> 127.0.0.1:5672",
            "node": "a",
            "type": "network",
            "auth_mechanism": "PLAIN",
            "connected_at": 7_999,
            "user_who_performed_action": "alice",
            "client_properties": {},
            **NOT_ENCRYPTED,
            "user_provided_name": "worker",
            "user": "alice",
            "vhost": "/",
            "state": "running",
            "channels": 1,
            "peer_host": "127.0.0.1",
            "peer_port": 40_001,
            "host": "127.0.0.1",
            "port": 5672,
            "ssl": False,
            "protocol": "AMQP 0-9-1",
            "timeout": 30,
            "channel_max": 2047,
            "frame_max": 131_072,
        }
    ]


def test_whoever_is_not_looked_for_is_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among thousands that would hold up the loop."""
    desk = VerbHarness()
    desk.edge.connect(user="alice", password="wonder")
    described: list[object] = []
    monkeypatch.setattr(Connection, "is_encrypted", property(described.append))
    for wanted in ({"name": "x"}, {"user": "guest"}, {"user": "alice", "vhost": "x"}):
        assert desk.rows("connections.list", **wanted) == []
    assert described == []


def states(desk: VerbHarness) -> list[str]:
    return [row["state"] for row in desk.rows("connections.list")]


def test_who_is_blocked_is_visible() -> None:
    desk = VerbHarness()
    publisher, _consumer = desk.edge.connect(), desk.edge.connect()
    desk.edge.accept()
    publisher.declare("q")
    desk.context.alarms.set("memory", low=True)
    assert states(desk) == ["blocking", "blocking", "pre_init"]
    publisher.publish(b"1")
    assert states(desk) == ["blocked", "blocking", "pre_init"]
    desk.context.alarms.set("memory", low=False)
    assert states(desk) == ["running", "running", "pre_init"]


def test_who_waits_for_slow_consumers_is_in_flow() -> None:
    desk = VerbHarness()
    publisher, consumer = desk.edge.connect(), desk.edge.connect()
    publisher.declare("q")
    consumer.consume("q", prefetch=1)
    publisher.publish(*(b"" for _ in range(5000)))
    assert states(desk) == ["flow", "running"]


def test_a_connection_is_closed_with_a_reason() -> None:
    desk = VerbHarness()
    client, other = desk.edge.connect(), desk.edge.connect()
    client.connection.name = "chosen"
    assert desk.ask("connections.close", name="chosen", reason="maintenance") == {"closed": 1}
    client.expect_closed(320, "CONNECTION_FORCED - maintenance")
    assert states(desk) == ["closing", "running"]
    other.declare("q")


async def test_a_request_that_is_listed_is_not_closed_and_that_is_said() -> None:
    desk = VerbHarness()
    user = desk.edge.access.users["guest"]
    client = HttpClient(user, RequestAddresses(("10.0.0.1", 4711), ("10.0.0.2", 15672)))
    channel = MessageChannel(desk.edge.services, client, user, desk.edge.vhost)
    channel.begin()
    assert [row["type"] for row in desk.rows("connections.list")] == ["direct"]
    assert desk.refusal("connections.close", name=client.name) == (
        f"PRECONDITION_FAILED: connection '{client.name}' is a request of the management API, "
        "which ends by itself"
    )
    assert desk.ask("connections.close", user="guest") == {"closed": 0}
    channel.end()
    assert desk.refusal("connections.close", name=client.name).startswith("NOT_FOUND")


@pytest.mark.parametrize(
    ("which", "closed"),
    [
        ({"user": "alice"}, [True, False]),
        ({"user": "alice", "vhost": "/"}, [True, False]),
        ({"user": "alice", "vhost": "v"}, [False, False]),
        ({"vhost": "/"}, [True, True]),
        ({"everybody": True}, [True, True]),
    ],
)
def test_many_are_closed_at_once(which: dict[str, object], closed: list[bool]) -> None:
    desk = VerbHarness()
    desk.ask("vhosts.add", name="v")
    desk.edge.connect(user="alice", password="wonder")
    desk.edge.connect()
    assert desk.ask("connections.close", **which) == {"closed": sum(closed)}
    assert states(desk) == ["closing" if each else "running" for each in closed]


def crowded(count: int) -> VerbHarness:
    """With so many connections, each of which has a consumer with messages in its hands."""
    desk = VerbHarness()
    for number in range(count):
        client = desk.edge.connect()
        client.declare(f"q{number}")
        client.publish(*[b"x"] * 5, queue=f"q{number}")
        client.consume(f"q{number}")
    return desk


def test_a_turn_closes_a_few_however_many_there_are() -> None:
    turns = [
        crowded(count).most_calls_of_a_turn("connections.close", everybody=True)
        for count in (2 * FORCED_CLOSES_AT_ONCE, 10 * FORCED_CLOSES_AT_ONCE)
    ]
    assert turns[1] < 1.2 * turns[0]


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("users.delete", {"name": "guest", "force": True}),
        ("vhosts.delete", {"name": "/"}),
        ("permissions.clear", {"user": "guest", "vhost": "/"}),
    ],
)
def test_a_change_costs_a_turn_little_for_each_connection(
    verb: str, arguments: dict[str, Any]
) -> None:
    """Connections hear of it at once; their work for it is spread over many turns."""
    few, many = 2 * FORCED_CLOSES_AT_ONCE, 10 * FORCED_CLOSES_AT_ONCE
    turns = [crowded(count).most_calls_of_a_turn(verb, **arguments) for count in (few, many)]
    assert turns[1] - turns[0] < 25 * (many - few)


class CannotClose(Connection):
    """Connection that cannot be closed in order."""

    __slots__ = ()

    def close(self, *_arguments: object) -> None:
        raise ValueError("it has no order")


def test_one_that_cannot_be_closed_in_order_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    desk = VerbHarness()
    broken, other = desk.edge.connect(), desk.edge.connect()
    broken.connection.__class__ = CannotClose
    assert desk.ask("users.delete", name="guest", force=True) == {}
    assert broken.transport.was_aborted
    assert "could not be closed in order" in caplog.text
    other.expect_closed(320)


def test_one_whose_end_is_impossible_ends_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = VerbHarness()
    desk.edge.connect()

    def close(*_arguments: object) -> None:
        raise AssertionError("it is not open")

    monkeypatch.setattr(Connection, "close", close)
    with pytest.raises(AssertionError, match="it is not open"):
        desk.ask("users.delete", name="guest", force=True)


def test_refusals() -> None:
    desk = VerbHarness()
    assert desk.refusal("connections.close", name="x") == "NOT_FOUND: no connection 'x'"
    assert desk.refusal("connections.close", user="x") == "NOT_FOUND: user 'x' does not exist"
    assert desk.refusal("connections.close", vhost="x") == "NOT_FOUND: vhost 'x' does not exist"
    assert desk.refusal("connections.close").startswith("SYNTAX_ERROR: say which connections")


def test_a_reason_without_an_end_is_cut() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    desk.ask("connections.close", everybody=True, reason="é" * 1000)
    client.expect_closed(320, "CONNECTION_FORCED - é")


def test_channels() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.confirm_select()
    client.consume("q", prefetch=7)
    client.publish(b"1", b"2")
    name = client.connection.name
    assert desk.rows("channels.list") == [
        {
            "name": f"{name} (1)",
            "node": "a",
            "state": "running",
            "user_who_performed_action": "guest",
            "connection_details": {"name": name, "peer_host": "127.0.0.1", "peer_port": 40_000},
            "messages_uncommitted": 0,
            "acks_uncommitted": 0,
            "pending_raft_commands": 0,
            "connection": name,
            "number": 1,
            "user": "guest",
            "vhost": "/",
            "transactional": False,
            "confirm": True,
            "consumer_count": 1,
            "messages_unacknowledged": 2,
            "messages_unconfirmed": 0,
            "prefetch_count": 7,
            "global_prefetch_count": 0,
        }
    ]


def test_consumers() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.consume("q", tag="c", no_ack=True)
    assert desk.rows("consumers.list", vhost="/") == [
        {
            "vhost": "/",
            "queue_name": "q",
            "consumer_tag": "c",
            "channel": f"{client.connection.name} (1)",
            "ack_required": False,
            "exclusive": False,
            "priority": 0,
            "arguments": {},
            "queue": {"name": "q", "vhost": "/"},
            "channel_details": {
                "name": f"{client.connection.name} (1)",
                "number": 1,
                "node": "a",
                "user": "guest",
                "connection_name": client.connection.name,
                "peer_host": "127.0.0.1",
                "peer_port": 40_000,
            },
            "consumer_timeout": None,
            "active": True,
            "activity_status": "up",
            "prefetch_count": 0,
            "messages_unacknowledged": 0,
        }
    ]
    desk.ask("vhosts.add", name="v")
    assert desk.rows("consumers.list", vhost="v") == []


def test_what_a_client_has_said_is_kept_where_it_is_reported() -> None:
    desk = VerbHarness(edge=Edge(announces=True))
    client = desk.edge.accept()
    client.log_in(name="worker")
    client.open_channel()
    client.declare("q")
    arguments = pamqp_table({"x-priority": ("l", 3)})
    consume = make(Basic.Consume, queue="q", consumer_tag="c", arguments=arguments)
    client.call(consume, Basic.ConsumeOk)
    (connection,) = desk.rows("connections.list")
    assert connection["client_properties"]["connection_name"] == "worker"
    assert connection["client_properties"]["capabilities"]["connection.blocked"] is True
    (consumer,) = desk.rows("consumers.list")
    assert (consumer["arguments"], consumer["priority"]) == ({"x-priority": 3}, 3)


def test_what_waits_for_a_commit_is_counted() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.publish(b"1", b"2")
    client.consume("q")
    assert client.bodies() == [b"1", b"2"]
    client.call(make(Tx.Select), Tx.SelectOk)
    client.publish(b"3", b"4", b"5")
    client.ack(2, multiple=True)
    (channel,) = desk.rows("channels.list")
    assert channel["transactional"]
    assert (channel["messages_uncommitted"], channel["acks_uncommitted"]) == (3, 2)
    client.call(make(Tx.Rollback), Tx.RollbackOk)
    (channel,) = desk.rows("channels.list")
    assert (channel["messages_uncommitted"], channel["acks_uncommitted"]) == (0, 0)


def test_lists_can_be_of_some() -> None:
    desk = VerbHarness()
    one, other = desk.edge.connect(), desk.edge.accept(("127.0.0.1", 40_001))
    other.log_in(user="alice", password="wonder")
    other.open_channel(1)
    other.open_channel(2)
    for client, queue in ((one, "q"), (other, "r")):
        client.declare(queue)
        client.consume(queue)
    (connection,) = desk.rows("connections.list", user="alice")
    assert connection["name"] == other.connection.name
    (connection,) = desk.rows("connections.list", name=one.connection.name, vhost="/")
    assert connection["user"] == "guest"
    assert desk.rows("connections.list", user="alice", vhost="nowhere") == []
    channels = desk.rows("channels.list", connection=other.connection.name)
    assert [row["number"] for row in channels] == [1, 2]
    assert desk.rows("channels.list", vhost="nowhere") == []
    assert [row["queue_name"] for row in desk.rows("consumers.list", queue="r")] == ["r"]


def test_a_channel_that_is_asked_for_by_name_has_its_consumers() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.consume("q", tag="c")
    (channel,) = desk.rows("channels.list", name=f"{client.connection.name} (1)")
    assert channel["consumer_details"] == desk.rows("consumers.list")
    assert desk.rows("channels.list", name="no such") == []


def test_of_quorum_queues_the_time_to_hold_a_message_is_reported() -> None:
    desk = VerbHarness()
    queue = QueueSpec("q", durable=True, queue_type=QueueType.QUORUM)
    timeout = partial(consumer_timeout_ms, desk.context, "/")
    assert timeout(queue) == desk.context.config.quorum.consumer_timeout_ms == 1_800_000
    assert timeout(replace(queue, arguments={"x-consumer-timeout": ("l", 7_000)})) == 7_000


class Counted:
    """Fake of `Statistics`, as far as lists need it."""

    def of_connection(self, _connection: object, ages: SampleWindows) -> Row:
        return {"recv_oct": 7, "asked": ages.data}

    def of_channel(self, _channel: object, ages: SampleWindows) -> Row:
        return {"message_stats": {"publish": 3}, "publishes": [1], "deliveries": [], "a": ages[0]}


def test_what_is_counted_is_reported_with_the_past_that_is_asked_for() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    statistics: Any = Counted()
    desk.context = desk.context._replace(statistics=statistics)
    desk.dispatcher = Dispatcher(desk.context, VERBS, raise_it)
    ages = {"data_rates_age": "60", "data_rates_incr": 5}
    (connection,) = desk.rows("connections.list", ages=ages)
    assert (connection["recv_oct"], connection["asked"]) == (7, [60, 5])
    (channel,) = desk.rows("channels.list")
    assert (channel["message_stats"], channel["a"]) == ({"publish": 3}, None)
    assert not {"publishes", "deliveries"} & channel.keys()
    (channel,) = desk.rows("channels.list", name=f"{client.connection.name} (1)")
    assert (channel["publishes"], channel["deliveries"]) == ([1], [])
    refusal = desk.refusal("connections.list", ages={**ages, "data_rates_age": "9999"})
    assert refusal == "SYNTAX_ERROR: Invalid range parameters: age 9999, incr 5"


class WithoutChannels(Connection):
    """Connection of a protocol that has no channels."""

    __slots__ = ()
    kind = ""
    protocol = "MQTT 5-0"
    protocol_row: Mapping[str, Any] = MappingProxyType({"client_id": "meter"})


def without_channels(desk: VerbHarness) -> Connection:
    """Client of a protocol that has no channels: one consumer of one queue."""
    client = desk.edge.connect()
    client.declare("q")
    client.consume("q", tag="mqtt")
    connection = client.connection
    assert isinstance(connection, Connection)
    (channel,) = connection.channels
    channel.number = WITHOUT_CHANNELS
    connection.__class__ = WithoutChannels
    return connection


def test_a_client_whose_protocol_has_no_channels_is_listed_without() -> None:
    desk = VerbHarness()
    connection = without_channels(desk)
    (row,) = desk.rows("connections.list")
    assert not {"type", "channels", "client_id"} & row.keys(), "as with RabbitMQ"
    assert desk.rows("channels.list") == []
    (consumer,) = desk.rows("consumers.list")
    details = consumer["channel_details"]
    assert (details["name"], details["number"]) == ("", 0)
    assert details["connection_name"] == consumer["channel"] == connection.name
    (counts,) = desk.rows("statistics.vhosts")
    assert (counts["channels"], counts["consumers"]) == (0, 1)


def test_clients_of_a_protocol_are_listed_with_what_only_that_has() -> None:
    desk = VerbHarness()
    connection = without_channels(desk)
    desk.edge.connect()
    (row,) = desk.rows("connections.of_protocol", protocol="MQTT")
    assert (row["name"], row["client_id"]) == (connection.name, "meter")
    assert row["recv_oct"] == connection.read_bytes > 0
    assert row["recv_cnt"] > 0 < row["send_oct"]
    assert desk.rows("connections.of_protocol", protocol="Web MQTT") == []
    desk.edge.accept()
    assert len(desk.rows("connections.of_protocol", protocol="AMQP")) == 1, "who has logged in"


class Keeper:
    """Keeper of one session, as `SessionKeeper`."""

    def __init__(self, client_id: str, user: str, vhost: str = "/") -> None:
        self._row = {"vhost": vhost, "client_id": client_id, "user": user}

    def session_rows(self) -> Iterator[Row]:
        yield self._row

    def session_counts(self) -> SessionCounts:
        return SessionCounts(connected=0, away=1, taken_over=0)


def test_sessions_are_listed_by_who_keeps_them() -> None:
    desk = VerbHarness()
    assert desk.rows("sessions.list") == []
    desk.ask("vhosts.add", name="v")
    desk.context.connections.session_keepers += [Keeper("a", "guest"), Keeper("b", "guest", "v")]
    assert desk.rows("sessions.list") == [
        {"node": "a", "vhost": "/", "client_id": "a", "user": "guest"},
        {"node": "a", "vhost": "v", "client_id": "b", "user": "guest"},
    ]
    (row,) = desk.rows("sessions.list", vhost="v")
    assert row["client_id"] == "b"
    assert desk.refusal("sessions.list", vhost="none").startswith("NOT_FOUND: ")
