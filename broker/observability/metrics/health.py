"""GET /health/live and /health/ready: what Kubernetes asks a node.

It lives as long as its loop answers.  It is ready once it has taken up what was there, has entered
its cluster, and takes clients, and as long as nobody has taken it out of service; else 503 says why
not.  Who ends does not answer any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import NamedTuple

from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.observability.metrics.http import Page, Request

JSON = "application/json"
CLIENTS = frozenset({"amqp", "amqps"})


def live(_request: Request) -> Page:
    return page(HTTPStatus.OK, "live", ())


class Readiness(NamedTuple):
    """Reasons why a node is not ready for clients, if there are any."""

    addresses: Mapping[str, object]
    """What it has bound by now: the addresses of its clients come last."""
    company: ClusterView
    is_draining: Callable[[], bool]
    """Whether it has been taken out of service."""

    def page(self, _request: Request) -> Page:
        found = tuple(self._hindrances())
        if found:
            return page(HTTPStatus.SERVICE_UNAVAILABLE, "not ready", found)
        return page(HTTPStatus.OK, "ready", ())

    def _hindrances(self) -> Iterator[str]:
        if self.is_draining():
            yield "it is in maintenance"
        if CLIENTS.isdisjoint(self.addresses):
            yield "it is starting, and takes no clients yet"
            if self.company.cluster is not None:
                links = self.company.cluster.links
                away = sorted(node for node in links.peers if not links.is_up(node))
                yield from (f"there is no link to {node}" for node in away)


def page(status: HTTPStatus, word: str, reasons: tuple[str, ...]) -> Page:
    body = json.dumps({"status": word, "reasons": list(reasons)}) + "\n"
    return Page(JSON, iter((body.encode(),)), status)
