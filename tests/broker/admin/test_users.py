"""users.* at the desk, and what becomes of who is logged in."""

import pytest

from fluffle.broker.access.passwords import ARGON2, SHA256, SHA512, hashed
from fluffle.protocol.methods import Connection
from tests.broker.admin.desk import Desk


def add(desk: Desk, name: str = "bob", password: bytes = b"builder", **more: object) -> None:
    desk.ask("users.add", name=name, password_hash=hashed(password).hash, **more)


def test_a_user_comes_and_goes() -> None:
    desk = Desk()
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
    desk = Desk()
    add(desk)
    stored = hashed(b"new", algorithm)
    desk.ask("users.password", name="bob", password_hash=stored.hash, hashing_algorithm=algorithm)
    assert desk.ask("users.authenticate", name="bob", password="new")["user"] == "bob"
    assert desk.refusal("users.authenticate", name="bob", password="builder") == (
        "ACCESS_REFUSED: user 'bob' gave a wrong password"
    )


def test_the_last_administrator_goes_by_force_alone() -> None:
    desk = Desk()
    for user in desk.rows("users.list"):
        desk.ask("users.tags", name=user["user"], tags=["administrator"])
    desk.ask("users.delete", name="guest")
    assert "last administrator" in desk.refusal("users.delete", name="alice")
    assert desk.ask("users.show", name="alice")["tags"] == ["administrator"]
    desk.ask("users.delete", name="alice", force=True)
    assert desk.rows("users.list") == []


def test_a_user_without_a_password_cannot_log_in_with_one() -> None:
    desk = Desk()
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
    desk = Desk()
    before = dict(desk.context.access.users)
    assert desk.refusal(verb, **arguments) == text
    assert desk.context.access.users == before


def test_a_deleted_user_is_shown_out_and_his_permissions_go() -> None:
    desk = Desk()
    alice, guest = desk.edge.connect(user="alice", password="wonder"), desk.edge.connect()
    desk.ask("users.delete", name="alice")
    alice.expect_closed(320, "CONNECTION_FORCED - user 'alice' is deleted")
    guest.declare("q")
    assert [row["user"] for row in desk.rows("permissions.list")] == ["guest"]


def test_who_is_logged_in_stays_when_his_password_or_his_tags_change() -> None:
    desk = Desk()
    alice = desk.edge.connect(user="alice", password="wonder")
    desk.ask("users.password", name="alice", password_hash="")
    desk.ask("users.tags", name="alice", tags=[])
    alice.declare("q")
    assert desk.rows("users.list")[1]["tags"] == []


def test_limits_are_changed_one_by_one_and_hold_at_once() -> None:
    desk = Desk()
    desk.ask("users.limits", name="alice", limits={"max-connections": 0, "max-channels": 7})
    desk.ask("users.limits", name="alice", limits={"max-channels": None})
    row = desk.rows("users.list")[1]
    assert (row["max_connections"], row["max_channels"]) == (0, None)
    client = desk.edge.accept()
    with pytest.raises(AssertionError):  # the open is answered with a close
        client.log_in(user="alice", password="wonder")
    assert not isinstance(client.connection.phase, Connection.OpenOk)
