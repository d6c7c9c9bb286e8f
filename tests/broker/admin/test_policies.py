"""policies.*, operator_policies.*, parameters.* and global_parameters.* at the desk."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.access.limits import VhostLimits
from tests.broker.admin.verb_harness import VerbHarness
from tests.support.definitions import engine_of

POLICY = {"name": "p", "vhost": "/", "pattern": "^q", "definition": '{"max-length": 5}'}


def settings_of(desk: VerbHarness, queue: str) -> Any:
    return engine_of(desk.edge.vhost, queue).settings


def test_a_policy_comes_changes_and_goes() -> None:
    desk = VerbHarness()
    desk.edge.connect().declare("q")
    desk.ask("policies.set", **POLICY)
    assert settings_of(desk, "q").max_length == 5
    desk.ask("policies.set", **POLICY | {"priority": 3, "applies_to": "queues"})
    assert desk.rows("policies.list", vhost="/") == [
        {
            "vhost": "/",
            "name": "p",
            "pattern": "^q",
            "apply-to": "queues",
            "definition": {"max-length": 5},
            "priority": 3,
        }
    ]
    desk.ask("policies.clear", name="p", vhost="/")
    assert desk.rows("policies.list") == []
    assert settings_of(desk, "q").max_length is None
    refusal = desk.refusal("policies.clear", name="p", vhost="/")
    assert refusal == "NOT_FOUND: there is no policy 'p' in vhost '/'"


def test_operators_say_how_much_policies_may() -> None:
    desk = VerbHarness()
    desk.edge.connect().declare("q")
    desk.ask("policies.set", **POLICY)
    desk.ask("operator_policies.set", **POLICY | {"name": "o", "definition": '{"max-length": 3}'})
    assert settings_of(desk, "q").max_length == 3
    row = desk.ask("queues.show", name="q", vhost="/")
    assert (row["policy"], row["operator_policy"]) == ("p", "o")
    assert row["effective_policy_definition"] == {"max-length": 3}
    [row] = desk.rows("operator_policies.list")
    assert (row["name"], row["definition"]) == ("o", {"max-length": 3})
    assert [row["name"] for row in desk.rows("policies.list")] == ["p"]
    desk.ask("operator_policies.clear", name="o", vhost="/")
    assert settings_of(desk, "q").max_length == 5


def test_who_counts_first_is_listed_last() -> None:
    desk = VerbHarness()
    for name, priority in (("a", 2), ("b", 0), ("c", 1)):
        desk.ask("policies.set", **POLICY | {"name": name, "priority": priority})
    assert [row["name"] for row in desk.rows("policies.list")] == ["b", "c", "a"]


def test_an_exchange_names_its_policy() -> None:
    desk = VerbHarness()
    alternate = '{"alternate-exchange": "amq.fanout"}'
    desk.ask("policies.set", **POLICY | {"pattern": "direct$", "definition": alternate})
    named = {row["name"]: row["policy"] for row in desk.rows("exchanges.list")}
    assert (named["amq.direct"], named["amq.topic"]) == ("p", None)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"vhost": "v"}, "NOT_FOUND: Virtual host 'v' does not exist"),
        (
            {"definition": "{"},
            "PRECONDITION_FAILED: the definition is no JSON: '{'; write it like "
            """'{"max-length": 1000}'""",
        ),
        (
            {"definition": "{}"},
            "PRECONDITION_FAILED: no policy provided",
        ),
        (
            {"pattern": '{"max-length": 1}', "definition": "^q"},
            "PRECONDITION_FAILED: JSON stands where the pattern belongs: it is NAME PATTERN "
            "DEFINITION",
        ),
        (
            {"definition": '{"message-tll": 1, "max-length": 2, "zzz": 3}'},
            "PRECONDITION_FAILED: there is no setting 'message-tll' here, did you mean "
            "'message-ttl'?; there is no setting 'zzz' here",
        ),
        (
            {"definition": '{"max-length": "many"}', "applies_to": "queue"},
            "PRECONDITION_FAILED: \"many\" is not a valid maximum length; apply-to 'queue' "
            "unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', "
            "'streams', 'exchanges', or 'all'",
        ),
        ({"name": ""}, "SYNTAX_ERROR: the name of a policy has 1 to 255 bytes"),
    ],
)
def test_bad_policies(said: dict[str, Any], text: str) -> None:
    for verb in ("policies.set", "operator_policies.set"):
        assert VerbHarness().refusal(verb, **POLICY | said) == text


@pytest.mark.parametrize(
    ("verb", "key", "text"),
    [
        (
            "operator_policies.set",
            "dead-letter-exchange",
            "an operator's policy cannot set 'dead-letter-exchange', any other policy can",
        ),
        (
            "policies.set",
            "max-priority",
            "no policy sets 'max-priority': a queue is declared with 'x-max-priority'",
        ),
        (
            "operator_policies.set",
            "x-single-active-consumer",
            "no policy sets 'x-single-active-consumer': a queue is declared with "
            "'x-single-active-consumer'",
        ),
        (
            "policies.set",
            "x-max-length",
            "there is no setting 'x-max-length' here, did you mean 'max-length'?",
        ),
        (
            "policies.set",
            "message-deduplication",
            "there is no setting 'message-deduplication' here, did you mean "
            "'x-message-deduplication'?",
        ),
    ],
)
def test_where_a_setting_belongs_is_said(verb: str, key: str, text: str) -> None:
    refusal = VerbHarness().refusal(verb, **POLICY | {"definition": f'{{"{key}": true}}'})
    assert refusal == f"PRECONDITION_FAILED: {text}"


def test_a_policy_that_is_not_there_is_named() -> None:
    desk = VerbHarness()
    for of, verb in (("", "policies.clear"), (" of operators", "operator_policies.clear")):
        text = f"NOT_FOUND: there is no policy{of} 'p9' in vhost '/'"
        assert desk.refusal(verb, name="p9", vhost="/") == text
        text = "NOT_FOUND: Virtual host 'v' does not exist"
        assert desk.refusal(verb, name="p9", vhost="v") == text


def test_parameters_are_policies_of_operators_and_limits() -> None:
    desk = VerbHarness()
    here = {"component": "operator_policy", "name": "o", "vhost": "/"}
    policy = '{"pattern": "", "definition": {"max-length": 1}, "priority": 0, "apply-to": "all"}'
    desk.ask("parameters.set", **here, value=policy)
    assert [row["name"] for row in desk.rows("operator_policies.list")] == ["o"]
    limits = {"component": "vhost-limits", "name": "limits", "vhost": "/"}
    desk.ask("parameters.set", **limits, value='{"max-queues": 3}')
    assert desk.edge.vhost.limits == VhostLimits(max_queues=3)
    assert [row["component"] for row in desk.rows("parameters.list", vhost="/")] == [
        "operator_policy",
        "vhost-limits",
    ]
    desk.ask("parameters.clear", **here)
    desk.ask("parameters.clear", **limits)
    assert desk.rows("parameters.list") == desk.rows("operator_policies.list") == []
    assert desk.edge.vhost.limits == VhostLimits()
    for each in (here, limits):
        assert desk.refusal("parameters.clear", **each) == "NOT_FOUND: Parameter does not exist"


@pytest.mark.parametrize(
    ("component", "value", "text"),
    [
        ("policy", "{}", "policies may not be set using this method"),
        ("shovel", "{}", "component shovel not found"),
        (
            "vhost-limits",
            '{"max-queues": "x"}',
            'max-queues should be a number, actually was "x"',
        ),
        (
            "vhost-limits",
            '{"max-queues": 1.5, "foo": 1}',
            'Unrecognised terms [{"foo",1}] in n; max-queues should be a number, actually was 1.5',
        ),
        ("vhost-limits", "5", "n not a list 5"),
    ],
)
def test_bad_parameters(component: str, value: str, text: str) -> None:
    here = {"component": component, "name": "n", "vhost": "/"}
    refusal = VerbHarness().refusal("parameters.set", **here, value=value)
    assert refusal == f"PRECONDITION_FAILED: {text}"


def test_policies_are_not_cleared_as_parameters() -> None:
    refusal = VerbHarness().refusal("parameters.clear", component="policy", name="p", vhost="/")
    assert refusal == "PRECONDITION_FAILED: policies may not be cleared using this method"


def test_global_parameters_are_whatever_they_are() -> None:
    desk = VerbHarness()
    desk.ask("global_parameters.set", name="a", value='{"b": [1]}')
    desk.ask("global_parameters.set", name="a", value='{"b": [1]}')
    assert desk.rows("global_parameters.list") == [{"name": "a", "value": {"b": [1]}}]
    assert "this is no JSON" in desk.refusal("global_parameters.set", name="a", value="no")
    desk.ask("global_parameters.clear", name="a")
    refusal = desk.refusal("global_parameters.clear", name="a")
    assert refusal == "NOT_FOUND: Parameter does not exist"
