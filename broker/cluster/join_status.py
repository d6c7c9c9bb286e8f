"""Status of a join: the nodes that are missing, and what an operator can do."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.links.refusals import LinkFailure
from fluffle.raft.config import NodeId

FIRST_S = 2.0
"""Who waits for the others says so after this, …"""
AGAIN_S = 10.0
"""… and again each time this has passed."""

logger = logging.getLogger(__name__)


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
