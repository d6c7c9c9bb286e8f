"""A node as definitions that RabbitMQ imports: all of it, or one virtual host without its users.

As with RabbitMQ there are no messages in them, no exclusive queues, no internal exchanges, and
nothing that the broker has made by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fluffle.broker.access.passwords import PasswordHash
from fluffle.broker.access.users import User
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.importing import VHOST_LIMITS
from fluffle.broker.definitions.reading import FORMAT, SINGLE_VHOST
from fluffle.broker.definitions.values import plain
from fluffle.broker.recording.image import Entry
from fluffle.broker.routing.declaring import RESERVED_PREFIX
from fluffle.broker.vhost import VirtualHost


def export_all(catalogue: Catalogue, version: str) -> dict[str, Any]:
    """Everything; `version` is the one of RabbitMQ that we behave like."""
    access, vhosts, kept = catalogue.access, catalogue.vhosts.values(), catalogue.kept
    return {
        "rabbit_version": version,
        "rabbitmq_version": version,
        FORMAT: "cluster",
        "users": [user_entry(user) for user in access.users.values()],
        "vhosts": [vhost_entry(vhost) for vhost in vhosts],
        "permissions": [
            {"user": user, "vhost": vhost, **_fields(row, "configure", "write", "read")}
            for (user, vhost), row in access.permissions.items()
        ],
        "topic_permissions": [
            {"user": user, "vhost": vhost, "exchange": exchange, **_fields(row, "write", "read")}
            for (user, vhost, exchange), row in access.topic_permissions.items()
        ],
        "parameters": [*_limit_parameters(vhosts), *kept.parameters],
        "global_parameters": kept.global_parameters,
        "policies": kept.policies,
        "queues": [entry for vhost in vhosts for entry in queue_entries(vhost)],
        "exchanges": [entry for vhost in vhosts for entry in exchange_entries(vhost)],
        "bindings": [entry for vhost in vhosts for entry in binding_entries(vhost)],
    }


def export_vhost(catalogue: Catalogue, vhost: VirtualHost, version: str) -> dict[str, Any]:
    """One virtual host, in the form whose entries do not name it: it can be imported as another."""
    kept = catalogue.kept
    parameters = [*_limit_parameters([vhost]), *kept.parameters]
    return {
        "rabbit_version": version,
        "rabbitmq_version": version,
        FORMAT: SINGLE_VHOST,
        "original_vhost_name": vhost.name,
        "metadata": dict(vhost.metadata),
        "parameters": _without_vhost(parameters, vhost.name),
        "policies": _without_vhost(kept.policies, vhost.name),
        "queues": _without_vhost(queue_entries(vhost), vhost.name),
        "exchanges": _without_vhost(exchange_entries(vhost), vhost.name),
        "bindings": _without_vhost(binding_entries(vhost), vhost.name),
    }


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


def queue_entries(vhost: VirtualHost) -> list[Entry]:
    return [
        {
            "vhost": vhost.name,
            "name": queue.name,
            "type": queue.spec.queue_type.value,
            "durable": queue.spec.durable,
            "auto_delete": queue.spec.auto_delete,
            "arguments": plain(queue.spec.arguments),
        }
        for queue in vhost.queues.values()
        if queue.owner is None
    ]


def exchange_entries(vhost: VirtualHost) -> list[Entry]:
    return [
        {
            "vhost": vhost.name,
            "name": spec.name,
            "type": spec.type,
            "durable": spec.durable,
            "auto_delete": spec.auto_delete,
            "arguments": plain(spec.arguments),
        }
        for spec in vhost.topology.exchanges()
        if spec.name and not spec.name.startswith(RESERVED_PREFIX) and not spec.internal
    ]


def binding_entries(vhost: VirtualHost) -> list[Entry]:
    """Those whose ends are exported too."""
    queues = {entry["name"] for entry in queue_entries(vhost)}
    exchanges = {spec.name for spec in vhost.topology.exchanges() if not spec.internal}
    ends = {"queue": queues, "exchange": exchanges}
    return [
        {
            "vhost": vhost.name,
            "source": binding.source,
            "destination": binding.destination,
            "destination_type": binding.destination_kind.value,
            "routing_key": binding.routing_key,
            "arguments": plain(binding.arguments),
        }
        for source in exchanges
        for binding in vhost.topology.bindings_from(source)
        if binding.destination in ends[binding.destination_kind.value]
    ]


def _limit_parameters(vhosts: Iterable[VirtualHost]) -> list[Entry]:
    return [
        {"vhost": vhost.name, "component": VHOST_LIMITS, "name": "limits", "value": limits}
        for vhost in vhosts
        if (limits := vhost_limits(vhost))
    ]


def _without_vhost(entries: Iterable[Entry], vhost: str) -> list[Entry]:
    return [
        {key: value for key, value in entry.items() if key != "vhost"}
        for entry in entries
        if entry["vhost"] == vhost
    ]


def _set_ones(limits: Mapping[str, int | None]) -> Entry:
    return {name: value for name, value in limits.items() if value is not None}


def _fields(row: object, *names: str) -> Entry:
    return {name: getattr(row, name) for name in names}
