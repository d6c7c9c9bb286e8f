"""Cluster formation: how a node without data founds a cluster, helps to found one, or joins one.

    free      --a majority of the founders is free, the first among them--> promised
    free      --one that has promised asks for help-----------------------> promised
    promised  --a majority has: the group of definitions has a log--------> begun
    free, promised  --a cluster that has begun has let it in--------------> joins that

A **promise** is the mark of a cluster and its founders, on disk before a word is said of it.  A
node gives one, and its vote in that group goes by it; so two clusters cannot both be promised by a
majority of the same founders.  The first of the founders draws the mark, and no other node does:
sets that grew or shrank have their first node in common.  Where nodes were given them in different
orders, the least of their names is the first.  What is known of others is what they have said since
their link came up, and these frames keep their order with those of consensus: a node that hears of
another mark than its own heeds no vote from there.

    [0, host, port]                   a node that has not begun asks, and says where it listens
    [1, mark, stage, members, joins, first]
                                      what it hears, and at each link and change: `joins` if it is
                                      let in as one that joins, `first` of those who are to found
    [2, mark, founders]               a node that has promised, or begun, asks a founder for help
    members, founders                 [[name, host, port], ...]
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.codec import BadFrame, pack, unpack
from fluffle.broker.cluster.links.identity import MARK_LETTERS, mark_of
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.durability.node_identity import StoreOwner
from fluffle.raft.config import Configuration, NodeId

logger = logging.getLogger(__name__)

Founders: TypeAlias = Mapping[NodeId, ListenAddress]
"""Nodes and where they listen, the one that draws the mark in front."""

ASK, ANSWER, INVITE = 0, 1, 2

FOUNDED_AS = 1
"""The incarnation of all founders: see `Configuration.initial`."""


class Stage(IntEnum):
    """How far a node is; the numbers are on the wire."""

    FREE = 0
    """The node has no cluster, and has promised to found none."""
    PROMISED = 1
    """The node helps to found a cluster, or joins one: its log is empty."""
    BEGUN = 2
    """The node has data of its cluster."""


STAGES = tuple(map(int, Stage))


class FormationState(NamedTuple):
    """The state that a node has last sent of itself."""

    mark: str
    stage: Stage
    first: str
    """The first founder, as its options name it."""


class Promise(NamedTuple):
    """A node's record on disk of the cluster that it is of, or is to be of."""

    mark: str = ""
    founders: Founders = {}  # noqa: RUF012 - nothing changes it
    """Empty for a cluster that it joins, or has joined."""
    left: tuple[str, ...] = ()
    """The marks that it helped to found and gave up: it may have voted there, and does not know for
    whom any more, so it never helps there again."""


class LocalNode(Protocol):
    """The node itself, as its formation sees and changes it."""

    @property
    def is_begun(self) -> bool:
        """True if there is anything in its log of definitions."""

    @property
    def members(self) -> Founders | None:
        """The nodes that are let in; None if it does not know what all know."""

    def is_founder(self, node: NodeId) -> bool:
        """True if a member of the group of definitions was there when it was founded."""

    @property
    def linked(self) -> Collection[NodeId]:
        """The nodes to which there is a link over which these frames are understood."""

    @property
    def marks_nearby(self) -> Collection[str]:
        """The marks in the hellos of nodes that have begun and to which there is a link; and
        some mark if a node refuses this one as what it was before it lost its disk."""

    def send(self, node: NodeId, payload: bytes) -> None:
        """Send a frame to `receive` of another node, in order with frames of consensus; it may be
        lost."""

    def draw_mark(self) -> str:
        """A mark that no cluster has."""

    def keep(self, promise: Promise, done: Callable[[], None]) -> None:
        """Put it on disk, then call `done`."""

    def go_by(self, promise: Promise) -> None:
        """Be a member of the group of its founders, and give up what came of founding another."""

    def reach(self, node: NodeId, address: ListenAddress) -> None:
        """Have links with a node, unless there are."""

    def admit(self, node: NodeId, address: ListenAddress) -> None:
        """Let a node in, if that is to be done by itself."""


