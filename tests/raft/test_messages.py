"""The closed set of messages."""

from dataclasses import fields
from typing import get_args

from fluffle.raft.messages import MESSAGES, GroupMessage, Message, Ping


def test_every_message_has_a_number() -> None:
    assert set(MESSAGES) == set(get_args(Message))
    assert len(MESSAGES) == len(set(MESSAGES))


def test_the_messages_of_a_group_begin_alike() -> None:
    for kind in get_args(GroupMessage):
        names = [field.name for field in fields(kind)]
        assert names[:4] == ["group", "term", "sender", "receiver"], kind


def test_no_message_has_a_dictionary() -> None:
    assert not hasattr(Ping(1, 1, 0, 0, True), "__dict__")
