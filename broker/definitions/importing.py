"""Definitions into a node: what they name is made, and nothing is taken away.

RabbitMQ's order: users, virtual hosts, permissions, exchanges, topic permissions, parameters,
queues, bindings.  An exchange or a queue that is there stays as it is; names that begin with
`amq.` are skipped.  What this broker refuses, such as a queue type that it does not have, is
skipped too.  A right that cannot be given as it stands ends the import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fluffle.broker.access.limits import UserLimits, VhostLimits
from fluffle.broker.access.passwords import (
    SHA256,
    PasswordHash,
    UnusableHash,
    check_usable,
    hashed,
)
from fluffle.broker.access.patterns import UnusablePattern
from fluffle.broker.access.permissions import Permission, TopicPermission
from fluffle.broker.access.users import User
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.forms import ORDER
from fluffle.broker.definitions.reading import Definitions, DefinitionsError, mapping_of
from fluffle.broker.definitions.values import table_of
from fluffle.broker.errors import BrokerError
from fluffle.broker.facts import Kind
from fluffle.broker.queues.arguments import QUEUE_TYPE, Declaration, QueueType
from fluffle.broker.recording.image import Entry
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.declaring import RESERVED_PREFIX
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhost import VirtualHost

VHOST_LIMITS = "vhost-limits"
NO_OWNER = None

Put: TypeAlias = Callable[[Catalogue, Entry], None]


class Skipped(Exception):
    """Why an entry was left out."""


def import_definitions(definitions: Definitions, catalogue: Catalogue) -> list[str]:
    """Make what `definitions` name; what was skipped and why, a sentence each.

    DefinitionsError for a user or a permission that cannot be taken; what came before stays.
    """
    return [
        reason
        for category in ORDER
        for reason in import_entries(category, definitions[category], catalogue)
    ]


def import_entries(category: str, entries: Sequence[Entry], catalogue: Catalogue) -> list[str]:
    """As `import_definitions`, for some of a category."""
    return [
        f"{category}, {_shown(entry)}: {reason}"
        for entry in entries
        for reason in _tried(CATEGORIES[category], catalogue, entry, category)
    ]


def _tried(put: Put, catalogue: Catalogue, entry: Entry, category: str) -> Iterator[str]:
    try:
        put(catalogue, entry)
    except Skipped as skipped:
        yield str(skipped)
    except BrokerError as error:
        yield error.explanation
    except (UnusableHash, UnusablePattern, DefinitionsError) as error:
        raise DefinitionsError(f"{category}, {_shown(entry)}: {error}") from error


def _shown(entry: Entry) -> str:
    names = ("vhost", "user", "exchange", "source", "destination", "name")
    return " ".join(f"{name} '{entry[name]}'" for name in names if name in entry)


def put_user(catalogue: Catalogue, entry: Entry) -> None:
    tags = entry.get("tags", [])
    if isinstance(tags, str):
        tags = [tag.strip() for tag in tags.split(",") if tag.strip()]
    limits = mapping_of(entry.get("limits", {}))
    catalogue.access.put_user(
        User(
            entry["name"],
            password_of(entry),
            tuple(map(str, tags)),
            UserLimits(limit(limits, "max-connections"), limit(limits, "max-channels")),
        )
    )


def password_of(entry: Entry) -> PasswordHash | None:
    """A hash as it was exported, or one made of a plain password; blank is none."""
    if entry.get("password_hash"):
        stored = PasswordHash(entry["password_hash"], entry.get("hashing_algorithm", SHA256))
        check_usable(stored)
        return stored
    return hashed(entry["password"].encode()) if entry.get("password") else None


def limit(limits: Mapping[str, Any], name: str) -> int | None:
    value = limits.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DefinitionsError(f"'{name}' is no number")
    return value


def put_vhost(catalogue: Catalogue, entry: Entry) -> None:
    """Limits stand in the parameters; RabbitMQ does not read those it writes here."""
    catalogue.vhost(entry["name"]).change(metadata=dict(entry.get("metadata", {})))


def put_permission(catalogue: Catalogue, entry: Entry) -> None:
    user, vhost = _existing_user(catalogue, entry), _existing_vhost(catalogue, entry)
    permission = Permission(entry["configure"], entry["write"], entry["read"])
    permission.check()
    catalogue.access.put_permission(user, vhost.name, permission)


def put_topic_permission(catalogue: Catalogue, entry: Entry) -> None:
    user, vhost = _existing_user(catalogue, entry), _existing_vhost(catalogue, entry)
    permission = TopicPermission(entry["write"], entry["read"])
    permission.check()
    catalogue.access.put_topic_permission(user, vhost.name, entry["exchange"], permission)


def put_parameter(catalogue: Catalogue, entry: Entry) -> None:
    if entry["component"] != VHOST_LIMITS:
        catalogue.kept.put(Kind.PARAMETER, entry)
        return
    limits = mapping_of(entry["value"])
    _existing_vhost(catalogue, entry).change(
        limits=VhostLimits(limit(limits, "max-connections"), limit(limits, "max-queues"))
    )


def put_global_parameter(catalogue: Catalogue, entry: Entry) -> None:
    if not entry["name"].startswith("internal"):
        catalogue.kept.put(Kind.GLOBAL_PARAMETER, entry)


def put_policy(catalogue: Catalogue, entry: Entry) -> None:
    catalogue.kept.put(Kind.POLICY, entry)


def put_exchange(catalogue: Catalogue, entry: Entry) -> None:
    topology = _existing_vhost(catalogue, entry).topology
    name = _unreserved(entry["name"])
    if topology.find(name) is None:
        topology.declare(
            ExchangeSpec(
                name,
                entry["type"],
                durable=entry.get("durable", True),
                auto_delete=entry.get("auto_delete", False),
                internal=entry.get("internal", False),
                arguments=table_of(mapping_of(entry.get("arguments", {}))),
            )
        )


def put_queue(catalogue: Catalogue, entry: Entry) -> None:
    vhost = _existing_vhost(catalogue, entry)
    name = _unreserved(entry["name"])
    if name in vhost.queues:
        return
    arguments = mapping_of(entry.get("arguments", {}))
    if entry.get("type", QueueType.CLASSIC) != QueueType.CLASSIC:
        arguments = {QUEUE_TYPE: entry["type"]} | arguments
    vhost.declare_queue(
        Declaration(
            name,
            durable=entry.get("durable", True),
            auto_delete=entry.get("auto_delete", False),
            arguments=table_of(arguments),
        ),
        NO_OWNER,
    )


def put_binding(catalogue: Catalogue, entry: Entry) -> None:
    _existing_vhost(catalogue, entry).bind(
        Binding(
            entry["source"],
            entry["destination"],
            DestinationKind.QUEUE
            if entry["destination_type"] == DestinationKind.QUEUE.value
            else DestinationKind.EXCHANGE,
            entry["routing_key"],
            table_of(mapping_of(entry.get("arguments", {}))),
        ),
        NO_OWNER,
    )


def _unreserved(name: str) -> str:
    if name.startswith(RESERVED_PREFIX) or not name:
        raise Skipped("such names are the broker's own")
    return name


def _existing_user(catalogue: Catalogue, entry: Entry) -> str:
    name: str = entry["user"]
    if name not in catalogue.access.users:
        raise DefinitionsError(f"there is no user '{name}'")
    return name


def _existing_vhost(catalogue: Catalogue, entry: Entry) -> VirtualHost:
    vhost = catalogue.vhosts.get(entry["vhost"])
    if vhost is None:
        raise DefinitionsError(f"there is no virtual host '{entry['vhost']}'")
    return vhost


CATEGORIES: Mapping[str, Put] = {
    "users": put_user,
    "vhosts": put_vhost,
    "permissions": put_permission,
    "exchanges": put_exchange,
    "topic_permissions": put_topic_permission,
    "global_parameters": put_global_parameter,
    "policies": put_policy,
    "parameters": put_parameter,
    "queues": put_queue,
    "bindings": put_binding,
}
"""What becomes of the entries."""
