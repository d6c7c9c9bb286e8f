"""Logins, rights, and listeners of their changes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.access import access as module
from fluffle.broker.access import verification
from fluffle.broker.access.access import (
    Access,
    AccessTables,
    LoginRefused,
    Permission,
    Right,
    Rights,
    TopicPermission,
    User,
)
from fluffle.broker.access.passwords import PasswordHash, hashed
from fluffle.broker.access.verification import Answer, PasswordVerdict, Verifier
from fluffle.broker.base.errors import AccessRefused
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.support.definitions import EVERYTHING, editor_of
from tests.support.passwords import slow_hash
from tests.support.queue_host import FakeTurn


def access_of(**users: PasswordHash | None) -> Access:
    access = Access()
    for name, password in users.items():
        access.put_user(User(name, password))
    return access


def outcome(access: Access, name: str, password: str, *, from_loopback: bool = True) -> object:
    """The user, or the reason of the refusal."""
    outcomes: list[User | LoginRefused] = []
    access.login(name, password.encode(), outcomes.append, from_loopback=from_loopback)
    (result,) = outcomes
    return str(result) if isinstance(result, LoginRefused) else result


ACCESS = access_of(
    guest=hashed(b"guest"), zoë=hashed("pässword".encode()), blank=hashed(b""), certificate=None
)


@pytest.mark.parametrize(
    ("name", "password", "from_loopback"),
    [("guest", "guest", True), ("zoë", "pässword", True), ("zoë", "pässword", False)],
)
def test_let_in(name: str, password: str, from_loopback: bool) -> None:
    assert outcome(ACCESS, name, password, from_loopback=from_loopback) == ACCESS.users[name]


@pytest.mark.parametrize(
    ("name", "password", "from_loopback", "reason"),
    [
        ("nobody", "guest", True, "user 'nobody' does not exist"),
        ("guest", "Guest", True, "user 'guest' gave a wrong password"),
        ("guest", "", True, "user 'guest' gave a wrong password"),
        ("blank", "", True, "user 'blank' gave a wrong password"),
        ("certificate", "", True, "user 'certificate' has no password"),
        ("guest", "guest", False, "user 'guest' can only connect via localhost"),
        ("guest", "wrong", False, "user 'guest' gave a wrong password"),
    ],
)
def test_refused(name: str, password: str, from_loopback: bool, reason: str) -> None:
    assert outcome(ACCESS, name, password, from_loopback=from_loopback) == reason


def test_a_refusal_does_not_hold_the_password() -> None:
    assert "hunter2" not in str(outcome(ACCESS, "guest", "hunter2"))


def test_who_has_to_come_from_this_machine_can_be_chosen() -> None:
    access = Access(loopback_users=frozenset({"zoë"}))
    editor = editor_of(access=access)
    for name in ("guest", "zoë"):
        editor.grant_everything(name, b"secret", ["/"])
    assert outcome(access, "guest", "secret", from_loopback=False) == access.users["guest"]
    assert outcome(access, "zoë", "secret", from_loopback=False) == (
        "user 'zoë' can only connect via localhost"
    )


def test_a_user_who_is_changed_while_his_password_is_compared_is_refused() -> None:
    jobs: list[Answer] = []
    access = Access(verifier=Verifier(lambda _job, answer: jobs.append(answer)))
    access.put_user(User("u", PasswordHash("$argon2id$", "fluffle_password_hashing_argon2")))
    outcomes: list[object] = []
    access.login("u", b"secret", outcomes.append, from_loopback=True)
    access.put_user(User("u", hashed(b"another")))
    jobs[0](PasswordVerdict.RIGHT)
    assert [str(result) for result in outcomes] == ["user 'u' was changed meanwhile"]


def test_a_user_who_is_changed_while_his_password_is_compared_and_keeps_it_is_let_in() -> None:
    jobs: list[Answer] = []
    access = Access(verifier=Verifier(lambda _job, answer: jobs.append(answer)))
    before = User("u", PasswordHash("$argon2id$", "fluffle_password_hashing_argon2"))
    access.put_user(before)
    outcomes: list[object] = []
    access.login("u", b"secret", outcomes.append, from_loopback=True)
    access.put_user(now := replace(before, tags=("monitoring",)))
    jobs[0](PasswordVerdict.RIGHT)
    assert outcomes == [now]


def test_a_user_who_is_deleted_while_his_password_is_compared_is_refused() -> None:
    jobs: list[Answer] = []
    access = Access(verifier=Verifier(lambda _job, answer: jobs.append(answer)))
    access.put_user(User("u", PasswordHash("$argon2id$", "fluffle_password_hashing_argon2")))
    outcomes: list[object] = []
    access.login("u", b"secret", outcomes.append, from_loopback=True)
    access.remove_user("u")
    jobs[0](PasswordVerdict.RIGHT)
    assert [str(result) for result in outcomes] == ["user 'u' was changed meanwhile"]


def test_everything_is_granted_as_to_rabbitmqs_default_user() -> None:
    access = Access()
    editor_of(access=access).grant_everything("u", b"secret", ["/", "v"])
    assert access.users["u"].tags == ("administrator",)
    assert access.permissions == {("u", "/"): EVERYTHING, ("u", "v"): EVERYTHING}


def test_who_goes_takes_his_permissions_along() -> None:
    access = Access()
    editor = editor_of(access=access)
    for user in ("u", "w"):
        editor.put_user(User(user))
        for vhost in ("a", "b"):
            editor.put_permission(user, vhost, EVERYTHING)
            editor.put_topic_permission(user, vhost, "x", TopicPermission())
    editor.delete_user("u")
    assert list(access.permissions) == [("w", "a"), ("w", "b")]
    assert list(access.topic_permissions) == [("w", "a", "x"), ("w", "b", "x")]


def test_changes_are_reported_to_those_they_concern() -> None:
    access, heard = Access(), []
    editor = editor_of(VirtualHost("/", LocalQueues(FakeTurn())), access=access)

    def listener() -> None:
        heard.append("u")

    access.listen("u", listener)
    for name in ("u", "w"):
        editor.put_user(User(name))
        editor.put_permission(name, "/", Permission())
        editor.clear_permission(name, "/")
        editor.put_topic_permission(name, "/", "x", TopicPermission())
        editor.clear_topic_permission(name, "/", "x")
        editor.put_permission(name, "/", Permission())
        editor.delete_user(name)  # with what he may: reported once
    assert len(heard) == 7
    editor.delete_vhost("/")
    assert len(heard) == 8
    access.unlisten("u", listener)
    access.unlisten("u", listener)
    editor.put_user(User("u"))
    assert len(heard) == 8


def test_one_who_cannot_hear_of_a_change_keeps_it_from_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    access, heard = Access(), []

    def deaf() -> None:
        raise RuntimeError("deaf")

    access.listen("u", deaf)
    access.listen("u", lambda: heard.append("u"))
    access.notify("u")
    assert heard == ["u"]
    assert "RuntimeError: deaf" in caplog.text


def test_who_hears_what_cannot_be_ends_the_node() -> None:
    access = Access()

    def impossible() -> None:
        raise AssertionError("nobody is there")

    access.listen("u", impossible)
    with pytest.raises(AssertionError, match="nobody is there"):
        access.notify("u")


class Counting:
    """A port that compares at once and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, job: Callable[[], PasswordVerdict], answer: Answer) -> None:
        self.count += 1
        answer(job())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody", "user 'nobody' does not exist"),
        ("slow", "user 'slow' gave a wrong password"),
        ("quick", "user 'quick' gave a wrong password"),
        ("certificate", "user 'certificate' has no password"),
    ],
)
@pytest.mark.parametrize("is_restored", [False, True])
def test_time_does_not_tell_who_exists(name: str, reason: str, is_restored: bool) -> None:
    """Every refusal costs one slow comparison, once there is a slow hash."""
    users = {
        "quick": User("quick", hashed(b"right")),
        "certificate": User("certificate"),
        "slow": User("slow", slow_hash(b"right")),
    }
    port = Counting()
    access = Access(verifier=Verifier(port), tables=AccessTables(users) if is_restored else None)
    for user in users.values():
        if not is_restored:
            access.put_user(user)
    assert outcome(access, name, "wrong") == reason
    assert port.count == 1
    assert outcome(access, "quick", "right") == users["quick"]
    assert port.count == 1


