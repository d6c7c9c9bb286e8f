"""Policies have changed: queues and exchanges that are there go by what is so now.

Some at a time, for there may be many, and no client is to wait for that.  Each is looked at with
the policies of that moment; if those change meanwhile, all are looked at once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fluffle.broker.runtime.background import Task, in_pieces
from fluffle.broker.vhosts.vhost import VirtualHost

PIECE = 50
"""Queues or exchanges that are looked at in one turn: a millisecond or two, with ten policies."""

SEARCHES = 500
"""Matches of a name against a pattern in one turn: with more than ten policies there are fewer
names."""

Begin = Callable[[Task, Callable[[Exception], None]], object]
"""Runs a task, from the next turn on; the second argument is called with what it raises."""


def piece_for(policies: int) -> int:
    """Return how many queues or exchanges are looked at in one turn."""
    return max(1, min(PIECE, SEARCHES // max(1, policies)))


def renewals(vhost: VirtualHost, piece: int = PIECE) -> Iterator[None]:
    """Look at all of a virtual host, `piece` of them with each step."""
    for queues in in_pieces(tuple(vhost.queues.values()), piece):
        for queue in queues:
            if vhost.has(queue):
                vhost.maker.renew_settings(queue, vhost.name)
        yield None
    for names in in_pieces([exchange.spec.name for exchange in vhost.topology], piece):
        vhost.topology.renew_alternates(names)
        yield None


def renew_at_once(vhost: VirtualHost) -> None:
    """Renew a whole virtual host at once, where no client waits."""
    for _ in renewals(vhost):
        pass


class ImmediateRenewal:
    """Renewal of policies in one step, where no client waits."""

    def renew_policies(self, vhost: VirtualHost) -> None:
        renew_at_once(vhost)


class PolicyRenewal:
    """Renewal of policies, in all virtual hosts of a node."""

    def __init__(self, begin: Begin, count: Callable[[str], int]) -> None:
        """`count`: how many policies there are in a virtual host."""
        self._begin = begin
        self._count = count
        self._due: dict[VirtualHost, None] = {}
        """Virtual hosts to be checked from the beginning."""
        self._is_begun = False
        self._is_open = False

    def renew_policies(self, vhost: VirtualHost) -> None:
        """Policies of it have changed."""
        self._due[vhost] = None
        if self._is_open and not self._is_begun:
            self._is_begun = True
            self._begin(self._go_on(), self._failed)

    def open(self) -> None:
        """Begin to serve: what is due is done at once, since no client has waited until now."""
        self._is_open = True
        due, self._due = self._due, {}
        for vhost in due:
            renew_at_once(vhost)

    def _go_on(self) -> Task:
        while self._due:
            vhost = next(iter(self._due))
            del self._due[vhost]
            for step in renewals(vhost, piece_for(self._count(vhost.name))):
                yield step
                if vhost in self._due:
                    break
        self._is_begun = False

    def _failed(self, _error: Exception) -> None:
        """Note a failure, which has been logged; the next change begins anew."""
        self._is_begun = False
