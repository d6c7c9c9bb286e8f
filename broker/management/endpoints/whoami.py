"""whoami: who asks."""

from __future__ import annotations

from fluffle.broker.control.parts import Row
from fluffle.broker.management.call import Call
from fluffle.broker.management.rights import Right
from fluffle.broker.management.table import Endpoint


async def whoami(call: Call) -> Row:
    """Name and tags."""
    user = call.user
    return {"name": user.name, "tags": list(user.tags), "is_internal_user": True}


ENDPOINTS = (
    Endpoint("GET", "whoami", Right.MANAGEMENT, whoami, "The user that asks, with his tags."),
)
