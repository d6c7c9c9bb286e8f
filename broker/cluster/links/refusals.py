"""Why there is no link is logged once, however often it is tried."""

import logging

from fluffle.broker.cluster.links.identity import ADVICE, Refused
from fluffle.broker.logs import event

WHO_MAX = 256
"""Strangers who are remembered; one more, and the one who came first is forgotten."""

logger = logging.getLogger(__name__)


class Refusals:
    """What was logged last of each node that we dial, and of each host that dials us."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def log(self, who: str, reason: str, refused: Refused | None) -> None:
        """There is no link with it; `refused` if a hello or a certificate is to blame."""
        if self._last.get(who) == reason:
            return
        self._last[who] = reason
        if len(self._last) > WHO_MAX:
            del self._last[next(iter(self._last))]
        if refused is None:
            event(logger, logging.WARNING, "link_failed", peer=who, reason=reason)
        else:
            advice = ADVICE[refused.reason]
            event(logger, logging.WARNING, "link_refused", peer=who, reason=reason, advice=advice)

    def forget(self, who: str) -> None:
        """There is a link: what ends it, or hinders the next, is news."""
        self._last.pop(who, None)
