"""A node as definitions that RabbitMQ imports: all of it, or one virtual host without its users.

As with RabbitMQ there are no messages in them, no exclusive queues, no internal exchanges, and
nothing that the broker has made by itself.  Entries are made when they are taken, since there may
be many: others change the node in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from fluffle.broker.access.access import User
from fluffle.broker.access.passwords import PasswordHash
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.file_format import FORMAT, SINGLE_VHOST, plain
from fluffle.broker.definitions.parameters import VHOST_LIMITS
from fluffle.broker.metadata.change import Entry
from fluffle.broker.queues.arguments import DEFAULT_QUEUE_TYPE, QUEUE_TYPE, QueueSpec, QueueType
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.routing.exchange import RESERVED_PREFIX
from fluffle.broker.routing.topic_filter import connection_of
from fluffle.broker.vhosts.vhost import VirtualHost

Categories: TypeAlias = Mapping[str, Iterator[Entry]]
"""The entries by category, in the order of the file."""


def cluster_head(version: str) -> Entry:
    """Return what stands before the entries of an export of everything."""
    return {"rabbit_version": version, "rabbitmq_version": version, FORMAT: "cluster"}


def cluster_entries(catalogue: Catalogue) -> Categories:
    """Yield the entries of all categories."""
    access, vhosts, kept = catalogue.access, tuple(catalogue.vhosts.values()), catalogue.kept
    return {
        "users": map(user_entry, tuple(access.users.values())),
        "vhosts": map(vhost_entry, vhosts),
        "permissions": (
            {"user": user, "vhost": vhost, **_fields(row, "configure", "write", "read")}
            for (user, vhost), row in tuple(access.permissions.items())
        ),
        "topic_permissions": (
            {"user": user, "vhost": vhost, "exchange": exchange, **_fields(row, "write", "read")}
            for (user, vhost, exchange), row in tuple(access.topic_permissions.items())
        ),
        "parameters": iter([*limit_parameters(vhosts), *kept.parameters]),
        "global_parameters": iter(list(kept.global_parameters)),
        "policies": iter(list(kept.policies)),
        "queues": (entry for vhost in vhosts for entry in queue_entries(vhost)),
        "exchanges": (entry for vhost in vhosts for entry in exchange_entries(vhost)),
        "bindings": (entry for vhost in vhosts for entry in binding_entries(vhost)),
    }


def vhost_head(vhost: VirtualHost, version: str) -> Entry:
    """Return what stands before the entries of an export of one virtual host."""
    return {
        "rabbit_version": version,
        "rabbitmq_version": version,
        FORMAT: SINGLE_VHOST,
        "original_vhost_name": vhost.name,
        "metadata": dict(vhost.metadata),
        "description": vhost.metadata.get("description", ""),
        DEFAULT_QUEUE_TYPE: vhost.metadata.get(DEFAULT_QUEUE_TYPE, QueueType.CLASSIC.value),
        "limits": vhost_limits(vhost),
    }


def entries_of_vhost(catalogue: Catalogue, vhost: VirtualHost) -> Categories:
    """Yield the entries of one virtual host."""
    kept = catalogue.kept
    entries: Mapping[str, Iterable[Entry]] = {
        "parameters": [*limit_parameters([vhost]), *kept.parameters],
        "policies": list(kept.policies),
        "queues": queue_entries(vhost),
        "exchanges": exchange_entries(vhost),
        "bindings": binding_entries(vhost),
    }
    return {category: _without_vhost(rows, vhost.name) for category, rows in entries.items()}


def user_entry(user: User) -> Entry:
    password = user.password or PasswordHash("")  # RabbitMQ's way to have none
    limits = {
        "max-connections": user.limits.max_connections,
        "max-channels": user.limits.max_channels,
    }
    return {
        "name": user.name,
        "password_hash": password.hash,
        "hashing_algorithm": password.algorithm,
        "tags": list(user.tags),
        "limits": _set_ones(limits),
    }


def vhost_entry(vhost: VirtualHost) -> Entry:
    return {
        "name": vhost.name,
        "metadata": dict(vhost.metadata),
        "limits": [list(pair) for pair in vhost_limits(vhost).items()],
    }


def vhost_limits(vhost: VirtualHost) -> Entry:
    limits = vhost.limits
    return _set_ones({"max-connections": limits.max_connections, "max-queues": limits.max_queues})


def queue_entries(vhost: VirtualHost) -> Iterator[Entry]:
    return (
        {
            "vhost": vhost.name,
            "name": queue.name,
            "type": queue.spec.queue_type.value,
            "durable": queue.spec.durable,
            "auto_delete": queue.spec.auto_delete,
            "arguments": queue_arguments(vhost, queue.spec),
        }
        for queue in tuple(vhost.queues.values())
        if queue.owner is None and not is_delayed_queue(queue.name)
    )


def queue_arguments(vhost: VirtualHost, spec: QueueSpec) -> Entry:
    """Return the arguments, with the type where another one is the default: an import looks at
    nothing else."""
    arguments = plain(spec.arguments)
    if DEFAULT_QUEUE_TYPE in vhost.metadata:
        arguments.setdefault(QUEUE_TYPE, spec.queue_type.value)
    return arguments


def exchange_entries(vhost: VirtualHost) -> Iterator[Entry]:
    return (
        {
            "vhost": vhost.name,
            "name": spec.name,
            "type": spec.type,
            "durable": spec.durable,
            "auto_delete": spec.auto_delete,
            "arguments": plain(spec.arguments),
        }
        for spec in tuple(vhost.topology.exchanges())
        if spec.name and not spec.name.startswith(RESERVED_PREFIX) and not spec.internal
    )


def binding_entries(vhost: VirtualHost) -> Iterator[Entry]:
    """Yield the bindings whose ends are exported too."""
    return (
        {
            "vhost": vhost.name,
            "source": binding.source,
            "destination": binding.destination,
            "destination_type": binding.destination_kind.value,
            "routing_key": binding.routing_key,
            "arguments": plain(binding.arguments),
        }
        for binding in vhost.topology.bindings
        if not connection_of(binding)
        and _is_exported(vhost, DestinationKind.EXCHANGE, binding.source)
        and _is_exported(vhost, binding.destination_kind, binding.destination)
    )


def _is_exported(vhost: VirtualHost, kind: DestinationKind, name: str) -> bool:
    """True if it will be there wherever the definitions are imported."""
    if kind is DestinationKind.QUEUE:
        queue = vhost.queues.get(name)
        return queue is not None and queue.owner is None
    exchange = vhost.topology.find(name)
    return exchange is not None and not exchange.spec.internal


def limit_parameters(vhosts: Iterable[VirtualHost]) -> list[Entry]:
    """Limits of virtual hosts, as RabbitMQ keeps them."""
    return [
        {"vhost": vhost.name, "component": VHOST_LIMITS, "name": "limits", "value": limits}
        for vhost in vhosts
        if (limits := vhost_limits(vhost))
    ]


def _without_vhost(entries: Iterable[Entry], vhost: str) -> Iterator[Entry]:
    return (
        {key: value for key, value in entry.items() if key != "vhost"}
        for entry in entries
        if entry["vhost"] == vhost
    )


def _set_ones(limits: Mapping[str, int | None]) -> Entry:
    return {name: value for name, value in limits.items() if value is not None}


def _fields(row: object, *names: str) -> Entry:
    return {name: getattr(row, name) for name in names}
