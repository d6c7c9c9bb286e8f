"""The nodes of a cluster as all of them know them: names, addresses, and lives.

A node is let in with a fact that has no life yet; it puts its own there when it starts, before it
takes clients, and what it declares that ends with its process rests on that fact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Kind, Name
from fluffle.broker.metadata.metadata import Consequence


class RegisteredNode(NamedTuple):
    """Node of the cluster, as all its nodes know it."""

    address: ListenAddress
    """Where it listens for the others, unless they were given another address."""
    boot: int = 0
    """How often it has been started; 0 if it was never here."""
    nonce: bytes = b""
    """Drawn at that start."""
    id: int = 0
    """Drawn when it was let in, so that it is not taken for a former node of its name; 0 for those
    that founded the cluster."""
    knows: int = 0
    """Version of the definitions that it understands in this boot; 0 if it does not say."""


CHANGES_TYPES = 1
"""Queues may have a successor."""

DELAYS = 2
"""Version from which exchanges of the type x-delayed-message exist."""

SELECTS = 3
"""Version from which exchanges of the type x-jms-topic exist."""

RETAINS = 4
"""Messages are retained, have annotations, and sessions of clients outlive their connections."""

NUMBERS_SESSIONS = 6
"""Annotations may have the key of a message, and so has the will of a session (from 5 on); sessions
have numbers, and facts hold many of their packets."""

KEEPS_WILLS = 7
"""Wills that are due are on record until their queues have them."""

KNOWS = KEEPS_WILLS
"""This version; what an older one does not know is not defined as long as there is one."""

Nodes: TypeAlias = Mapping[str, RegisteredNode]


class NodeRegistry:
    """The nodes, for reading, and listeners for a change."""

    def __init__(self) -> None:
        self.entries: dict[str, RegisteredNode] = {}
        self.listeners: list[Callable[[], None]] = []

    def put(self, node: str, registered: RegisteredNode) -> Consequence:
        self.entries[node] = registered
        return self.notify

    def remove(self, node: str) -> Consequence:
        del self.entries[node]
        return self.notify

    def notify(self) -> None:
        for listener in self.listeners:
            listener()


def check_supported(what: int, nodes: Nodes) -> tuple[Name, ...]:
    """Return what a change rests on that no version before `what` can apply.

    PreconditionFailed as long as there is a node of one.
    """
    for node, registered in nodes.items():
        if registered.knows < what:
            raise PreconditionFailed(f"node '{node}' is of a version that knows nothing of this")
    return tuple(map(node_name, nodes))


def node_name(node: str) -> Name:
    return Kind.NODE, (node,)


def node_fact(node: str, registered: RegisteredNode) -> Fact:
    kind, key = node_name(node)
    return Fact(kind, key, registered)


def found(nodes: Nodes, founders: Mapping[str, ListenAddress]) -> Change:
    """Register the founders of the cluster, unless that is done."""
    if nodes:
        return NOTHING
    facts = [node_fact(node, RegisteredNode(address)) for node, address in sorted(founders.items())]
    return Change(puts=tuple(facts), rests_on=tuple(fact.name for fact in facts))


def admit(nodes: Nodes, node: str, address: ListenAddress, drawn: int) -> Change:
    """Let a node in, which is then to be started; `drawn` is its `id`.

    PreconditionFailed if there is one of that name.
    """
    if node in nodes:
        raise PreconditionFailed(
            f"node '{node}' is one of the cluster already, at {nodes[node].address}; if its disk "
            "is lost, have the cluster forget it first"
        )
    fact = node_fact(node, RegisteredNode(address, id=drawn))
    return Change(puts=(fact,), rests_on=(fact.name,))


def dismiss(nodes: Nodes, node: str) -> Change:
    """A node is none of the cluster any more; nothing if that is so."""
    known = nodes.get(node)
    if known is None:
        return NOTHING
    fact = node_fact(node, known)
    return Change(removes=(fact,), rests_on=(fact.name,))


def enter(nodes: Nodes, node: str, boot: int, nonce: bytes) -> Change:
    """Have it known in which life a node is; nothing if it is no node of the cluster."""
    known = nodes.get(node)
    if known is None or known.boot >= boot:
        return NOTHING
    entered = known._replace(boot=boot, nonce=nonce, knows=KNOWS)
    return Change(puts=(node_fact(node, entered),), rests_on=(node_name(node),))
