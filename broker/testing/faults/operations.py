"""All faults by name, and those of the broker as a whole: refused publishers, logins, connections.

    result = perform(scope, "connections.cut_after", {"connection": "next", "bytes": 300})

Arguments and results are values that JSON has.  To add one, write a function in the module of its
subject that takes a `FaultScope` and otherwise arguments by keyword (their types are those that
`admin.arguments` knows; the signature is what is checked), returns a `Row` or nothing, and raises
`BrokerError` if it cannot be; put it into the `OPERATIONS` of that module, and a new module's into
those below.  What lasts is given to `FaultScope.begin`, under a key of its own, with
what ends it.  `Faults` in `faults` has a method for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fluffle.broker.admin.arguments import arguments_of, check_arguments
from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import CommandInvalid, SyntaxFailure
from fluffle.broker.testing.faults import clients, mqtt, publishes, unkind
from fluffle.broker.testing.faults.clients import freeze_tap
from fluffle.broker.testing.faults.tapped_transport import FaultScope

LOW_ON, AND = "low on ", " & "
BLOCKED = "publishers are blocked"
NO_LOGINS = "logins are refused"
NO_CONNECTIONS = "connections are refused"
SILENCE = "new connections are accepted in silence"


def block(scope: FaultScope, *, reason: str = "low on memory") -> None:
    """Raise a resource alarm: who publishes hears connection.blocked and is not read any more.

    `reason` is what RabbitMQ says: `low on memory`, `low on disk & memory`.
    """
    resources = reason.removeprefix(LOW_ON).split(AND)
    if not reason.startswith(LOW_ON) or not all(resources):
        raise SyntaxFailure("'reason' must be as RabbitMQ says it, like 'low on memory'")
    # as if it were raised at another node: what is measured here clears no such
    alarms, source = scope.parts.alarms, f"a test, for {scope.place}"
    alarms.set_elsewhere(source, resources)
    scope.begin(BLOCKED, BLOCKED, lambda: alarms.set_elsewhere(source, ()))


def unblock(scope: FaultScope) -> None:
    """Clear the alarm."""
    scope.end(BLOCKED)


def refuse_logins(scope: FaultScope) -> None:
    """Whatever the password: 403 ACCESS_REFUSED, or no answer to who would not understand it."""
    refusing = scope.acceptor.refusing_logins
    refusing.add(scope)
    scope.begin(NO_LOGINS, NO_LOGINS, lambda: refusing.discard(scope))


def allow_logins(scope: FaultScope) -> None:
    """Let new connections log in again."""
    scope.end(NO_LOGINS)


def refuse_connections(scope: FaultScope, *, silently: bool = False) -> None:
    """Refuse new connections as if no broker listened; open ones stay.

    `silently`: new ones are accepted, and nothing is said on them.
    """
    if not silently:
        scope.begin(NO_CONNECTIONS, NO_CONNECTIONS, partial(scope.acceptor.open, scope))
        scope.acceptor.shut(scope)
        return
    lasting_plans = scope.acceptor.lasting_plans

    def end() -> None:
        lasting_plans.pop((scope, SILENCE), None)

    lasting_plans[scope, SILENCE] = partial(freeze_tap, scope)
    scope.begin(SILENCE, SILENCE, end)


def accept_connections(scope: FaultScope) -> None:
    """Accept connections again, and talk to them; those that were met with silence stay so."""
    scope.end(NO_CONNECTIONS)
    scope.end(SILENCE)


def mend(scope: FaultScope) -> None:
    """Nothing goes wrong any more."""
    scope.mend()


def list_faults(scope: FaultScope) -> Row:
    """Texts of the faults in effect."""
    return {"faults": scope.in_effect}


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **clients.OPERATIONS,
    **publishes.OPERATIONS,
    **mqtt.OPERATIONS,
    **unkind.OPERATIONS,
    "block": block,
    "unblock": unblock,
    "logins.refuse": refuse_logins,
    "logins.allow": allow_logins,
    "connections.refuse": refuse_connections,
    "connections.accept": accept_connections,
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
    return operation(scope, **arguments) or {}
