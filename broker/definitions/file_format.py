"""The two forms of a definitions file, and in which order it is imported.  Knows no node.

A file is about a whole cluster, or about one virtual host, whose entries do not name it.
"""

from collections.abc import Mapping
from typing import Any

FORMAT = "rabbitmq_definition_format"
SINGLE_VHOST = "single_virtual_host"

ORDER = (
    "users",
    "vhosts",
    "permissions",
    "exchanges",
    "topic_permissions",
    "global_parameters",
    "policies",
    "parameters",
    "queues",
    "bindings",
)
"""In which RabbitMQ imports categories: each needs some of those before it."""

ENTRIES_AT_ONCE = 100
"""Are imported in a turn of the loop: a few milliseconds of the node's time."""

_IN_VHOST = ("exchanges", "queues", "bindings", "policies")


def is_single(content: Mapping[str, Any]) -> bool:
    """Whether it is about one virtual host.  Not every version says so; one that lists none is."""
    if FORMAT in content:
        return bool(content[FORMAT] == SINGLE_VHOST)
    entries = [entry for name in _IN_VHOST for entry in content.get(name, [])]
    return not content.get("vhosts") and not any(
        isinstance(entry, dict) and "vhost" in entry for entry in entries
    )
