"""Definitions in one object, as the verbs and the HTTP API write them entry by entry."""

from __future__ import annotations

from typing import Any

from fluffle.broker.definitions import exporter
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.metadata.change import Entry
from fluffle.broker.vhosts.vhost import VirtualHost


def export_all(catalogue: Catalogue, version: str) -> dict[str, Any]:
    """Export all definitions; `version` is the one of RabbitMQ that we behave like."""
    return whole(exporter.cluster_head(version), exporter.cluster_entries(catalogue))


def export_vhost(catalogue: Catalogue, vhost: VirtualHost, version: str) -> dict[str, Any]:
    """Export one virtual host, in the form whose entries do not name it."""
    head = exporter.vhost_head(vhost, version)
    return whole(head, exporter.entries_of_vhost(catalogue, vhost))


def whole(head: Entry, categories: exporter.Categories) -> dict[str, Any]:
    """Definitions in one object."""
    return head | {category: list(entries) for category, entries in categories.items()}
