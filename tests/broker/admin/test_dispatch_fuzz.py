"""Whatever is asked for, nothing but a result or a refusal comes back, and the node stays whole."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.broker.admin.context import DeferredRow, Result
from fluffle.broker.admin.dispatch import VERBS, RowPage
from fluffle.broker.base.errors import BrokerError, InternalError
from tests.broker.admin.verb_harness import VerbHarness

T = TypeVar("T")

NAMES = st.sampled_from(["/", "guest", "alice", "q", "x", "", "v", "queue", "(a+)+$", "\udc80"])
KNOWN = st.sampled_from(
    [
        *("name", "vhost", "user", "type", "durable", "arguments", "tags", "password_hash"),
        *("limits", "source", "destination", "destination_type", "routing_key", "exchange"),
        *("value", "component", "configure", "write", "read", "definition", "pattern"),
        *("metadata", "max-queues"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KNOWN | NAMES, inner, max_size=6),
    max_leaves=8,
)
CATEGORIES = st.sampled_from(["users", "queues", "bindings", "exchanges", "parameters", "vhosts"])


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    verb = draw(st.sampled_from(sorted(VERBS)))
    arguments = {
        name: draw(CATEGORIES if name == "category" else NAMES | VALUES)
        for name, argument in VERBS[verb].arguments.items()
        if argument.required or draw(st.booleans())
    }
    if "entries" in arguments and draw(st.booleans()):
        arguments["entries"] = [draw(st.dictionaries(KNOWN, VALUES | NAMES))]
    return {"id": draw(VALUES), "verb": verb, "arguments": arguments}


def results(desk: VerbHarness, result: Result | BrokerError) -> Iterator[object]:
    """All that comes of an outcome."""
    if isinstance(result, DeferredRow):
        answers: list[object] = []
        result.begin(answers.append)
        desk.edge.run()
        yield from answers
    elif isinstance(result, dict | BrokerError):
        yield result
    else:
        page = desk.dispatcher.page(result)
        yield page
        if isinstance(page, RowPage) and page.has_more:
            yield from results(desk, result)


def at_once(work: Callable[[], T]) -> Future[T]:
    """Result of `work` as a finished future; the harness has no loop for a thread's."""
    done = Future[T]()
    done.set_result(work())
    return done


@given(st.lists(requests() | VALUES, min_size=1, max_size=6))
@example([{"id": 1, "verb": "nodes.memory", "arguments": {}}])
def test_any_requests(asked: list[Any]) -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    for request in asked:
        outcome = desk.dispatcher.act(json.dumps(request).encode())
        with patch("fluffle.broker.admin.context.in_own_thread", at_once):
            found = tuple(results(desk, outcome.result))
        assert not any(isinstance(result, InternalError) for result in found)
        desk.edge.run()
    assert isinstance(desk.ask("status")["connections"], int)


@given(st.binary() | st.text().map(str.encode))
def test_any_octets(line: bytes) -> None:
    outcome = VerbHarness().dispatcher.act(line)
    assert isinstance(outcome.result, BrokerError)
    assert not isinstance(outcome.result, InternalError)
