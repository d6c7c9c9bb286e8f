"""Whether definitions are those that were imported last, by a hash that is kept beside them.

The hash is a global parameter, so that the nodes of a cluster share it; its name begins as those do
that RabbitMQ does not import either.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import keep
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.facts import Kind

NAME = "internal_definitions_hash"


def fingerprint(files: Sequence[Path]) -> str:
    """Of all that the files hold."""
    total = sha256()
    for file in files:
        total.update(sha256(file.read_bytes()).digest())
    return total.hexdigest()


def noted(catalogue: Catalogue) -> str | None:
    """That of the last import; None before there was one."""
    entry = catalogue.kept.entries[Kind.GLOBAL_PARAMETER].get((NAME,))
    return None if entry is None else str(entry["value"])


def note(told: str) -> Change:
    """Have it known that these have been imported."""
    return keep(Kind.GLOBAL_PARAMETER, {"name": NAME, "value": told})
