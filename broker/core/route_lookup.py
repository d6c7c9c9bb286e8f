"""Route lookup: where the messages of a session go, remembered by a key of its protocol.

A hot file.  A key is what says an exchange, a routing key and whether messages are mandatory, as it
came: of AMQP the basic.publish frame.  It does not say it all where messages have more routing
keys, or an exchange on their way looks at properties, throws dice, or keeps what has come recently.

Permission costs nothing more than once a route: when the user's rights change, the session forgets
its routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple, Protocol, TypeVar

from fluffle.broker.access.rights import Rights
from fluffle.broker.base.delayed_queues import is_delayed_queue
from fluffle.broker.base.message import Origin
from fluffle.broker.core.direct_reply_to import PREFIX, ReplyTargets
from fluffle.broker.core.property_facts import PropertyFacts
from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.broker.routing.recent_history import HistoryMessage, MessageHistory
from fluffle.broker.routing.router import KEYS_SUFFICE, RouteInputs
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import Properties, decode_properties_in_steps
from fluffle.protocol.steps import Steps

REMEMBERED_MAX = 1024
"""Routes a session remembers; beyond, it starts afresh.  Each is as long as its key."""

PATIENCE = 8
"""So many stops the searches for the routes of a batch may make before they are too long."""

T = TypeVar("T")


class LookupTooLong(Exception):
    """The search takes too long to be done at once; nothing has been done with the batch yet."""


class RouteDependency(Protocol):
    """Source of the epoch that a route depends on: the queues, or the topology."""

    epoch: int


class Route(NamedTuple):
    """Route of one message: the targets and histories that it goes to."""

    targets: tuple[PublishTarget, ...]
    histories: tuple[MessageHistory, ...]
    """Exchanges that keep the message, for those who bind later."""
    misses: bool
    """Whether that rests on something not being there."""


class CachedRoute:
    """Route of the messages that have the same key, valid while nothing changes."""

    __slots__ = (
        "epoch",
        "ground",
        "guards_topics",
        "is_admitted",
        "mandatory",
        "misses",
        "needs",
        "origin",
        "targets",
    )

    def __init__(
        self,
        origin: Origin,
        targets: tuple[PublishTarget, ...],
        ground: RouteDependency,
        *,
        mandatory: bool,
    ) -> None:
        self.origin = origin
        self.targets = targets
        """Where messages go that have no keys in CC or BCC, if keys are all that is needed."""
        self.ground = ground
        """Source of the epoch: the route is used only while that has not changed."""
        self.epoch = ground.epoch
        self.mandatory = mandatory
        self.misses = False
        """Whether `targets` rest on something not being there: see `router.Route.misses`."""
        self.needs: RouteInputs | None = None
        """Inputs that routing needs besides keys; if there are any, `targets` is not used."""
        self.guards_topics = False
        """Whether each routing key needs a permission."""
        self.is_admitted = True
        """Whether its own routing key has it, or needs none."""


class RouteCache:
    """Routes of one session by key, and the search for those that it does not have."""

    __slots__ = ("_replies", "_rights", "_vhost", "by_key", "found_count", "patience")

    def __init__(self, vhost: VirtualHost, rights: Rights, replies: ReplyTargets) -> None:
        self._vhost = vhost
        self._rights = rights
        self._replies = replies
        self.by_key: dict[bytes, CachedRoute] = {}
        """Until the user's rights change: then it is another one."""
        self.found_count = 0
        """Number of searches: a client can cause thousands in one read.  0 until it publishes."""
        self.patience = 0
        """Stops that the searches for the routes of a batch may still make."""

    def clear(self) -> None:
        """Remember none; a route that is being searched for is not remembered either."""
        self.by_key = {}

    def run_at_once(self, steps: Steps[T]) -> T:
        """Return the result of steps; LookupTooLong if they stop more often than is left."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: T = end.value
                return found
            self.patience -= 1
            if self.patience < 0:
                raise LookupTooLong

    def search(
        self, key: bytes | None, exchange: str, routing_key: str, *, mandatory: bool
    ) -> Steps[CachedRoute]:
        """Find where messages go, and remember it under `key`, if there is one.

        Raises NotFound and AccessRefused for the exchange.
        """
        vhost, by_key = self._vhost, self.by_key
        self._rights.check("write", "exchange", exchange)
        is_topic = vhost.router.publishable(exchange).type == "topic"
        ground: RouteDependency = vhost.topology if exchange else vhost
        epoch = ground.epoch
        found = yield from self.lookup(exchange, (routing_key,), None)
        origin = vhost.origin(exchange, routing_key)
        route = CachedRoute(origin, found.targets, ground, mandatory=mandatory)
        route.misses, route.epoch = found.misses, epoch
        needs = vhost.router.needs(exchange)
        route.needs = needs if needs != KEYS_SUFFICE else None
        route.guards_topics = is_topic and self._rights.guards_topics(exchange)
        route.is_admitted = not route.guards_topics
        if key is not None and by_key is self.by_key:
            if len(by_key) >= REMEMBERED_MAX:
                by_key.clear()
            by_key[key] = route
        return route

    def admit(self, route: CachedRoute) -> None:
        """Ask once whether the routing key of a route may be used.  Raises AccessRefused if not."""
        self._rights.check_topic("write", route.origin.exchange, route.origin.routing_key)
        route.is_admitted = True

    def lookup_each(
        self, route: CachedRoute, facts: PropertyFacts, outline: bytes, count: int
    ) -> Steps[list[Route]]:
        """Where `count` messages go that the route alone does not say: all of them, or each.

        AccessRefused for a routing key.
        """
        exchange = route.origin.exchange
        if route.guards_topics:
            for key in facts.more_routing_keys:
                self._rights.check_topic("write", exchange, key)
        keys = (route.origin.routing_key, *facts.more_routing_keys)
        needs = route.needs or KEYS_SUFFICE
        properties = None
        if needs.property_bindings:
            properties = facts.properties or (yield from decode_properties_in_steps(outline))
        routes: list[Route] = []
        for _ in range(count if needs.is_drawn else 1):
            found = yield from self.lookup(exchange, keys, properties)
            routes.append(found)
        return routes

    def lookup(
        self, exchange: str, routing_keys: Sequence[str], properties: Properties | None
    ) -> Steps[Route]:
        """Where messages go; the default exchange also leads to requesters."""
        found = yield from self._vhost.route_in_steps(exchange, routing_keys, properties)
        queues, histories, misses = found
        if exchange:
            return Route(queues, histories, misses)
        names = dict.fromkeys(key for key in routing_keys if key.startswith(PREFIX))
        misses = len(queues) + len(names) < len(set(routing_keys))
        return Route((*queues, *map(self._replies.target, names)), (), misses)


def rest_on_absence(route: CachedRoute, routes: Sequence[Route]) -> bool:
    """Whether it rests on something not being there where messages go."""
    return any(each.misses for each in routes) if routes else route.misses


def all_delayed(routes: Sequence[Route]) -> bool:
    """Whether messages go nowhere yet but to wait: they still need the keys of BCC."""
    targets = [target for each in routes for target in each.targets]
    return bool(targets) and all(is_delayed_queue(target.name) for target in targets)


def keep_in_histories(
    origin: Origin, facts: PropertyFacts, contents: list[bytes], routes: Sequence[Route]
) -> None:
    """Have exchanges on the way keep messages; `routes` are those of each, or of all."""
    more, persistent = facts.more_routing_keys, facts.persistent
    for content, each in zip(contents, cycle(routes), strict=False):
        for history in each.histories:
            history.keep(HistoryMessage(origin, content, more, persistent))
