"""Members of many quorum queues at once: what has changed meanwhile keeps no others back."""

from __future__ import annotations

from functools import partial
from typing import Any

from fluffle.broker.admin.members import for_each, with_member, without_member
from tests.broker.admin.verb_harness import VerbHarness

QUORUM = {"x-queue-type": ("S", b"quorum")}


def changed(desk: VerbHarness, redefine: Any, names: list[str]) -> object:
    """Have so many queues become others; the answer."""
    return for_each(desk.context, [(("/", name), redefine) for name in names])


def desk_with_queues() -> VerbHarness:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("classic")
    for name in ("q", "r"):
        client.declare(name, durable=True, arguments=QUORUM)
    return desk


def test_who_was_deleted_meanwhile_or_is_another_queue_by_now_keeps_nobody_back() -> None:
    desk = desk_with_queues()
    names = ["gone", "q", "classic", "r"]
    assert changed(desk, partial(with_member, "b"), names) == {"queues": 2}
    for name in ("q", "r"):
        assert "b" in desk.edge.vhost.queues[name].definition.wanted


def test_who_has_no_other_member_by_now_keeps_nobody_back() -> None:
    desk = desk_with_queues()
    (own,) = desk.edge.vhost.queues["q"].definition.wanted or ("",)
    changed(desk, partial(with_member, "b"), ["r"])
    assert changed(desk, partial(without_member, own), ["q", "r"]) == {"queues": 1}
