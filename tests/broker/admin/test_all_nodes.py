"""everywhere.rows at the desk of a node that is alone: what it says, with its name."""

from __future__ import annotations

import logging

import pytest

from fluffle.broker.admin.all_nodes import OF_A_NODE, rows
from fluffle.broker.admin.dispatch import VERBS
from fluffle.broker.queues.queue_api import Deferred
from tests.broker.admin.verb_harness import VerbHarness


def test_a_lone_node_is_everywhere() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.consume("q")
    for verb in ("connections.list", "channels.list", "consumers.list"):
        answers = desk.rows("everywhere.rows", what=verb)
        assert answers == [{"node": "a", "row": row} for row in desk.rows(verb)]
        assert answers


def test_one_result_is_one_row() -> None:
    assert VerbHarness().rows("everywhere.rows", what="ping") == [{"node": "a", "row": {}}]


def test_what_takes_its_time_is_awaited(caplog: pytest.LogCaptureFixture) -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    answers = rows(desk.context, what="connections.close", arguments={"everybody": True})
    with caplog.at_level(logging.INFO):
        asked = next(answers)
    assert isinstance(asked, Deferred)
    asked.then(lambda _: None, lambda _: None)
    desk.edge.run()
    assert list(answers) == [{"node": "a", "row": {"closed": 1}}]
    client.expect_closed(320)
    assert "administered" in [record.getMessage() for record in caplog.records]


def test_what_is_refused_is_reported_with_the_node() -> None:
    arguments = {"name": "nobody"}
    (answers,) = VerbHarness().rows(
        "everywhere.rows", what="connections.close", arguments=arguments
    )
    error = {"code": 404, "name": "NOT_FOUND", "text": "no connection 'nobody'"}
    assert answers == {"node": "a", "error": error}


@pytest.mark.parametrize("verb", ["users.add", "everywhere.rows", "no.such", ""])
def test_what_concerns_all_nodes_at_once_is_not_asked_of_each(verb: str) -> None:
    refusal = VerbHarness().refusal("everywhere.rows", what=verb)
    assert refusal == f"COMMAND_INVALID: '{verb}' is not asked of every node"


def test_one_node_can_be_asked_alone() -> None:
    desk = VerbHarness()
    assert desk.rows("everywhere.rows", what="ping", node="a") == [{"node": "a", "row": {}}]
    refusal = desk.refusal("everywhere.rows", what="ping", node="b")
    assert refusal == "NOT_FOUND: there is no node 'b' in the cluster"


def test_arguments_are_looked_at_before_anybody_is_asked() -> None:
    refusal = VerbHarness().refusal(
        "everywhere.rows", what="connections.close", arguments={"name": 7}
    )
    assert refusal == "SYNTAX_ERROR: 'name' must be a string or null"


def test_there_are_such_verbs() -> None:
    assert set(VERBS) >= OF_A_NODE
