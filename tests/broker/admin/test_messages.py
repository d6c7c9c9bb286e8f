"""queues.peek at the desk."""

import pytest

from fluffle.broker.queues import queue_view
from tests.broker.admin.verb_harness import VerbHarness

HERE = {"vhost": "/"}


def test_more_than_is_shown_at_once_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_view, "SHOWN_BYTES_MAX", 5)
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.publish(*(b"body %d" % number for number in range(5)))
    rows = desk.rows("queues.peek", name="q", **HERE, count=3, offset=1)
    assert [(row["position"], row["payload"]) for row in rows] == [
        (1, "body 1"),
        (2, "body 2"),
        (3, "body 3"),
    ]
    assert len(desk.rows("queues.peek", name="q", **HERE, count=9)) == 5
    assert desk.rows("queues.peek", name="q", **HERE, count=9, offset=5) == []
    assert desk.ask("queues.show", name="q", **HERE)["messages_ready"] == 5


@pytest.mark.parametrize(
    ("argument", "value", "bounds"),
    [("count", 0, "1 to 10000"), ("offset", -1, "0 to 9007199254740991"),
     ("body_bytes", 1 << 19, "0 to 262144")],
)  # fmt: skip
def test_what_is_asked_for_has_bounds(argument: str, value: int, bounds: str) -> None:
    desk = VerbHarness()
    desk.edge.connect().declare("q")
    refusal = desk.refusal("queues.peek", name="q", **HERE, **{argument: value})
    assert refusal == f"SYNTAX_ERROR: '{argument}' must be from {bounds}"


def test_a_queue_that_there_is_not() -> None:
    assert VerbHarness().refusal("queues.peek", name="q", **HERE) == (
        "NOT_FOUND: no queue 'q' in vhost '/'"
    )
