"""users.* at the desk, and what becomes of who is logged in."""

import pytest

from fluffle.broker.access.passwords import ARGON2, SHA256, SHA512, hashed
from fluffle.protocol.methods import Connection, Queue, encode_method, make
from tests.broker.admin.verb_harness import VerbHarness


def add(desk: VerbHarness, name: str = "bob", password: bytes = b"builder", **more: object) -> None:
    desk.ask("users.add", name=name, password_hash=hashed(password).hash, **more)


def test_a_user_comes_and_goes() -> None:
    desk = VerbHarness()
    add(desk, tags=["monitoring", "policymaker"])
    assert desk.rows("users.list")[-1] == {
        "user": "bob",
        "tags": ["monitoring", "policymaker"],
        "hashing_algorithm": SHA256,
        "max_connections": None,
        "max_channels": None,
    }
    assert desk.refusal("users.add", name="bob") == (
        "PRECONDITION_FAILED: user 'bob' already exists"
    )
    desk.ask("users.delete", name="bob")
    assert [row["user"] for row in desk.rows("users.list")] == ["guest", "alice"]


@pytest.mark.parametrize("algorithm", [SHA256, SHA512, ARGON2])
def test_passwords_are_given_as_hashes(algorithm: str) -> None:
    desk = VerbHarness()
    add(desk)
    stored = hashed(b"new", algorithm)
    desk.ask("users.password", name="bob", password_hash=stored.hash, hashing_algorithm=algorithm)
    assert desk.ask("users.authenticate", name="bob", password="new")["user"] == "bob"
    assert desk.refusal("users.authenticate", name="bob", password="builder") == (
        "ACCESS_REFUSED: user 'bob' gave a wrong password"
    )


def test_the_last_administrator_goes_by_force_alone() -> None:
    desk = VerbHarness()
    for user in desk.rows("users.list"):
        desk.ask("users.tags", name=user["user"], tags=["administrator"])
    desk.ask("users.delete", name="guest")
    assert "last administrator" in desk.refusal("users.delete", name="alice")
    assert desk.ask("users.show", name="alice")["tags"] == ["administrator"]
    desk.ask("users.delete", name="alice", force=True)
    assert desk.rows("users.list") == []


def test_a_user_without_a_password_cannot_log_in_with_one() -> None:
    desk = VerbHarness()
    desk.ask("users.add", name="cert")
    assert "has no password" in desk.refusal("users.authenticate", name="cert", password="x")


@pytest.mark.parametrize(
    ("verb", "arguments", "text"),
    [
        ("users.add", {"name": ""}, "SYNTAX_ERROR: the name of a user has 1 to 255 bytes"),
        (
            "users.add",
            {"name": "b", "password_hash": "?"},
            "PRECONDITION_FAILED: the password hash is not base64",
        ),
        (
            "users.password",
            {"name": "alice", "password_hash": "x", "hashing_algorithm": "rot13"},
            "PRECONDITION_FAILED: the password hash is not base64",
        ),
        (
            "users.limits",
            {"name": "alice", "limits": {"max-queues": 1}},
            "SYNTAX_ERROR: there is no limit 'max-queues'; there are max-connections, max-channels",
        ),
        *(
            (f"users.{verb}", {"name": "b", **more}, "NOT_FOUND: user 'b' does not exist")
            for verb, more in (
                ("delete", {}),
                ("password", {"password_hash": ""}),
                ("tags", {"tags": []}),
                ("limits", {"limits": {}}),
            )
        ),
    ],
)
def test_refusals(verb: str, arguments: dict[str, object], text: str) -> None:
    desk = VerbHarness()
    before = dict(desk.context.access.users)
    assert desk.refusal(verb, **arguments) == text
    assert desk.context.access.users == before


def test_a_deleted_user_is_shown_out_and_his_permissions_go() -> None:
    desk = VerbHarness()
    alice, guest = desk.edge.connect(user="alice", password="wonder"), desk.edge.connect()
    desk.ask("users.delete", name="alice")
    alice.expect_closed(320, "CONNECTION_FORCED - user 'alice' is deleted")
    guest.declare("q")
    assert [row["user"] for row in desk.rows("permissions.list")] == ["guest"]


def test_who_is_logged_in_stays_when_his_password_or_his_tags_change() -> None:
    desk = VerbHarness()
    alice = desk.edge.connect(user="alice", password="wonder")
    desk.ask("users.password", name="alice", password_hash="")
    desk.ask("users.tags", name="alice", tags=[])
    alice.declare("q")
    assert desk.rows("users.list")[1]["tags"] == []


def test_limits_are_changed_one_by_one_and_hold_at_once() -> None:
    desk = VerbHarness()
    desk.ask("users.limits", name="alice", limits={"max-connections": 0, "max-channels": 7})
    desk.ask("users.limits", name="alice", limits={"max-channels": None})
    row = desk.rows("users.list")[1]
    assert (row["max_connections"], row["max_channels"]) == (0, None)
    client = desk.edge.accept()
    with pytest.raises(AssertionError):  # the open is answered with a close
        client.log_in(user="alice", password="wonder")
    assert not isinstance(client.connection.phase, Connection.OpenOk)


EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


def test_permissions_are_set_listed_and_cleared() -> None:
    desk = VerbHarness()
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
    desk = VerbHarness()
    client = desk.edge.connect(user="alice", password="wonder")
    desk.ask("permissions.set", user="alice", vhost="/", configure="^a", write="", read="")
    client.declare("allowed")
    client.send(encode_method(1, make(Queue.Declare, queue="other")))
    client.expect_channel_closed(403, "configure access to queue 'other'")


def test_topic_permissions() -> None:
    desk = VerbHarness()
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
    desk = VerbHarness()
    assert desk.refusal(verb, user="u", vhost="/", **more) == "NOT_FOUND: user 'u' does not exist"
    assert desk.refusal(verb, user="alice", vhost="v", **more) == (
        "NOT_FOUND: vhost 'v' does not exist"
    )


def test_a_pattern_that_cannot_be_read_changes_nothing() -> None:
    desk = VerbHarness()
    before = desk.rows("permissions.list")
    refusal = desk.refusal(
        "permissions.set", user="alice", vhost="/", configure="(", write="", read=""
    )
    assert refusal.startswith("PRECONDITION_FAILED: cannot use the regular expression '('")
    assert desk.rows("permissions.list") == before
