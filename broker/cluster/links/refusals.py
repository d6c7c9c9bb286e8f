"""Why there is no link is logged once, however often it is tried."""

import logging
from typing import NamedTuple

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.links.handshake import Handshake
from fluffle.broker.cluster.links.identity import WRONG_PORT, LinkRefused, Reason
from fluffle.broker.config.config import ListenAddress
from fluffle.raft.config import NodeId

REMEMBERED = (Reason.OLD_BOOT, Reason.FORGOTTEN, Reason.FORMER_NODE, Reason.SECOND_PROCESS)

WHO_MAX = 256
"""Strangers who are remembered; one more, and the one who came first is forgotten."""

logger = logging.getLogger(__name__)


class LinkFailure(NamedTuple):
    """The reason why there is no link to a node, for people."""

    reason: str
    advice: str | None
    """What helps, if a hello or a certificate is to blame."""
    is_remembered: bool = False
    """Whether one of the two was known to the other in a life that its disk does not remember."""


class RefusalLog:
    """The last refusal logged of each node that is dialled, and of each host that dials."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def dialled(
        self, node: NodeId, address: ListenAddress, reason: str, refused: LinkRefused | None
    ) -> None:
        """There is no link to it; `refused` if a hello or a certificate is to blame."""
        advice = None if refused is None else advice_to_dialler(refused)
        if self._is_news(node, reason):
            event(
                logger, *heading(refused), peer=node, address=address, reason=reason, advice=advice
            )

    def accepted(
        self, host: str, reason: str, refused: LinkRefused | None, stranger: Handshake | None
    ) -> None:
        """There is no link from it.  Whoever has proved his name is known by that, too."""
        node = claims = None
        if stranger is not None and stranger.is_proved:
            node = stranger.claims
        elif stranger is not None:
            claims = stranger.claims
        if self._is_news(host if node is None else as_node(host, node), reason):
            event(
                logger, *heading(refused), peer=host, node=node, claims=claims, reason=reason,
                advice=None if refused is None else refused.advice,
            )  # fmt: skip

    def _is_news(self, who: str, reason: str) -> bool:
        if self._last.get(who) == reason:
            return False
        self._last[who] = reason
        if len(self._last) > WHO_MAX:
            del self._last[next(iter(self._last))]
        return True

    def forget(self, node: NodeId) -> None:
        """There is a link to it, or it is dialled elsewhere or no more: what hinders the next is
        news."""
        self._last.pop(node, None)

    def let_in(self, host: str, node: NodeId) -> None:
        """There is a link from it: likewise."""
        self._last.pop(host, None)
        self._last.pop(as_node(host, node), None)


def heading(refused: LinkRefused | None) -> tuple[int, str]:
    """How loudly it is said, and what."""
    if refused is None:
        return logging.WARNING, "link_failed"
    if refused.reason is Reason.OTHER_CLUSTER and refused.is_proved:
        return logging.ERROR, "cluster_split"
    return logging.WARNING, "link_refused"


def link_failure(node: NodeId, reason: str, refused: LinkRefused | None) -> LinkFailure:
    """What has come of dialling it; `refused` as `RefusalLog.dialled` has it."""
    if refused is None:
        return LinkFailure(reason, None)
    who = f"refused by {node}" if refused.by_peer else f"{node} is refused"
    is_remembered = refused.reason in REMEMBERED
    return LinkFailure(f"{who}: {refused.what}", advice_to_dialler(refused), is_remembered)


def as_node(host: str, node: NodeId) -> str:
    """Whoever dials from there and has proved that he is that one."""
    return f"{host} {node}"


def advice_to_dialler(refused: LinkRefused) -> str:
    """Who dials may have been told a wrong address."""
    if refused.reason is Reason.NOT_A_HELLO and not refused.by_peer:
        return WRONG_PORT
    return refused.advice
