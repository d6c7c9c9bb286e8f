"""A fresh virtual host with what is wanted in it, and how it goes again with its users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fluffle.broker.access.passwords import hashed
from fluffle.broker.admin.context import NodeContext
from fluffle.broker.admin.local_client import ask
from fluffle.broker.base.errors import ConnectionForced, PreconditionFailed
from fluffle.broker.testing.requirements import VhostRequirements


async def create_vhost(
    parts: NodeContext, name: str, wanted: VhostRequirements, users: Iterable[str]
) -> None:
    """Create a virtual host, for `users` of the broker and those that are wanted beside them, or
    nothing.

    BrokerError, DefinitionsError, OSError, ValueError.
    """
    entries, rights = wanted.entries(), wanted.rights(users)
    if there := wanted.users.keys() & parts.access.users.keys():
        raise PreconditionFailed(f"the broker has users of these names: {', '.join(sorted(there))}")
    await ask(parts, "vhosts.add", name=name, queue_type=wanted.default_queue_type)
    try:
        for user, password in wanted.users.items():
            stored = hashed(password.encode())
            await ask(
                parts, "users.add", name=user, password_hash=stored.hash,
                hashing_algorithm=stored.algorithm,
            )  # fmt: skip
        for user, right in rights.items():
            await ask(parts, "permissions.set", vhost=name, user=user, **right._asdict())
        await make(parts, name, entries)
    except BaseException:
        await delete_vhost(parts, name, wanted)
        raise


async def make(parts: NodeContext, name: str, entries: Mapping[str, list[dict[str, Any]]]) -> None:
    """Make what definitions name.  PreconditionFailed for what is skipped."""
    for category, made in entries.items():
        row = await ask(parts, "definitions.import", category=category, entries=made, home=name)
        if row["skipped"]:
            raise PreconditionFailed(f"of the definitions is skipped: {'; '.join(row['skipped'])}")


def hang_up(parts: NodeContext, name: str) -> None:
    """Close the connections of all clients of a virtual host."""
    for connection in parts.connections:
        if connection.session is not None and connection.session.vhost.name == name:
            connection.close(ConnectionForced("the test is over"))  # which is no error to log


async def delete_vhost(parts: NodeContext, name: str, wanted: VhostRequirements) -> None:
    """Delete a virtual host with all that is in it, and those users that it came with.
    NotFound."""
    await ask(parts, "vhosts.delete", name=name)
    for user in wanted.users.keys() & parts.access.users.keys():
        await ask(parts, "users.delete", name=user, force=True)
