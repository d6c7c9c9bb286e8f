"""From lines to results: bad ones, unknown ones, broken ones."""

from __future__ import annotations

import json
import logging
from importlib import import_module
from pathlib import Path

import pytest

from fluffle.broker.admin import dispatch
from fluffle.broker.admin.context import DeferredRow, NodeContext, PendingRow, Row
from fluffle.broker.admin.dispatch import (
    AUDITED,
    GROUPS,
    MODULES_OF_DEFINITIONS,
    PAGE_BYTES,
    PAGE_ROWS,
    VERBS,
    Dispatcher,
    answer_line,
    certain_result,
    page_line,
    page_of,
    verbs_of,
)
from fluffle.broker.base.errors import BrokerError, NotFound, QueueDeleted
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from tests.broker.admin.verb_harness import VerbHarness
from tests.support.read_barrier import ManualReadBarrier


def no_error(error: Exception) -> None:
    raise error


def test_the_log_says_what_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def transfer(_parts: NodeContext, *, name: str, vhost: str, node: str, password: str) -> Row:
        return {}

    dispatcher = Dispatcher(
        VerbHarness().context, verbs_of({}, {"queues.transfer": transfer}), no_error
    )
    asked = {"name": "q", "vhost": "/", "node": "b", "password": "hidden"}
    dispatcher.act(json.dumps({"verb": "queues.transfer", "arguments": asked}).encode())
    (record,) = [each for each in caplog.records if each.getMessage() == "administered"]
    assert getattr(record, FIELDS_ATTRIBUTE) == {
        "verb": "queues.transfer",
        "name": "q",
        "vhost": "/",
        "node": "b",
    }


def error_of(dispatcher: Dispatcher, line: bytes) -> tuple[object, str]:
    outcome = dispatcher.act(line)
    assert isinstance(outcome.result, BrokerError)
    return outcome.request_id, outcome.result.reply_text


@pytest.mark.parametrize(
    ("line", "request_id", "text"),
    [
        (b"", None, "SYNTAX_ERROR - this is no JSON"),
        (b"{", None, "SYNTAX_ERROR - this is no JSON"),
        (b"\xff\xfe\xfd", None, "SYNTAX_ERROR - this is no JSON"),
        (b"[" * 100_000, None, "SYNTAX_ERROR - this is no JSON"),
        (b"[]", None, "SYNTAX_ERROR - a request is an object"),
        (b"null", None, "SYNTAX_ERROR - a request is an object"),
        (b"{}", None, "SYNTAX_ERROR - 'verb' must be a string"),
        (b'{"verb": ["status"]}', None, "SYNTAX_ERROR - 'verb' must be a string"),
        (b'{"id": 1.5, "verb": "status"}', None, "SYNTAX_ERROR - 'id' must be a number or"),
        (b'{"id": true, "verb": "status"}', None, "SYNTAX_ERROR - 'id' must be a number or"),
        (b'{"id": {}, "verb": "status"}', None, "SYNTAX_ERROR - 'id' must be a number or"),
        (
            b'{"id": "%s", "verb": "status"}' % (b"x" * 65),
            None,
            "SYNTAX_ERROR - 'id' must be a number or",
        ),
        (b'{"verb": "status", "arguments": []}', None, "SYNTAX_ERROR - 'arguments' must be an"),
        (b'{"id": 7, "verb": "nonsense"}', 7, "COMMAND_INVALID - there is no verb 'nonsense'"),
        (
            b'{"id": "a", "verb": "status", "arguments": {"x": 1}}',
            "a",
            "SYNTAX_ERROR - there is no argument 'x'",
        ),
        (b'{"verb": "users.add"}', None, "SYNTAX_ERROR - 'name' is missing"),
    ],
)
def test_what_is_no_request(line: bytes, request_id: object, text: str) -> None:
    found_id, found = error_of(VerbHarness().dispatcher, line)
    assert (found_id, found[: len(text)]) == (request_id, text)


def broken(context: NodeContext) -> Row:
    raise ValueError("a bug")


def mistaken(context: NodeContext) -> Row:
    raise AssertionError("cannot be")


def test_a_bug_ends_one_request(caplog: pytest.LogCaptureFixture) -> None:
    fatal: list[Exception] = []
    verbs = verbs_of({"broken": broken, "mistaken": mistaken}, {})
    dispatcher = Dispatcher(VerbHarness().context, verbs, fatal.append)
    text = "INTERNAL_ERROR - the broker failed, see its log"
    assert error_of(dispatcher, b'{"id": 1, "verb": "broken"}') == (1, text)
    assert fatal == []
    assert "a bug" in caplog.text
    assert error_of(dispatcher, b'{"id": 2, "verb": "mistaken"}') == (2, text)
    assert list(map(str, fatal)) == ["cannot be"]


