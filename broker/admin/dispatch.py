"""Verbs of the control socket, and dispatch: from a line to a verb, from its result to lines.

    -> {"id": 7, "verb": "queues.purge", "arguments": {"vhost": "/", "name": "orders"}}
    <- {"id": 7, "result": {"messages": 12}}
    <- {"id": 7, "rows": [{…}, {…}], "more": true}
    <- {"id": 7, "error": {"code": 404, "name": "NOT_FOUND", "text": "no queue 'orders' …"}}

A list comes in several lines, the last of them with `"more": false`.  Errors are those that clients
of AMQP hear, with the same codes.  This is the one place where they become lines.

A module of verbs is imported when a verb of its group is asked for first, none at the start.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial, update_wrapper
from importlib import import_module
from typing import Any, TypeAlias, TypeVar

from fluffle.broker.access.passwords import UnusableHash
from fluffle.broker.admin.arguments import Argument, arguments_of, check_arguments
from fluffle.broker.admin.context import DeferredRow, NodeContext, Result, Row, Rows
from fluffle.broker.base.errors import (
    BrokerError,
    BrokerFailed,
    CommandInvalid,
    NotFound,
    PreconditionFailed,
    QueueDeleted,
    SyntaxFailure,
    Unreachable,
)
from fluffle.broker.base.logs import event
from fluffle.broker.definitions.file_format import DefinitionsError
from fluffle.broker.metadata.metadata import ReadBarrier
from fluffle.broker.patterns.patterns import UnusablePattern
from fluffle.broker.queues.queue_api import Deferred

PAGE_ROWS = 100
"""Rows of one line: a millisecond or so."""

PAGE_BYTES = 1 << 16
"""A line ends with the row that goes beyond this: clients choose how long arguments are."""

ID_LENGTH_MAX = 64
AUDITED = (
    "name", "user", "vhost", "exchange", "category", "node", "address", "queue_type", "force",
    "drop_damaged", "to",
)  # fmt: skip
"""Arguments that are logged with a change: no hashes, no patterns."""

RequestId: TypeAlias = int | str | None
Make: TypeAlias = Callable[..., Any]
T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ControlVerb:
    """An operation of the control socket, with its arguments."""

    act: Make
    arguments: Mapping[str, Argument]
    is_change: bool
    """True if it changes something, so that its answer says that the change is safe."""


def verbs_of(reads: Mapping[str, Make], changes: Mapping[str, Make]) -> Mapping[str, ControlVerb]:
    """The table of all verbs."""
    return {
        name: ControlVerb(act, arguments_of(act), is_change=is_change)
        for is_change, acts in ((False, reads), (True, changes))
        for name, act in acts.items()
    }


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """The result of one request, and whether it changed anything."""

    request_id: RequestId
    result: Result | BrokerError
    is_change: bool = False


@dataclass(frozen=True, slots=True)
class RowPage:
    """Some rows of a list, as JSON."""

    rows: list[str]
    has_more: bool
    """True if there may be more."""
    awaits: Deferred[None] | None = None
    """When there may be."""


@dataclass(slots=True, eq=False)
class Dispatcher:
    """Acts on requests.  `on_fatal` gets a broken assertion."""

    _parts: NodeContext
    _verbs: Mapping[str, ControlVerb]
    _on_fatal: Callable[[Exception], None]
    _by: str = ""
    """User whose requests these are; empty for the owner of the socket."""

    def of(self, context: NodeContext, by: str) -> Dispatcher:
        """The same verbs, of these parts, for that user."""
        return Dispatcher(context, self._verbs, self._on_fatal, by)

    def act(self, line: bytes) -> RequestOutcome:
        """Do what a line asks for."""
        request = self.guarded(lambda: read_request(line))
        if isinstance(request, BrokerError):
            return RequestOutcome(None, request)
        return self.ask(request["verb"], request.get("arguments", {}), request.get("id"))

    def ask(self, name: str, arguments: Row, request_id: RequestId = None) -> RequestOutcome:
        """Do what a verb stands for."""
        verb = self._verbs.get(name)
        if verb is None:
            return RequestOutcome(request_id, CommandInvalid(f"there is no verb '{name}'"))
        result = self.guarded(lambda: self._do(verb, arguments))
        if verb.is_change and not isinstance(result, BrokerError):
            audit(name, arguments, self._by)
        return RequestOutcome(request_id, result, is_change=verb.is_change)

    def page(self, rows: Rows) -> RowPage | BrokerError:
        """The next rows."""
        return self.guarded(lambda: page_of(rows))

    def _do(self, verb: ControlVerb, arguments: Row) -> Result:
        check_arguments(verb.arguments, arguments)
        result: Result = verb.act(self._parts, **arguments)
        return result

    def guarded(self, make: Callable[[], T]) -> T | BrokerError:
        """Call `make`; returns its value or the error for the client."""
        try:
            return make()
        except BrokerError as error:
            return error
        except (UnusableHash, UnusablePattern, DefinitionsError) as error:
            return PreconditionFailed(str(error))
        except Exception as error:  # a bug ends one request, not the node
            if isinstance(error, AssertionError):  # unless what it believes is wrong
                self._on_fatal(error)
            logger.exception("a verb of the control socket failed")
            return BrokerFailed()


def audit(verb: str, arguments: Mapping[str, Any], by: str = "") -> None:
    """Have the log say that something was changed, and by whom if that is known."""
    shown = {name: arguments[name] for name in AUDITED if name in arguments}
    if by:
        shown["by"] = by
    event(logger, logging.INFO, "administered", verb=verb, **shown)


def read_request(line: bytes) -> Row:
    """A request whose id, verb and arguments are of the right types.  SyntaxFailure."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SyntaxFailure(f"this is no JSON: {error}") from error
    if not isinstance(request, dict):
        raise SyntaxFailure("a request is an object")
    request_id = request.get("id")
    is_id = request_id is None or (
        isinstance(request_id, int | str)
        and not isinstance(request_id, bool)
        and len(str(request_id)) <= ID_LENGTH_MAX
    )
    if not is_id:
        raise SyntaxFailure(f"'id' must be a number or a string, {ID_LENGTH_MAX} long at most")
    if not isinstance(request.get("verb"), str):
        raise SyntaxFailure("'verb' must be a string")
    if not isinstance(request.get("arguments", {}), dict):
        raise SyntaxFailure("'arguments' must be an object")
    return request