@dataclass(slots=True, eq=False)
class Formation:
    """The promise of one node, those that it knows of others, and what comes of them."""

    _name: NodeId
    _configured: Founders
    """Founders of the cluster, by the options of this node."""
    _address: ListenAddress
    """Where it listens, as others see it."""
    promise: Promise
    """The promise as it is on disk."""
    _node: LocalNode
    _is_keeping: bool = field(default=False, init=False)
    """A promise is on its way to the disk: nothing else is promised."""
    standings: dict[NodeId, FormationState] = field(default_factory=dict)
    """The statement that each node has sent over the link that is up."""
    _refused: set[str] = field(default_factory=set, init=False)
    """The marks that were asked for in vain."""
    _met: dict[NodeId, str] = field(default_factory=dict, init=False)
    """The mark that each has sent last, from where frames come."""
    strangers: set[NodeId] = field(default_factory=set, init=False)
    """Nodes of another cluster, as far as both are of one: only their frames of formation count."""

    def start(self) -> None:
        """Go on with what was promised in an earlier life."""
        if self.stage is Stage.PROMISED:
            self._node.go_by(self.promise)
        self._consider()

    @property
    def stage(self) -> Stage:
        if self._node.is_begun:
            return Stage.BEGUN
        return Stage.PROMISED if self.promise.mark else Stage.FREE

    @property
    def _first(self) -> str:
        return next(iter(self._configured), "")

    @property
    def founders(self) -> Founders:
        """The nodes that found a cluster with this one; none if it founds none."""
        return self.promise.founders

    def met(self, node: NodeId, mark: str) -> None:
        """A node has dialled this one, and has said hello with this mark."""
        self._met[node] = mark
        self._find_strangers()

    def _find_strangers(self) -> None:
        """Tell nodes of another cluster apart by their marks, which have changed, or by ours."""
        ours = self.promise.mark
        self.strangers.clear()
        for node, theirs in self._met.items():
            if ours and theirs and ours != theirs:  # mutant: FO6
                self.strangers.add(node)

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Send a node over a new link what this one is, before anything else goes over it."""
        if is_up:
            self._answer(node)
            self._ask(node)
        else:
            self.standings.pop(node, None)

    def entered(self) -> None:
        """This node knows which are let in, and says so."""
        for node in tuple(self._node.linked):
            self._answer(node)

    def look(self) -> None:
        """Ask again, as long as there is something to ask; frames may have been lost."""
        if self.stage is Stage.BEGUN:
            return
        for node in tuple(self._node.linked):
            self._ask(node)  # mutant: FO8
        self._consider()

    def _ask(self, node: NodeId) -> None:
        if self.stage is not Stage.BEGUN:
            self._node.send(node, pack(ASK, self._address.host, self._address.port))

    def _answer(self, node: NodeId) -> None:
        members = self._node.members if self.stage is Stage.BEGUN else None
        joins = members is not None and node in members and not self._node.is_founder(node)
        said = self.promise.mark, int(self.stage), rows_of(members or {}), joins, self._first
        self._node.send(node, pack(ANSWER, *said))

    def _invite(self, node: NodeId) -> None:
        promise = self.promise
        self._node.send(node, pack(INVITE, promise.mark, rows_of(promise.founders)))

    # What comes

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A frame from another node.  Raises `BadFrame`."""
        match unpack(payload):
            case [0, str(host), int(port)]:
                self._on_asked(node, ListenAddress(host, port))
            case [1, str(mark), int(stage), list(rows), bool(joins), str(first)] if stage in STAGES:
                standing = FormationState(mark, Stage(stage), first)
                self._on_standing(node, standing, read_rows(rows), joins=joins)
            case [2, str(mark), list(rows)] if mark and rows:
                self._on_invited(node, Promise(mark, read_rows(rows)))
            case other:
                raise BadFrame(f"{other!r:.40} for the formation of a cluster")

    def _on_asked(self, node: NodeId, address: ListenAddress) -> None:
        """A node that has not begun: it is let in, or helps to found the cluster."""
        members = self._node.members
        self._answer(node)
        if members is not None and node not in members:
            self._node.admit(node, address)
        elif members is None or self._node.is_founder(node):
            self._help(node)

    def _help(self, node: NodeId) -> None:
        """Ask it for its promise, if it is one of the founders and this node has given its own."""
        if node in self.promise.founders:
            self._invite(node)

    def _on_standing(
        self, node: NodeId, standing: FormationState, members: Founders, *, joins: bool
    ) -> None:
        self._met[node] = standing.mark
        self._find_strangers()
        self.standings[node] = standing
        if self._name in members:
            for other, address in members.items():
                self._reach(other, address)
        if joins and standing.stage is Stage.BEGUN and self._may_join(standing.mark):  # mutant: FO7
            self._give(Promise(standing.mark))
        self._consider()

    def _may_join(self, mark: str) -> bool:
        """True if this node may take that mark.  One that an earlier version let in has begun, and
        has none yet."""
        ours = self.promise.mark
        return ours != mark and not self._is_keeping and not (ours and self._node.is_begun)

    def _on_invited(self, node: NodeId, promise: Promise) -> None:
        """Promise what another has promised, if nothing is known of any other cluster; or take one
        that has begun for what came of it."""
        if self._name not in promise.founders:  # mutant: FO3
            return
        for other, address in promise.founders.items():
            self._reach(other, address)
        has_begun = self.standings.get(node, NOT_SAID)[:2] == (promise.mark, Stage.BEGUN)
        is_free = self.stage is Stage.FREE or (has_begun and self._may_join(promise.mark))
        is_free = is_free and promise.mark not in self.promise.left
        if self._is_keeping:
            return
        if is_free and self._clusters <= {promise.mark}:
            self._give(promise)
        elif self.promise.mark != promise.mark:
            self._refuse(node, promise)
            self._answer(node)

    def _refuse(self, node: NodeId, promise: Promise) -> None:
        """Say so, once for each mark."""
        if promise.mark not in self._refused:
            self._refused.add(promise.mark)
            event(
                logger, logging.WARNING, "founding_refused", asked_by=node, mark=promise.mark,
                promised=self.promise.mark or None, stage=self.stage.name.lower(),
                clusters=",".join(sorted(self._clusters)) or None,
                advice="if no cluster has come of what this node has promised, start it with an "
                "empty --data-dir",
            )  # fmt: skip

    def _reach(self, node: NodeId, address: ListenAddress) -> None:
        if node != self._name:
            self._node.reach(node, address)

    # What it decides

    @property
    def _clusters(self) -> set[str]:
        """Marks of the clusters that have begun, as far as reachable nodes know."""
        marks = {each.mark for each in self.standings.values() if each.stage is Stage.BEGUN}
        return marks.union(self._node.marks_nearby)

    def _consider(self) -> None:
        """Found a cluster, if it is for this node to begin that, and there is none."""
        if self.stage is not Stage.FREE or self._is_keeping or self._clusters:  # mutant: FO2
            return
        free = {node for node, standing in self.standings.items() if standing.stage is Stage.FREE}
        free.intersection_update(self._configured)
        firsts = {self._first, *(self.standings[node].first for node in free)}
        first = self._first if len(firsts) == 1 else min(self._configured, default="")
        # mutant: FO1 FO4
        if first == self._name and is_majority({self._name, *free}, self._configured):
            self._give(Promise(self._node.draw_mark(), self._configured))

    def _give(self, promise: Promise) -> None:
        """Promise it, on disk, and only then to others."""
        before = self.promise
        is_left = bool(before.founders) and before.mark != promise.mark
        promise = promise._replace(left=(*before.left, before.mark) if is_left else before.left)

        def done() -> None:
            self._is_keeping = False
            self.promise = promise
            self._find_strangers()
            event(
                logger, logging.INFO,
                "founding_promised" if promise.founders else "join_accepted",
                mark=promise.mark, founders=",".join(promise.founders) or None,
            )  # fmt: skip
            for node in tuple(self._node.linked):
                self._answer(node)
            self._node.go_by(promise)
            for node in tuple(self._node.linked):
                if self.standings.get(node, NOT_SAID).stage is Stage.FREE:
                    self._help(node)

        self._is_keeping = True
        self._node.keep(promise, done)  # mutant: FO5