def test_changes_are_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    desk = VerbHarness()
    desk.ask("users.add", name="bob", password_hash="")
    desk.rows("users.list")
    desk.refusal("users.add", name="bob")
    fields = [getattr(record, "fluffle_fields", None) for record in caplog.records]
    assert [each for each in fields if each and "verb" in each] == [
        {"verb": "users.add", "name": "bob"}
    ]


def test_lines() -> None:
    error = (
        VerbHarness().dispatcher.act(b'{"id": 1, "verb": "queues.show", "arguments": {}}').result
    )
    assert isinstance(error, BrokerError)
    assert json.loads(answer_line(1, error)) == {
        "id": 1,
        "error": {"code": 502, "name": "SYNTAX_ERROR", "text": "'name' is missing"},
    }
    assert json.loads(answer_line("a", {"n": 1})) == {"id": "a", "result": {"n": 1}}
    line = page_line(1, page_of(iter([{}, {"a": 1}])))
    assert json.loads(line) == {"id": 1, "rows": [{}, {"a": 1}], "more": False}
    assert json.loads(page_line("a", page_of(iter([])))) == {"id": "a", "rows": [], "more": False}
    assert answer_line(None, {"name": "\udc80\n"}).count(b"\n") == 1


def test_a_page_ends_after_so_many_rows_or_bytes() -> None:
    rows = iter([{"n": number} for number in range(PAGE_ROWS + 1)])
    pages = [page_of(rows), page_of(rows)]
    assert [(len(page.rows), page.has_more) for page in pages] == [(PAGE_ROWS, True), (1, False)]
    long = iter([{"text": "x" * PAGE_BYTES}] * 3)
    assert [len(page_of(long).rows) for _ in range(4)] == [1, 1, 1, 0]


def test_every_verb_has_a_sentence() -> None:
    assert [name for name, verb in VERBS.items() if not verb.act.__doc__] == []


def test_a_queue_that_was_deleted_again_is_asked_for_again() -> None:
    read_barrier, asked, answers = (
        ManualReadBarrier(),
        list[PendingRow](),
        list[Row | BrokerError](),
    )

    def make() -> Row | DeferredRow:
        if len(asked) == 3:
            raise NotFound("no queue 'q' in vhost '/'")
        asked.append(PendingRow())
        return asked[-1].result

    result = certain_result(read_barrier, make)
    assert isinstance(result, DeferredRow)
    result.begin(answers.append)
    for deleted in range(1, 4):
        asked[-1].answer(QueueDeleted("no queue 'q' in vhost '/'"))
        assert (len(asked), answers) == (deleted, [])
        read_barrier.confirm()
    assert [type(outcome) for outcome in answers] == [NotFound]


def test_every_module_of_verbs_is_imported_for_each_of_their_groups() -> None:
    folder = Path(dispatch.__file__).parent
    for name in sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__"):
        module = import_module(f"fluffle.broker.admin.{name}")
        verbs = [*getattr(module, "READS", {}), *getattr(module, "CHANGES", {})]
        missing = [verb for verb in verbs if name not in GROUPS.get(verb.partition(".")[0], ())]
        assert missing == [], f"{name} is not in GROUPS"
    assert {verb.partition(".")[0] for verb in VERBS} == GROUPS.keys()
    assert {name for names in GROUPS.values() for name in names} >= MODULES_OF_DEFINITIONS


NOT_LOGGED = {
    *("applies_to", "component", "configure", "definition", "description", "entries", "everybody"),
    *("hashing_algorithm", "home", "if_empty", "if_unused", "is_protected", "level", "limit"),
    *("limits", "on", "password_hash", "pattern", "permissions", "priority", "queues", "rate"),
    *("read", "reason", "routing_key", "share", "size_bytes", "tags", "topic", "value", "where"),
    "write",
}
"""Arguments of changes that say how, or are secret, long or chosen by clients."""


def test_each_argument_of_a_change_is_logged_or_known_not_to_be() -> None:
    arguments = {name for verb in VERBS.values() if verb.is_change for name in verb.arguments}
    assert arguments - NOT_LOGGED == {*AUDITED}
    assert arguments >= NOT_LOGGED
