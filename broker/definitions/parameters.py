"""Changes of policies and other parameters: decided here, applied elsewhere.

Policies of operators are parameters, as with RabbitMQ; limits of virtual hosts look like some.
Errors have RabbitMQ's texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluffle.broker.access.limits import VhostLimits
from fluffle.broker.base.errors import NotFound, PreconditionFailed
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import keep, set_vhost, vhost_name
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Key, Kind
from fluffle.broker.policies.policies import OPERATOR_POLICY
from fluffle.broker.policies.validation import (
    OPERATOR_POLICY_KEYS,
    check_policy,
    failed,
    proplist,
    term,
)

POLICY = "policy"
VHOST_LIMITS = "vhost-limits"
LIMITS = ("max-connections", "max-queues")


def set_policy(catalogue: Catalogue, vhost: str, name: str, fields: Mapping[str, Any]) -> Change:
    """Put a policy in the place of one with its name.

    `fields`: pattern, definition, priority, apply-to.  NotFound, PreconditionFailed.
    """
    fields = {"apply-to": "all", "priority": 0, **fields}
    check_policy(name, fields)
    return inside(catalogue, vhost, keep(Kind.POLICY, {"vhost": vhost, "name": name, **fields}))


def set_operator_policy(
    catalogue: Catalogue, vhost: str, name: str, fields: Mapping[str, Any]
) -> Change:
    """Set an operator policy, whose definition may have fewer keys."""
    fields = {"apply-to": "all", "priority": 0, **fields}
    check_policy(name, fields, OPERATOR_POLICY_KEYS)
    return inside(catalogue, vhost, keep_parameter(vhost, OPERATOR_POLICY, name, fields))


def keep_parameter(vhost: str, component: str, name: str, value: object) -> Change:
    entry = {"vhost": vhost, "component": component, "name": name, "value": value}
    return keep(Kind.PARAMETER, entry)


def inside(catalogue: Catalogue, vhost: str, change: Change) -> Change:
    """Make a change rest on its virtual host.  NotFound."""
    check_vhost(catalogue, vhost)
    return change._replace(rests_on=(*change.rests_on, vhost_name(vhost)))


def check_vhost(catalogue: Catalogue, vhost: str) -> None:
    """Check that a virtual host exists.  NotFound."""
    if vhost not in catalogue.vhosts:
        raise NotFound(f"Virtual host '{vhost}' does not exist")


def clear(catalogue: Catalogue, kind: Kind, key: Key) -> Change:
    """Remove what is kept under a name.  NotFound if nothing is."""
    if kind is not Kind.GLOBAL_PARAMETER:
        check_vhost(catalogue, str(key[0]))
    entry = catalogue.kept.entries[kind].get(key)
    if entry is None:
        raise NotFound("Parameter does not exist")
    fact = Fact(kind, key, entry)
    return Change(removes=(fact,), rests_on=(fact.name,))


def set_parameter(
    catalogue: Catalogue, vhost: str, component: str, name: str, value: Any
) -> Change:
    """Set a parameter of a component that is there: without plugins few are.  NotFound,
    PreconditionFailed."""
    check_vhost(catalogue, vhost)
    match component:
        case "policy":
            raise PreconditionFailed("policies may not be set using this method")
        case "operator_policy":
            check_policy(name, value, OPERATOR_POLICY_KEYS)
            return inside(catalogue, vhost, keep_parameter(vhost, component, name, value))
        case "vhost-limits":
            return set_vhost(catalogue, vhost, limits=vhost_limits(name, value))
    raise failed([f"component {component} not found"])


def clear_parameter(catalogue: Catalogue, vhost: str, component: str, name: str) -> Change:
    """Remove a parameter.  NotFound, PreconditionFailed."""
    check_vhost(catalogue, vhost)
    if component == POLICY:
        raise PreconditionFailed("policies may not be cleared using this method")
    if component != VHOST_LIMITS:
        return clear(catalogue, Kind.PARAMETER, (vhost, component, name))
    if catalogue.vhosts[vhost].limits == VhostLimits():
        raise NotFound("Parameter does not exist")
    return set_vhost(catalogue, vhost, limits=VhostLimits())


def vhost_limits(name: str, value: Any) -> VhostLimits:
    """Check that an object has the known limits and no others.  PreconditionFailed."""
    if not isinstance(value, dict):
        raise failed([f"{name} not a list {term(value)}"])
    problems = [
        f"{key} should be a number, actually was {term(value[key])}"
        for key in LIMITS
        if key in value and (isinstance(value[key], bool) or not isinstance(value[key], int))
    ]
    strange = {key: item for key, item in sorted(value.items()) if key not in LIMITS}
    if strange:
        problems.append(f"Unrecognised terms {proplist(strange)} in {name}")
    if problems:
        raise failed(problems[::-1])
    return VhostLimits(value.get("max-connections"), value.get("max-queues"))


def set_global_parameter(catalogue: Catalogue, name: str, value: object) -> Change:
    """Set a global parameter, whatever its value."""
    entry = {"name": name, "value": value}
    if catalogue.kept.entries[Kind.GLOBAL_PARAMETER].get((name,)) == entry:
        return NOTHING
    return keep(Kind.GLOBAL_PARAMETER, entry)
