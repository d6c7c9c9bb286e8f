"""whoami: who asks."""

from __future__ import annotations

from fluffle.broker.admin.context import Row
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint
from fluffle.broker.protocols.http.rights import Right


async def whoami(call: Call) -> Row:
    """Name and tags."""
    user = call.user
    return {"name": user.name, "tags": list(user.tags), "is_internal_user": True}


ENDPOINTS = (
    Endpoint("GET", "whoami", Right.MANAGEMENT, whoami, "The user that asks, with his tags."),
)