def test_without_slow_hashes_nobody_waits() -> None:
    port = Counting()
    access = Access(verifier=Verifier(port))
    access.put_user(User("quick", hashed(b"right")))
    assert outcome(access, "nobody", "wrong") == "user 'nobody' does not exist"
    assert port.count == 0


@pytest.mark.parametrize("name", ["slow", "nobody"])
def test_when_too_many_log_in_some_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "WAITING_MAX", 0)
    access = Access(verifier=Verifier(Counting()))
    access.put_user(User("slow", slow_hash(b"right")))
    assert outcome(access, name, "right") == "too many passwords are being compared"


NAMES = st.sampled_from(["", "a", "ab", "b", "amq.default"])
PATTERNS = st.sampled_from(["", ".*", "^a", "b$", "("])
PERMISSIONS = st.none() | st.builds(Permission, PATTERNS, PATTERNS, PATTERNS)


def rights_with(permission: Permission | None) -> tuple[Access, Rights]:
    access = Access()
    user = User("u")
    access.put_user(user)
    if permission is not None:
        access.permissions["u", "v"] = permission
    return access, Rights(access, user, "v")


def refusal(rights: Rights, right: Right, kind: Literal["queue", "exchange"], name: str) -> str:
    with pytest.raises(AccessRefused) as refused:
        rights.check(right, kind, name)
    return refused.value.explanation


