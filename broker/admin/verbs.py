"""All verbs of the control socket: the union of the groups' tables.

A module is imported when a verb of its group is asked for, and none by a node that nobody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from fluffle.broker.admin.dispatch import Verb, verbs_of
from fluffle.broker.admin.read_barrier import with_read_barrier

GROUPS: Mapping[str, tuple[str, ...]] = {
    "ping": ("status",),
    "nodes": ("nodes",),
    "node": ("maintenance", "node_settings", "health"),
    "alarms": ("health",),
    "status": ("status",),
    "users": ("users",),
    "vhosts": ("vhosts",),
    "permissions": ("permissions",),
    "queues": (
        *(
            "queues",
            "peek",
            "members",
            "force_shrink",
            "move",
            "convert",
            "health",
            "queue_statistics",
            "raft_status",
            "voters",
            "volumes",
        ),
    ),
    "exchanges": ("topology", "queue_statistics"),
    "bindings": ("topology",),
    "connections": ("connections",),
    "channels": ("connections",),
    "consumers": ("connections",),
    "everywhere": ("all_nodes",),
    "policies": ("policies",),
    "operator_policies": ("policies",),
    "parameters": ("policies",),
    "global_parameters": ("policies",),
    "definitions": ("definitions",),
    "messages": ("explain", "held_messages"),
    "cluster": ("cluster",),
    "statistics": ("statistics",),
}
"""What the name of a verb begins with: the modules of this package that have such verbs."""

OF_DEFINITIONS = frozenset(
    {"users", "vhosts", "permissions", "queues", "members", "topology", "policies", "explain"}
)
"""The modules whose verbs say of what is defined that it is not there."""


class Verbs(Mapping[str, Verb]):
    """The verbs of some groups, each known once its group has been used."""

    def __init__(self, groups: Mapping[str, tuple[str, ...]]) -> None:
        self._groups = groups
        self._known: dict[str, Verb] = {}
        self._imported: set[str] = set()

    def __getitem__(self, name: str) -> Verb:
        if name not in self._known:
            self._import(self._groups.get(name.partition(".")[0], ()))
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        for modules in self._groups.values():
            self._import(modules)
        return iter(self._known)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _import(self, modules: tuple[str, ...]) -> None:
        for name in modules:
            if name in self._imported:
                continue
            self._imported.add(name)
            module = import_module(f"fluffle.broker.admin.{name}")
            reads, changes = (getattr(module, table, {}) for table in ("READS", "CHANGES"))
            found = verbs_of(reads, changes)
            if name in OF_DEFINITIONS:
                found = {verb: with_read_barrier(found[verb]) for verb in found}
            self._known |= found


VERBS = Verbs(GROUPS)
