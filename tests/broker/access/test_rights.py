"""What a connection may do, remembered or not, with RabbitMQ's texts for what it may not."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.access import rights as module
from fluffle.broker.access.access import Access
from fluffle.broker.access.permissions import Permission, Right, TopicPermission
from fluffle.broker.access.rights import Rights
from fluffle.broker.access.users import User
from fluffle.broker.base.errors import AccessRefused
from tests.support.definitions import editor_of

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
