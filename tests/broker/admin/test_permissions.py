"""permissions.* at the desk, and how fast they count."""

import pytest

from fluffle.protocol.methods import Queue, encode_method, make
from tests.broker.admin.desk import Desk

EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


def test_permissions_are_set_listed_and_cleared() -> None:
    desk = Desk()
    desk.ask("vhosts.add", name="v")
    desk.ask("permissions.set", user="alice", vhost="v", configure="^a", write="", read=".*")
    row = {"user": "alice", "vhost": "v", "configure": "^a", "write": "", "read": ".*"}
    assert desk.rows("permissions.list", vhost="v") == [row]
    assert desk.rows("permissions.list", user="alice") == [
        {"user": "alice", "vhost": "/", **EVERYTHING},
        row,
    ]
    assert len(desk.rows("permissions.list")) == 3
    desk.ask("permissions.clear", user="alice", vhost="v")
    assert desk.rows("permissions.list", vhost="v") == []
    desk.ask("permissions.clear", user="alice", vhost="v")  # as with RabbitMQ, no error


def test_a_right_counts_from_then_on() -> None:
    desk = Desk()
    client = desk.edge.connect(user="alice", password="wonder")
    desk.ask("permissions.set", user="alice", vhost="/", configure="^a", write="", read="")
    client.declare("allowed")
    client.send(encode_method(1, make(Queue.Declare, queue="other")))
    client.expect_channel_closed(403, "configure access to queue 'other'")


def test_topic_permissions() -> None:
    desk = Desk()
    where = {"user": "alice", "vhost": "/"}
    for exchange in ("x", "y"):
        desk.ask("permissions.topic_set", **where, exchange=exchange, write="^a", read="")
    row = {**where, "exchange": "x", "write": "^a", "read": ""}
    assert desk.rows("permissions.topic_list") == [row, {**row, "exchange": "y"}]
    assert desk.rows("permissions.topic_list", user="guest") == []
    desk.ask("permissions.topic_clear", **where, exchange="x")
    assert [each["exchange"] for each in desk.rows("permissions.topic_list")] == ["y"]
    desk.ask("permissions.topic_set", **where, exchange="x", write="", read="")
    desk.ask("permissions.topic_clear", **where)
    assert desk.rows("permissions.topic_list") == []


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("permissions.set", EVERYTHING),
        ("permissions.clear", {}),
        ("permissions.list", {}),
        ("permissions.topic_set", {"exchange": "x", "write": "", "read": ""}),
        ("permissions.topic_clear", {}),
        ("permissions.topic_list", {}),
    ],
)
def test_users_and_virtual_hosts_must_exist(verb: str, more: dict[str, str]) -> None:
    desk = Desk()
    assert desk.refusal(verb, user="u", vhost="/", **more) == "NOT_FOUND: user 'u' does not exist"
    assert desk.refusal(verb, user="alice", vhost="v", **more) == (
        "NOT_FOUND: vhost 'v' does not exist"
    )


def test_a_pattern_that_cannot_be_read_changes_nothing() -> None:
    desk = Desk()
    before = desk.rows("permissions.list")
    refusal = desk.refusal(
        "permissions.set", user="alice", vhost="/", configure="(", write="", read=""
    )
    assert refusal.startswith("PRECONDITION_FAILED: cannot use the regular expression '('")
    assert desk.rows("permissions.list") == before