NOT_SAID = FormationState("", Stage.PROMISED, "")
"""The standing of a node that has said nothing yet: nothing comes of it."""


def is_majority(nodes: Collection[NodeId], of: Collection[NodeId]) -> bool:
    """True if more than half of those are among these."""
    return 2 * len(set(nodes) & set(of)) > len(of)


def rows_of(nodes: Founders) -> list[tuple[str, str, int]]:
    """Nodes and their addresses as they are on the wire."""
    return [(node, address.host, address.port) for node, address in nodes.items()]


def read_rows(rows: list[Any]) -> Founders:
    """Raises `BadFrame`."""
    read = {}
    for row in rows:
        match row:
            case [str(node), str(host), int(port)]:
                read[node] = ListenAddress(host, port)
            case _:
                raise BadFrame(f"{row!r:.40} for a node and its address")
    return read


def promise_of(owned: StoreOwner, config: Configuration, addresses: Founders) -> Promise:
    """The promise on disk.

    Earlier versions kept no founders, and made the mark of their names: they are known by that, as
    long as all of them are members in `config`, so that the last can be helped to begin.
    """
    mark = mark_of(owned.cluster)
    founders = {node: ListenAddress(host, port) for node, host, port in owned.founders}
    first = {each.node for each in config.members if each.incarnation == FOUNDED_AS}
    if not founders and first <= addresses.keys() and mark == mark_of_names(first):
        founders = {node: addresses[node] for node in sorted(first)}
    return Promise(mark, founders, owned.left)


def mark_of_names(founders: Collection[NodeId]) -> str:
    """The mark of a cluster that an earlier version has founded."""
    return hashlib.sha256("\0".join(sorted(founders)).encode()).hexdigest()[:MARK_LETTERS]
