"""Refusals by the broker as a whole, of publishers, logins and connections, for all virtual
hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.testing.faults.connections import freeze_line
from fluffle.broker.testing.faults.fault_scope import FaultScope

LOW_ON, AND = "low on ", " & "
BLOCKED = "publishers are blocked"
NO_LOGINS = "logins are refused"
NO_CONNECTIONS = "connections are refused"
SILENCE = "new connections are accepted in silence"


def block(scene: FaultScope, *, reason: str = "low on memory") -> Row:
    """Raise a resource alarm: who publishes hears connection.blocked and is not read any more.

    `reason` is what RabbitMQ says: `low on memory`, `low on disk & memory`.
    """
    resources = reason.removeprefix(LOW_ON).split(AND)
    if not reason.startswith(LOW_ON) or not all(resources):
        raise SyntaxFailure("'reason' must be as RabbitMQ says it, like 'low on memory'")
    # as if it were raised at another node: what is measured here clears no such
    alarms, source = scene.parts.alarms, f"a test, for {scene.place}"
    alarms.set_elsewhere(source, resources)
    scene.begin(BLOCKED, BLOCKED, lambda: alarms.set_elsewhere(source, ()))
    return {}


def unblock(scene: FaultScope) -> Row:
    """Clear the alarm."""
    scene.end(BLOCKED)
    return {}


def refuse_logins(scene: FaultScope) -> Row:
    """Whatever the password: 403 ACCESS_REFUSED, or no answer to who would not understand it."""
    refusing = scene.door.refusing_logins
    refusing.add(scene)
    scene.begin(NO_LOGINS, NO_LOGINS, lambda: refusing.discard(scene))
    return {}


def allow_logins(scene: FaultScope) -> Row:
    """Let new connections log in again."""
    scene.end(NO_LOGINS)
    return {}


def refuse_connections(scene: FaultScope, *, silently: bool = False) -> Row:
    """As if there were no broker at the address; connections that are open stay.

    `silently`: new ones are accepted, and nothing is said on them.
    """
    if not silently:
        scene.begin(NO_CONNECTIONS, NO_CONNECTIONS, partial(scene.door.open, scene))
        scene.door.shut(scene)
        return {}
    standing = scene.door.standing

    def end() -> None:
        standing.pop((scene, SILENCE), None)

    standing[scene, SILENCE] = partial(freeze_line, scene)
    scene.begin(SILENCE, SILENCE, end)
    return {}


def accept_connections(scene: FaultScope) -> Row:
    """Accept connections again, and talk to them; those that were met with silence stay so."""
    scene.end(NO_CONNECTIONS)
    scene.end(SILENCE)
    return {}


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "block": block,
    "unblock": unblock,
    "logins.refuse": refuse_logins,
    "logins.allow": allow_logins,
    "connections.refuse": refuse_connections,
    "connections.accept": accept_connections,
}
