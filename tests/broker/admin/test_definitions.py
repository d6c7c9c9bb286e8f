"""definitions.* at the desk: in pieces, and the same as in one."""

from typing import Any

from fluffle.broker.definitions.file_format import ORDER
from tests.broker.admin.verb_harness import VerbHarness
from tests.support.exports import export_all, export_vhost


def filled() -> VerbHarness:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q", durable=True)
    client.declare_exchange("x", "topic")
    client.bind("q", "x", "a.#")
    desk.ask("vhosts.add", name="v")
    desk.ask("vhosts.limits", name="v", limits={"max-queues": 3})
    return desk


def joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    first, *entries = rows
    content: dict[str, Any] = first["head"] | {category: [] for category in first["categories"]}
    for row in entries:
        content[row["category"]].append(row["entry"])
    return content


def test_an_export_in_pieces_is_the_whole() -> None:
    desk = filled()
    catalogue, version = desk.context.catalogue, desk.context.config.product_version
    assert joined(desk.rows("definitions.export")) == export_all(catalogue, version)
    assert joined(desk.rows("definitions.export", vhost="v")) == export_vhost(
        catalogue, desk.context.vhost("v"), version
    )
    assert "does not exist" in desk.refusal("definitions.export", vhost="w")


def test_an_import_in_pieces_makes_the_same() -> None:
    whole = joined(filled().rows("definitions.export"))
    desk = VerbHarness()
    for category in ORDER:
        for entry in whole[category]:
            assert desk.ask("definitions.import", category=category, entries=[entry]) == {
                "skipped": []
            }
    assert joined(desk.rows("definitions.export")) == whole


def test_entries_without_a_virtual_host_have_a_home() -> None:
    desk = VerbHarness()
    desk.ask("vhosts.add", name="v")
    entry = {"name": "q", "durable": True}
    desk.ask("definitions.import", category="queues", entries=[entry], home="v")
    assert [row["vhost"] for row in desk.rows("queues.list")] == ["v"]


def test_what_is_skipped_is_said() -> None:
    desk = VerbHarness()
    entry = {"vhost": "/", "name": "s", "arguments": {"x-queue-type": "stream"}}
    (reason,) = desk.ask("definitions.import", category="queues", entries=[entry])["skipped"]
    assert reason.startswith("queues, vhost '/' name 's': ")


def test_what_cannot_be_taken_is_refused() -> None:
    desk = VerbHarness()
    assert desk.refusal("definitions.import", category="cats", entries=[]) == (
        "SYNTAX_ERROR: there is no category 'cats'"
    )
    assert desk.refusal("definitions.import", category="users", entries=[{}]) == (
        "PRECONDITION_FAILED: users, entry 1: there is no 'name'"
    )
    assert "vhost 'v' does not exist" in desk.refusal(
        "definitions.import", category="queues", entries=[], home="v"
    )


def test_nothing_is_made_of_halves_of_characters() -> None:
    """Such names could be exported and shown on no page; surrogates that stand for octets can."""
    desk = VerbHarness()
    entries = [
        {"vhost": "/", "name": "good"},
        {"vhost": "/", "name": "q", "arguments": {"a": "\ud800"}},
    ]
    assert "'entries' must be" in desk.refusal(
        "definitions.import", category="queues", entries=entries
    )
    assert desk.rows("queues.list") == []
    key = {
        "vhost": "/",
        "source": "amq.direct",
        "destination": "amq.fanout",
        "destination_type": "exchange",
        "routing_key": "\udcff",
    }
    assert desk.ask("definitions.import", category="bindings", entries=[key]) == {"skipped": []}