def test_texts() -> None:
    _, rights = rights_with(Permission("^mine", "", "^$"))
    rights.check("configure", "queue", "mine")
    rights.check("read", "queue", "")
    assert refusal(rights, "configure", "queue", "q") == (
        "configure access to queue 'q' in vhost 'v' refused for user 'u'"
    )
    assert refusal(rights, "write", "exchange", "") == (
        "write access to exchange 'amq.default' in vhost 'v' refused for user 'u'"
    )


def test_one_right_is_enough_to_look() -> None:
    _, rights = rights_with(Permission("", "", "^mine"))
    rights.check_any("queue", "mine")
    with pytest.raises(AccessRefused, match="configure access to exchange 'x'"):
        rights.check_any("exchange", "x")


def test_without_a_permission_nothing_is_allowed() -> None:
    _, rights = rights_with(None)
    assert not any(rights.may("read", name) for name in ("", "a"))


@given(
    st.lists(
        st.tuples(PERMISSIONS, st.lists(st.tuples(st.sampled_from(["configure", "read"]), NAMES)))
    )
)
def test_what_is_remembered_is_what_is_so(
    steps: list[tuple[Permission | None, list[tuple[Right, str]]]],
) -> None:
    access, rights = rights_with(None)
    editor = editor_of(access=access)
    access.listen("u", rights.forget)
    for permission, questions in steps:
        if permission is None:
            editor.clear_permission("u", "v")
        else:
            editor.put_permission("u", "v", permission)
        for right, name in questions:
            expected = permission is not None and permission.allows(right, name)
            assert rights.may(right, name) == expected


def test_there_is_an_end_to_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 4)
    _, rights = rights_with(Permission(read="1"))
    assert [rights.may("read", str(number)) for number in range(20)] == [
        "1" in str(number) for number in range(20)
    ]
    assert len(rights._remembered) <= 4


def test_topics_of_a_client_that_has_an_id() -> None:
    """Special characters of a pattern are not special in the id; other clients have none."""
    access, rights = rights_with(Permission())
    topics = TopicPermission("^news[.]{client_id}$", "")
    editor_of(access=access).put_topic_permission("u", "v", "x", topics)
    with pytest.raises(AccessRefused):
        rights.check_topic("write", "x", "news.")
    rights.topic_variables["client_id"] = "a.{vhost}.*"
    rights.check_topic("write", "x", "news.a.{vhost}.*")
    for key in ("news.a.v.*", "news.a.{vhost}..", "news.abv.", "news.{client_id}"):
        with pytest.raises(AccessRefused):
            rights.check_topic("write", "x", key)


def test_topics() -> None:
    access, rights = rights_with(Permission())
    assert not rights.guards_topics("x")
    rights.check_topic("write", "x", "anything")
    topics = TopicPermission("^{username}[.]", "{vhost}$")
    editor_of(access=access).put_topic_permission("u", "v", "x", topics)
    assert rights.guards_topics("x")
    rights.check_topic("write", "x", "u.key")
    rights.check_topic("read", "x", "key.v")
    with pytest.raises(AccessRefused) as refused:
        rights.check_topic("write", "x", "w.key")
    assert refused.value.explanation == (
        "write access to topic 'w.key' in exchange 'x' in vhost 'v' refused for user 'u'"
    )
