"""Refusals by the broker as a whole, of publishers, logins and connections, for all virtual
hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.testing.faults.connections import freeze_tap
from fluffle.broker.testing.faults.fault_scope import FaultScope

LOW_ON, AND = "low on ", " & "
BLOCKED = "publishers are blocked"
NO_LOGINS = "logins are refused"
NO_CONNECTIONS = "connections are refused"
SILENCE = "new connections are accepted in silence"


def block(scope: FaultScope, *, reason: str = "low on memory") -> Row:
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
    return {}


def unblock(scope: FaultScope) -> Row:
    """Clear the alarm."""
    scope.end(BLOCKED)
    return {}


def refuse_logins(scope: FaultScope) -> Row:
    """Whatever the password: 403 ACCESS_REFUSED, or no answer to who would not understand it."""
    refusing = scope.acceptor.refusing_logins
    refusing.add(scope)
    scope.begin(NO_LOGINS, NO_LOGINS, lambda: refusing.discard(scope))
    return {}


def allow_logins(scope: FaultScope) -> Row:
    """Let new connections log in again."""
    scope.end(NO_LOGINS)
    return {}


def refuse_connections(scope: FaultScope, *, silently: bool = False) -> Row:
    """As if there were no broker at the address; connections that are open stay.

    `silently`: new ones are accepted, and nothing is said on them.
    """
    if not silently:
        scope.begin(NO_CONNECTIONS, NO_CONNECTIONS, partial(scope.acceptor.open, scope))
        scope.acceptor.shut(scope)
        return {}
    lasting_plans = scope.acceptor.lasting_plans

    def end() -> None:
        lasting_plans.pop((scope, SILENCE), None)

    lasting_plans[scope, SILENCE] = partial(freeze_tap, scope)
    scope.begin(SILENCE, SILENCE, end)
    return {}


def accept_connections(scope: FaultScope) -> Row:
    """Accept connections again, and talk to them; those that were met with silence stay so."""
    scope.end(NO_CONNECTIONS)
    scope.end(SILENCE)
    return {}


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "block": block,
    "unblock": unblock,
    "logins.refuse": refuse_logins,
    "logins.allow": allow_logins,
    "connections.refuse": refuse_connections,
    "connections.accept": accept_connections,
}