def answer_line(request_id: RequestId, result: Row | BrokerError) -> bytes:
    """A result, or what went wrong."""
    if isinstance(result, BrokerError):
        return line_of({"id": request_id, "error": error_row(result)})
    return line_of({"id": request_id, "result": result})


def page_of(rows: Rows) -> RowPage:
    """Rows that fit into one line, as JSON texts."""
    texts: list[str] = []
    size_bytes = 0
    for row in rows:
        if isinstance(row, Deferred):
            return RowPage(texts, has_more=True, awaits=row)
        texts.append(text_of(row))
        size_bytes += len(texts[-1])
        if len(texts) == PAGE_ROWS or size_bytes > PAGE_BYTES:
            return RowPage(texts, has_more=True)
    return RowPage(texts, has_more=False)


def page_line(request_id: RequestId, page: RowPage) -> bytes:
    """Some rows, and whether there may be more."""
    rows = ", ".join(page.rows)
    more = text_of(page.has_more)
    return f'{{"id": {text_of(request_id)}, "rows": [{rows}], "more": {more}}}\n'.encode()


def error_row(error: BrokerError) -> Row:
    return {"code": int(error.code), "name": error.code.name, "text": error.explanation}


def line_of(content: Row) -> bytes:
    return text_of(content).encode() + b"\n"


def text_of(content: object) -> str:
    return json.dumps(content, default=str)


def with_read_barrier(verb: ControlVerb) -> ControlVerb:
    """The same verb, done again when it has found nothing and there may be something."""
    act = verb.act
    gives_rows = getattr(act, "__annotations__", {}).get("return") == "Rows"

    def done(context: NodeContext, **arguments: Any) -> Result:
        read_barrier, make = context.cluster_view.read_barrier, partial(act, context, **arguments)
        if read_barrier.is_complete:
            made: Result = make()
            return made
        return (
            certain_rows(read_barrier, make) if gives_rows else certain_result(read_barrier, make)
        )

    update_wrapper(done, act)
    return replace(verb, act=done)


