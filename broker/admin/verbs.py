"""Table of all verbs of the control socket, imported group by group, and their read barrier.

A module is imported when a verb of its group is asked for, and none by a node that nobody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial, update_wrapper
from importlib import import_module
from typing import Any

from fluffle.broker.admin.context import DeferredRow, NodeContext, Result, Row, Rows
from fluffle.broker.admin.dispatch import Verb, verbs_of
from fluffle.broker.base.errors import (
    BrokerError,
    BrokerFailed,
    NotFound,
    QueueDeleted,
    Unreachable,
)
from fluffle.broker.metadata.read_barrier import ReadBarrier
from fluffle.broker.queues.queue_api import Deferred

logger = logging.getLogger(__name__)


def with_read_barrier(verb: Verb) -> Verb:
    """The same verb, done again when it has found nothing and there may be something."""
    act = verb.act
    gives_rows = getattr(act, "__annotations__", {}).get("return") == "Rows"

    def done(context: NodeContext, **arguments: Any) -> Result:
        read_barrier, make = context.company.read_barrier, partial(act, context, **arguments)
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

    def told(outcome: Row | BrokerError) -> None:
        if isinstance(outcome, QueueDeleted):
            begin(read_barrier, make, answer)
        else:
            answer(outcome)

    made.begin(told)


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
    "node": ("maintenance", "health"),
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
        "convert",
        "health",
        "statistics",
        "raft_status",
        "voters",
    ),
    "exchanges": ("topology", "statistics"),
    "bindings": ("topology",),
    "connections": ("connections",),
    "channels": ("connections",),
    "consumers": ("connections",),
    "everywhere": ("all_nodes",),
    "policies": ("policies",),
    "operator_policies": ("policies",),
    "parameters": ("policies",),
    "global_parameters": ("policies",),
    "definitions": ("definitions",),
    "messages": ("topology", "messages"),
    "cluster": ("cluster",),
    "statistics": ("statistics",),
}
"""What the name of a verb begins with: the modules of this package that have such verbs."""

OF_DEFINITIONS = frozenset({"users", "vhosts", "queues", "members", "topology", "policies"})
"""The modules whose verbs say of what is defined that it is not there."""


class Verbs(Mapping[str, Verb]):
    """The verbs of some groups, each known once its group has been used."""

    def __init__(self, groups: Mapping[str, tuple[str, ...]]) -> None:
        self._groups = groups
        self._known: dict[str, Verb] = {}
        self._imported: set[str] = set()

    def __getitem__(self, name: str) -> Verb:
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
            if name in OF_DEFINITIONS:
                found = {verb: with_read_barrier(found[verb]) for verb in found}
            self._known |= found


VERBS = Verbs(GROUPS)
