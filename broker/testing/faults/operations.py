"""All faults by name: what tests call, and what may be called from outside by HTTP or the like.

    result = perform(scope, "connections.cut_after", {"connection": "next", "bytes": 300})

Arguments and results are values that JSON has.  To add one, write a function in the module of its
subject that takes a `FaultScope` and otherwise arguments by keyword (their types are those that
`control.arguments` knows; the signature is what is checked), returns a `Row`, and raises
`BrokerError` if it cannot be; put it into the `OPERATIONS` of that module, and a new module into
those below.  What lasts is given to `FaultScope.begin`, under a key of its own, with
what ends it.  `Faults` in `faults` has a method for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.admin.arguments import arguments_of, check_arguments
from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import CommandInvalid
from fluffle.broker.testing.faults import (
    confirms,
    connections,
    consumers,
    nack_publishes,
    refusals,
    unkind,
)
from fluffle.broker.testing.faults.fault_scope import FaultScope


def mend(scope: FaultScope) -> Row:
    """Nothing goes wrong any more."""
    scope.mend()
    return {}


def list_faults(scope: FaultScope) -> Row:
    """What goes wrong now, in words."""
    return {"faults": scope.in_effect}


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **connections.OPERATIONS,
    **consumers.OPERATIONS,
    **refusals.OPERATIONS,
    **confirms.OPERATIONS,
    **nack_publishes.OPERATIONS,
    **unkind.OPERATIONS,
    "faults.list": list_faults,
    "faults.mend": mend,
}


def perform(scope: FaultScope, name: str, arguments: Mapping[str, object]) -> Row:
    """In the loop of the broker.  BrokerError: what is wrong with the name or the arguments, too,
    and what is not there."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise CommandInvalid(f"there is no operation '{name}', but: {', '.join(OPERATIONS)}")
    check_arguments(arguments_of(operation), arguments)
    row: Row = operation(scope, **arguments)
    return row
