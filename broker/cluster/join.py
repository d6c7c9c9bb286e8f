"""How a node comes to be one of several: all know in which life it is, and it knows what they do.

no node is known yet            --> whoever is to found the cluster has all founders known
this node is known, remembered  --> its life is put there
else                            --> others have to let it in first: it waits, and says so
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from fluffle.broker.base.clock import EventLoop, Timer
from fluffle.broker.base.coroutines import answer_of, completion_of
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.boots import BootRecord
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.links.identity import Boot
from fluffle.broker.cluster.links.refusals import LinkFailure
from fluffle.broker.config.config import ClusterConfig, ListenAddress
from fluffle.broker.durability.definitions.known_peers import KnownPeers
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.metadata.nodes import NodeRegistry, RegisteredNode, enter, found
from fluffle.raft.config import NodeId

FIRST_S = 2.0
"""Who waits for the others says so after this, …"""
AGAIN_S = 10.0
"""… and again each time this has passed."""


class LinkView(Protocol):
    """View of the links to other nodes: see `ClusterLinks`."""

    @property
    def dialled_by(self) -> Collection[NodeId]: ...
    def is_up(self, node: NodeId) -> bool: ...
    def hindrance(self, node: NodeId) -> LinkFailure | None: ...


class JoinStatus(NamedTuple):
    """The other nodes that are known, and what an operator can do."""

    linked: list[NodeId]
    """Those to which there is a link."""
    of: list[NodeId]
    hindered: list[str]
    """Why there is none to others, as far as somebody has refused it."""
    advice: str


def join_status_of(
    name: NodeId,
    others: Iterable[NodeId],
    sight: LinkView,
    *,
    is_let_in: bool,
    forgotten_start: int,
) -> JoinStatus:
    """`is_let_in`: as far as this node knows.  `forgotten_start`: of this node, as the cluster has
    seen and its disk does not know; 0 if there is none."""
    of = sorted(others)
    linked = [node for node in of if sight.is_up(node)]
    refused = [why for node in of if (why := sight.hindrance(node)) is not None and why.advice]
    advices = dict.fromkeys(why.advice for why in refused if why.advice)
    unheard = [node for node in linked if node not in sight.dialled_by]
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


logger = logging.getLogger(__name__)


class ClusterJoin:
    """The join of one node to its cluster, done once."""

    __slots__ = (
        "_boot", "_config", "_founders", "_is_heard", "_known_peers", "_links", "_loop",
        "_metadata", "_name", "_past", "_registry", "_time", "_waiting", "is_over",
    )  # fmt: skip

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
        """Something has changed by which it may go on."""
        self._waiting: Timer
        """Until it says that it still waits."""
        self.is_over = False
        """Whether what is known of the nodes here is not older than this life."""

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
        """Whether there is something to propose; else what is known here has to change first."""
        if not self._registry.entries:
            return self._name in self._founders()
        known = self._known
        return known is not None and self._remembers(known)

    def _remembers(self, known: RegisteredNode) -> bool:
        """Whether this disk is the one of the node that all know: later lives may have gone on."""
        return known.boot == 0 or self._past.remember(Boot(known.boot, known.nonce))

    async def _propose(self) -> None:
        """Have it known; if that cannot be in time, it is for whoever tries again to see."""

        def ask(answer: Callable[[BrokerError | None], None]) -> None:
            self._metadata.change(self._decide, lambda: answer(None), answer)

        error = await answer_of(ask)
        if error is not None:
            event(logger, logging.WARNING, "join_delayed", reason=error.explanation)

    def _decide(self) -> Change:
        """Found the cluster, unless somebody has; else say in which life this node is."""
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
        """For whom it waits, as long as it has not entered."""
        known = self._known
        is_remembered = known is None or self._remembers(known)
        return join_status_of(
            self._name,
            {*self._config.peers, *self._known_peers.known} - {self._name},
            self._links,
            is_let_in=known is not None or self._config.admit or self._name in self._config.peers,
            forgotten_start=0 if is_remembered or known is None else known.boot,
        )
