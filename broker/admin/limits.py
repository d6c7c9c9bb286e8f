"""Changing some of the limits of a user or a virtual host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from fluffle.broker.access.limits import UserLimits, VhostLimits
from fluffle.broker.admin.arguments import Limits
from fluffle.broker.base.errors import SyntaxFailure

L = TypeVar("L", UserLimits, VhostLimits)


def changed_limits(limits: L, fields: Mapping[str, str], changes: Limits) -> L:
    """The limits with those that `changes` names; `fields` says which there are."""
    for name in changes:
        if name not in fields:
            raise SyntaxFailure(f"there is no limit '{name}'; there are {', '.join(fields)}")
    return replace(limits, **{fields[name]: value for name, value in changes.items()})
