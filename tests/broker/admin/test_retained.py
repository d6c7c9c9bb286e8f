"""Tests of the control verbs retained.*."""

from __future__ import annotations

import pytest

from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.definitions.retained import TOPICS_AT_ONCE
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.broker.admin.verb_harness import VerbHarness

RAW = encode_properties(
    Properties(content_type="text/plain", headers={"k": ("S", b"v")}, delivery_mode=2)
)
SHORT = {
    "vhost": "/",
    "topic": "a/b",
    "user": "guest",
    "stored_at_ms": 1_000,
    "expires_at_ms": 2_000,
    "payload_bytes": 5,
}


@pytest.fixture
def desk() -> VerbHarness:
    desk = VerbHarness()
    retain(desk, "a/b", b"hello", 2_000)
    retain(desk, "$x", b"\xff")
    return desk


def retain(
    desk: VerbHarness, topic: str, payload: bytes, expires_at_ms: int = NEVER_EXPIRES_MS
) -> None:
    message = RetainedMessage(build_content(RAW, payload), b"", "guest", 1_000, expires_at_ms)
    desk.edge.vhost.retained.put(topic, message)


def test_all_are_listed_without_what_is_in_them(desk: VerbHarness) -> None:
    rows = sorted(desk.rows("retained.list"), key=lambda row: str(row["topic"]))
    assert rows == [
        {**SHORT, "topic": "$x", "expires_at_ms": None, "payload_bytes": 1},
        SHORT,
    ]
    assert desk.rows("retained.list", vhost="/") == desk.rows("retained.list")
    assert desk.refusal("retained.list", vhost="w").startswith("NOT_FOUND")


def test_one_is_shown(desk: VerbHarness) -> None:
    assert desk.ask("retained.show", vhost="/", topic="a/b") == {
        **SHORT,
        "headers": {"k": "v"},
        "properties": {"content_type": "text/plain", "delivery_mode": 2},
        "payload": "hello",
        "payload_encoding": "string",
    }
    row = desk.ask("retained.show", vhost="/", topic="$x")
    assert (row["payload"], row["payload_encoding"]) == ("/w==", "base64")
    refusal = desk.refusal("retained.show", vhost="/", topic="a")
    assert refusal == "NOT_FOUND: nothing is retained under 'a' in vhost '/'"


def test_one_is_removed(desk: VerbHarness) -> None:
    desk.ask("retained.clear", vhost="/", topic="a/b")
    assert [row["topic"] for row in desk.rows("retained.list")] == ["$x"]
    assert desk.refusal("retained.clear", vhost="/", topic="a/b").startswith("NOT_FOUND")


def test_all_are_removed_some_at_a_time(desk: VerbHarness) -> None:
    for number in range(4 * TOPICS_AT_ONCE):
        retain(desk, f"c/{number}", b"")
    assert desk.most_calls_of_a_turn("retained.clear_all", vhost="/") < 80 * TOPICS_AT_ONCE
    assert desk.rows("retained.list") == []
    assert desk.refusal("retained.clear_all", vhost="w").startswith("NOT_FOUND")