def certain_rows(read_barrier: ReadBarrier, make: Callable[[], Rows]) -> Rows:
    """The rows of a list.  NotFound; `InternalError` where it cannot be known that it is empty."""
    is_empty = True
    try:
        for row in make():
            is_empty = is_empty and isinstance(row, Deferred)
            yield row
    except NotFound as error:
        if not is_empty or isinstance(error, Unreachable):
            raise
    if is_empty:
        errors: list[BrokerError] = []
        known = Deferred[None]()

        def failed(error: BrokerError) -> None:
            errors.append(error)
            known.answer(None)

        read_barrier.ask(partial(known.answer, None), failed)
        yield known
        if errors:
            raise errors[0]
        yield from make()


def certain_result(read_barrier: ReadBarrier, make: Callable[[], Result]) -> Result:
    """The result, now or later."""
    try:
        made = make()
    except NotFound as error:
        if isinstance(error, Unreachable):
            raise
        return DeferredRow(partial(begin, read_barrier, make))
    return (
        DeferredRow(partial(go_on, read_barrier, make, made))
        if isinstance(made, DeferredRow)
        else made
    )


def go_on(
    read_barrier: ReadBarrier,
    make: Callable[[], Result],
    made: DeferredRow,
    answer: Callable[[Row | BrokerError], None],
) -> None:
    """Answer with the result; if that was deleted which was asked, do it again."""

    def on_outcome(outcome: Row | BrokerError) -> None:
        if isinstance(outcome, QueueDeleted):
            begin(read_barrier, make, answer)
        else:
            answer(outcome)

    made.begin(on_outcome)


def begin(
    read_barrier: ReadBarrier,
    make: Callable[[], Result],
    answer: Callable[[Row | BrokerError], None],
) -> None:
    """Do it again once all is known here."""

    def known() -> None:
        try:
            made = make()
        except BrokerError as error:
            answer(error)
        except AssertionError:
            raise
        except Exception:
            logger.exception("a verb of the control socket failed")
            answer(BrokerFailed())
        else:
            if isinstance(made, DeferredRow):
                go_on(read_barrier, make, made, answer)
            else:
                assert isinstance(made, dict)
                answer(made)

    read_barrier.ask(known, answer)


GROUPS: Mapping[str, tuple[str, ...]] = {
    "ping": ("health",),
    "nodes": ("nodes",),
    "node": ("nodes", "health"),
    "alarms": ("health",),
    "status": ("health",),
    "users": ("users",),
    "vhosts": ("vhosts",),
    "permissions": ("users",),
    "queues": (
        "queues",
        "messages",
        "members",
        "force_shrink",
        "move",
        "health",
        "statistics",
        "member_changes",
    ),
    "exchanges": ("topology", "statistics"),
    "bindings": ("topology",),
    "connections": ("connections",),
    "channels": ("connections",),
    "sessions": ("connections",),
    "consumers": ("connections",),
    "everywhere": ("all_nodes",),
    "policies": ("policies",),
    "operator_policies": ("policies",),
    "parameters": ("policies",),
    "global_parameters": ("policies",),
    "retained": ("retained",),
    "definitions": ("definitions",),
    "messages": ("topology", "messages"),
    "cluster": ("cluster",),
    "statistics": ("statistics",),
}
"""Group of verbs, the first word of their names -> the modules of this package with its verbs."""

MODULES_OF_DEFINITIONS = frozenset(
    {"users", "vhosts", "queues", "members", "topology", "policies", "retained"}
)
"""The modules whose verbs say of what is defined that it is not there."""


class Verbs(Mapping[str, ControlVerb]):
    """The verbs of some groups, each known once its group has been used."""

    def __init__(self, groups: Mapping[str, tuple[str, ...]]) -> None:
        self._groups = groups
        self._known: dict[str, ControlVerb] = {}
        self._imported: set[str] = set()

    def __getitem__(self, name: str) -> ControlVerb:
        if name not in self._known:
            self._import(self._groups.get(name.partition(".")[0], ()))
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        for modules in self._groups.values():
            self._import(modules)
        return iter(self._known)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _import(self, modules: tuple[str, ...]) -> None:
        for name in modules:
            if name in self._imported:
                continue
            self._imported.add(name)
            module = import_module(f"fluffle.broker.admin.{name}")
            reads, changes = (getattr(module, table, {}) for table in ("READS", "CHANGES"))
            found = verbs_of(reads, changes)
            if name in MODULES_OF_DEFINITIONS:
                found = {verb: with_read_barrier(found[verb]) for verb in found}
            self._known |= found


VERBS = Verbs(GROUPS)
