"""How a node becomes one of a cluster: its boot, its join, and its admission by the others.

    boot       this life is counted on the disk, unless the data there are not the node's own
    join       no node is known yet            --> the founder of the cluster has all founders known
               this node is known, remembered  --> its life is put there
               else                            --> others have to admit it first: it waits, and
                                                   says so
    admission  a node that knows the secret, has no data and asks is put into the registry

A node has joined once all know in which life it is, and it knows what they know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from fluffle.broker.base.callbacks import answer_of, completion_of
from fluffle.broker.base.clock import EventLoop, Timer
from fluffle.broker.base.errors import BrokerError, PreconditionFailed, StartFailed
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.links.connection import LinkFailure
from fluffle.broker.cluster.links.identity import Boot, Boots, Identity
from fluffle.broker.cluster.queues.placement import ID_BITS
from fluffle.broker.config.config import ClusterConfig, Config, ListenAddress
from fluffle.broker.durability.node_identity import KnownPeers, NodeIdentity, StoreOwner
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.metadata.nodes import NodeRegistry, RegisteredNode, admit, enter, found
from fluffle.broker.queues.quorum.entry_codec import VERSION
from fluffle.raft.config import NodeId
from fluffle.raft.state import Chance
from fluffle.storage.file_mark import FileMark

FIRST_S = 2.0
"""Time in seconds after which a node that waits for others logs that first."""

AGAIN_S = 10.0
"""… and again each time this has passed."""

logger = logging.getLogger(__name__)


class BootRecord(NamedTuple):
    """The present boot of a node, as its data directory records it."""

    identity: Identity
    lives: Boots
    """Boots that its disk remembers, the present one last."""


class DiskAtStart(NamedTuple):
    """The state of a disk before anything is written to it in a life."""

    commit: int
    """The number of the last commit on it."""
    mark: FileMark | None
    """The mark that sets its file apart; None where there is no file, as in memory."""


def begin_boot(
    kept: NodeIdentity, config: Config, cluster: ClusterConfig, nonce: bytes, disk: DiskAtStart
) -> BootRecord:
    """The identity of a node in the life that begins, for which `nonce` was drawn; it is not on
    disk yet.

    Of which cluster it is says its disk alone.  StartFailed if the data are another's, or not those
    that the node has written but a copy.
    """
    node = config.node_name
    owned = kept.owned or StoreOwner(node, cluster.name, 0, ())
    if owned.node != node:
        raise StartFailed(
            f"{config.data_dir} holds the data of node '{owned.node}', not of '{node}'; correct "
            "--node, or name another place with --data-dir"
        )
    name = owned.cluster.partition(" ")[0]
    if name != cluster.name:
        raise StartFailed(
            f"{config.data_dir} holds the data of a node of cluster '{name}', not of "
            f"'{cluster.name}'; correct --cluster-name, or name another place with --data-dir"
        )
    if owned.mark is not None and disk.mark is not None and owned.mark.is_other(disk.mark):
        raise StartFailed(copied(config.data_dir, node))
    if disk.mark is not None and not disk.mark.is_conclusive:
        event(logger, logging.WARNING, "copies_not_recognised", data_dir=config.data_dir)
    lives = Boots(owned.boot, owned.nonces, owned.began).followed_by(nonce, disk.commit)
    kept.put(
        owned._replace(boot=lives.count, nonces=lives.nonces, began=lives.began, mark=disk.mark)
    )
    return BootRecord(Identity(owned.cluster, node, Boot(lives.count, nonce), VERSION), lives)


def copied(data_dir: Path, node: NodeId) -> str:
    """Advice for the operator where there is a copy of what a node has written."""
    return (
        f"{data_dir} holds a copy of what node '{node}' has written, not the file itself. If it "
        "may lack anything that the node did later (a backup, a copy made while it ran), run "
        f"`fluffle data restored --data-dir {data_dir}`: the node joins with nothing, and gets "
        "definitions and quorum queues from the others; its classic queues, and all others that "
        "are on it alone, are lost with that, unless you save them as that command says. Only if "
        "the node was stopped and its data moved here since, run "
        f"`fluffle data moved --data-dir {data_dir}`"
    )


class LinkView(Protocol):
    """View of the links to other nodes: see `ClusterLinks`."""

    @property
    def dialled_by(self) -> Collection[NodeId]: ...
    def is_up(self, node: NodeId) -> bool: ...
    def hindrance(self, node: NodeId) -> LinkFailure | None: ...


class JoinStatus(NamedTuple):
    """The other nodes that are known, and what an operator can do."""

    linked: list[NodeId]
    """Nodes to which a link is up."""
    of: list[NodeId]
    hindered: list[str]
    """Why there is none to others, as far as a node has refused it."""
    advice: str


def join_status_of(
    name: NodeId,
    others: Iterable[NodeId],
    links: LinkView,
    *,
    is_let_in: bool,
    forgotten_start: int,
) -> JoinStatus:
    """`is_let_in`: as far as this node knows.  `forgotten_start`: of this node, as the cluster has
    seen and its disk does not know; 0 if there is none."""
    of = sorted(others)
    linked = [node for node in of if links.is_up(node)]
    refused = [why for node in of if (why := links.hindrance(node)) is not None and why.advice]
    advices = dict.fromkeys(why.advice for why in refused if why.advice)
    unheard = [node for node in linked if node not in links.dialled_by]
    if forgotten_start:
        advice = (
            f"the cluster has seen start {forgotten_start} of this node, which its disk does not "
            "remember: it was wiped or rolled back; on another node `fluffle cluster forget "
            f"{name}`, then start this one with an empty --data-dir: it joins by itself (with "
            f"`--cluster-admit no`, after `fluffle cluster add {name}=HOST:PORT`)"
        )
    elif advices:
        advice = "; ".join(advices)
    elif not is_let_in:
        advice = f"let it in: on another node, `fluffle cluster add {name}=HOST:PORT`"
    elif unheard:
        advice = (
            f"{', '.join(unheard)} cannot dial this node: start it with the --cluster-listen "
            "address that they know, and look whether they reach that"
        )
    elif len(linked) < len(of):
        advice = "start the other nodes, and look why there is no link to them"
    else:
        advice = "the others are linked, and have yet to agree; look at their logs if this lasts"
    return JoinStatus(linked, of, [why.reason for why in refused], advice)


def log_join_status(status: JoinStatus) -> None:
    event(
        logger, logging.WARNING, "waiting_for_cluster",
        linked=",".join(status.linked) or "none", of=",".join(status.of),
        hindered="; ".join(status.hindered) or None, advice=status.advice,
    )  # fmt: skip


class ClusterJoin:
    """The join of one node to its cluster, done once."""

    def __init__(
        self,
        life: BootRecord,
        config: ClusterConfig,
        registry: NodeRegistry,
        metadata: Metadata,
        *,
        known_peers: KnownPeers,
        links: LinkView,
        time: CommonTime,
        loop: EventLoop,
        founders: Callable[[], Mapping[NodeId, ListenAddress]],
    ) -> None:
        """`founders`: the nodes that found a cluster with this one; none if it founds none."""
        self._name, self._boot = life.identity.node, life.identity.boot
        self._past = life.lives
        self._config = config
        self._registry = registry
        self._metadata = metadata
        self._known_peers = known_peers
        self._links = links
        self._time = time
        self._loop = loop
        self._founders = founders
        self._is_heard = asyncio.Event()
        """Set when something has changed by which it may go on."""
        self._waiting: Timer
        """Until it says that it still waits."""
        self.is_over = False
        """True if what is known of the nodes here is not older than this life."""

    async def enter(self) -> None:
        """Return once all know that this node is here, and what they know is applied here."""
        self._waiting = self._loop.call_later(FIRST_S, self._say_that_it_waits)
        try:
            await self._entered()
            await completion_of(self._time.when_known)  # by a wrong clock no queue is led
        finally:
            self._waiting.cancel()
        self.is_over = True

    async def _entered(self) -> None:
        registry, is_heard = self._registry, self._is_heard
        registry.listeners.append(is_heard.set)
        try:
            while not self._is_entered:
                is_heard.clear()
                if self._may_propose:
                    await self._propose()
                else:
                    await is_heard.wait()
        finally:
            registry.listeners.remove(is_heard.set)

    def look_again(self) -> None:
        """This node has begun to found a cluster, or to join one."""
        self._is_heard.set()

    @property
    def _known(self) -> RegisteredNode | None:
        """How all know this node, as far as that is applied here."""
        return self._registry.entries.get(self._name)

    @property
    def _is_entered(self) -> bool:
        known = self._known
        return known is not None and Boot(known.boot, known.nonce) == self._boot

    @property
    def _may_propose(self) -> bool:
        """True if there is something to propose; else what is known here has to change first."""
        if not self._registry.entries:
            return self._name in self._founders()
        known = self._known
        return known is not None and self._remembers(known)

    def _remembers(self, known: RegisteredNode) -> bool:
        """True if this disk is the one of the node that all know: later lives may have gone on."""
        return known.boot == 0 or self._past.remember(Boot(known.boot, known.nonce))

    async def _propose(self) -> None:
        """Propose this boot; if that is not in time, it is tried again."""

        def ask(answer: Callable[[BrokerError | None], None]) -> None:
            self._metadata.change(self._decide, lambda: answer(None), answer)

        error = await answer_of(ask)
        if error is not None:
            event(logger, logging.WARNING, "join_delayed", reason=error.explanation)

    def _decide(self) -> Change:
        """Found the cluster, unless a node has; else say in which life this node is."""
        nodes = self._registry.entries
        founding = found(nodes, self._founders())
        if not founding.changes_nothing:
            return founding
        return enter(nodes, self._name, self._boot.count, self._boot.nonce)

    def _say_that_it_waits(self) -> None:
        log_join_status(self.awaited)
        self._waiting = self._loop.call_later(AGAIN_S, self._say_that_it_waits)

    @property
    def awaited(self) -> JoinStatus:
        """Status of joining, with the nodes awaited, until the node has joined."""
        known = self._known
        is_remembered = known is None or self._remembers(known)
        return join_status_of(
            self._name,
            {*self._config.peers, *self._known_peers.known} - {self._name},
            self._links,
            is_let_in=known is not None or self._config.admit or self._name in self._config.peers,
            forgotten_start=0 if is_remembered or known is None else known.boot,
        )


@dataclass(slots=True, eq=False)
class Admission:
    """The nodes that this one lets in, one change of the registry each."""

    _registry: NodeRegistry
    _metadata: Metadata
    _what_is_left: Callable[[NodeId], bool]
    """True if a former node of a name still counts anywhere."""
    _chance: Chance
    """Draws the ids of nodes: see `RegisteredNode.id`."""
    _going: set[NodeId] = field(default_factory=set, init=False)
    """The nodes whose change has been asked for, and has no outcome yet."""
    _refused: dict[NodeId, str] = field(default_factory=dict, init=False)
    """Why it was not done, as it was logged last."""

    def admit(self, node: NodeId, address: ListenAddress) -> None:
        """Have it let in; it asks again if that comes to nothing."""
        if node in self._going:
            return
        self._going.add(node)

        def done() -> None:
            self._going.discard(node)
            if node in self._registry.entries:
                self._refused.pop(node, None)
                event(logger, logging.INFO, "node_admitted", node=node, address=address)

        def failed(error: BrokerError) -> None:
            self._going.discard(node)
            if self._refused.get(node) != error.explanation:
                self._refused[node] = error.explanation
                event(
                    logger, logging.WARNING, "node_not_admitted", node=node, address=address,
                    reason=error.explanation,
                )  # fmt: skip

        self._metadata.change(lambda: self._decide(node, address), done, failed)

    def _decide(self, node: NodeId, address: ListenAddress) -> Change:
        """Several may be asked by one node at once."""
        nodes = self._registry.entries
        if node in nodes:
            return NOTHING
        if self._what_is_left(node):
            raise PreconditionFailed(f"what is left of a former node '{node}' is being removed")
        return admit(nodes, node, address, 1 + self._chance.randrange((1 << ID_BITS) - 1))
