"""Routes of messages: looked up, remembered by a key of the protocol, and what sorts messages.

A hot file.  A key is what says an exchange, a routing key and whether messages are mandatory, as it
came: of AMQP the basic.publish frame.  It does not say it all where messages have more routing
keys, or an exchange on their way looks at properties, throws dice, or keeps what has come recently.

Permission costs nothing more than once a route: when the user's rights change, the session forgets
its routes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, cycle, groupby
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from fluffle.broker.access.access import Rights
from fluffle.broker.base.message import Origin, with_key
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.core.direct_reply_to import PREFIX, ReplyTargets
from fluffle.broker.core.property_facts import PropertyFacts
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_at
from fluffle.broker.queues.publish_target import (
    EnqueueResult,
    PartialResult,
    PublishReceipt,
    PublishTarget,
)
from fluffle.broker.routing.recent_history import HistoryMessage, MessageHistory
from fluffle.broker.routing.router import KEYS_SUFFICE, RouteInputs
from fluffle.broker.vhosts.vhost import TracedBatch, VirtualHost
from fluffle.protocol.properties import Properties, decode_properties_in_steps
from fluffle.protocol.steps import Steps
from fluffle.protocol.wire import cut_to_shortstr, is_shortstr

REMEMBERED_MAX = 1024
"""Routes a session remembers; beyond, it starts afresh.  Each is as long as its key."""

KEY_BYTES_MAX = 1024
"""Routes of longer keys are not remembered.  Those of AMQP are shorter; topics may be as long as
64 KiB."""

LOOKUP_STOPS_MAX = 8
"""Most stops that the searches for the routes of a batch make before they are too long."""

T = TypeVar("T")


class LookupTooLong(Exception):
    """The search takes too long to be done at once; nothing has been done with the batch yet."""


class RouteDependency(Protocol):
    """Source of the epoch that a route depends on: the queues, or the topology."""

    epoch: int


class PublishRoute(NamedTuple):
    """Route of one message: the targets and histories that it goes to."""

    targets: tuple[PublishTarget, ...]
    histories: tuple[MessageHistory, ...]
    """Exchanges that keep the message, for later bindings."""
    misses: bool
    """True if that rests on something not being there."""


class CachedRoute:
    """Route of the messages that have the same key, valid while nothing changes."""

    __slots__ = (
        "dependency",
        "epoch",
        "guards_topics",
        "is_admitted",
        "mandatory",
        "misses",
        "needs",
        "origin",
        "routing_key",
        "targets",
        "topic",
    )

    def __init__(
        self,
        origin: Origin,
        targets: tuple[PublishTarget, ...],
        dependency: RouteDependency,
        *,
        mandatory: bool,
    ) -> None:
        self.origin = origin
        self.routing_key = origin.routing_key
        """The whole key: that of the origin is cut where no AMQP client could be given it."""
        self.topic: str | None = None
        """The topic of the messages, if they have one."""
        self.targets = targets
        """Where messages go that have no keys in CC or BCC, if keys are all that is needed."""
        self.dependency = dependency
        """Source of the epoch: the route is used only while that has not changed."""
        self.epoch = dependency.epoch
        self.mandatory = mandatory
        self.misses = False
        """True if `targets` rest on something not being there: see `router.Route.misses`."""
        self.needs: RouteInputs | None = None
        """Inputs that routing needs besides keys; if there are any, `targets` is not used."""
        self.guards_topics = False
        """True if each routing key needs a permission."""
        self.is_admitted = True
        """True if its own routing key has it, or needs none."""


class RouteCache:
    """Routes of one session by key, and the search for those that it does not have."""

    __slots__ = ("_replies", "_rights", "_vhost", "by_key", "found_count", "stops_left")

    def __init__(self, vhost: VirtualHost, rights: Rights, replies: ReplyTargets) -> None:
        self._vhost = vhost
        self._rights = rights
        self._replies = replies
        self.by_key: dict[bytes, CachedRoute] = {}
        """Until the user's rights change: then it is another one."""
        self.found_count = 0
        """Number of searches: a client can cause thousands in one read.  0 until it publishes."""
        self.stops_left = 0
        """Stops that the searches for the routes of a batch may still make."""

    def clear(self) -> None:
        """Remember none; a route that is being searched for is not remembered either."""
        self.by_key = {}

    def current(self, key: bytes) -> CachedRoute | None:
        """Return the remembered route of a key, if it is still valid."""
        route = self.by_key.get(key)
        return None if route is None or route.epoch != route.dependency.epoch else route

    def find(
        self, key: bytes, search: Callable[[RouteCache, bytes], Steps[CachedRoute]]
    ) -> CachedRoute:
        """Return the route of a key, which `search` finds if it is not remembered, or not valid.

        Raises as `search`, and LookupTooLong.
        """
        route = self.by_key.get(key)
        if route is None or route.epoch != route.dependency.epoch:
            route = self.run_at_once(search(self, key))
        return route

    def run_at_once(self, steps: Steps[T]) -> T:
        """Return the result of steps; LookupTooLong if they stop more often than is left."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: T = end.value
                return found
            self.stops_left -= 1
            if self.stops_left < 0:
                raise LookupTooLong

    def search(
        self,
        key: bytes | None,
        exchange: str,
        routing_key: str,
        *,
        mandatory: bool,
        topic: str | None = None,
        annotations: bytes = b"",
    ) -> Steps[CachedRoute]:
        """Find where messages go that have these annotations, and remember it under `key`, if there
        is one.

        Those that have a `topic` have its translation as their routing key, of any length: one that
        is longer than those of AMQP leads to bindings with topic filters alone.

        Raises NotFound and AccessRefused for the exchange.
        """
        self.found_count += 1
        vhost, by_key = self._vhost, self.by_key
        self._rights.check("write", "exchange", exchange)
        is_topic = vhost.router.publishable(exchange).type == "topic"
        dependency: RouteDependency = vhost.topology if exchange else vhost
        epoch = dependency.epoch
        keys: tuple[str, ...] = (routing_key,)
        shown_key = routing_key
        if topic is not None and not is_shortstr(routing_key):
            shown_key, keys = cut_to_shortstr(routing_key), ()
        found = yield from self.lookup(exchange, keys, None, topic)
        origin = vhost.origin(exchange, shown_key, annotations=annotations)
        route = CachedRoute(origin, found.targets, dependency, mandatory=mandatory)
        route.routing_key, route.topic = routing_key, topic
        route.misses, route.epoch = found.misses, epoch
        needs = vhost.router.needs(exchange)
        route.needs = needs if needs != KEYS_SUFFICE else None
        route.guards_topics = is_topic and self._rights.guards_topics(exchange)
        route.is_admitted = not route.guards_topics
        if key is not None and len(key) <= KEY_BYTES_MAX and by_key is self.by_key:
            if len(by_key) >= REMEMBERED_MAX:
                by_key.clear()
            by_key[key] = route
        return route

    def admit(self, route: CachedRoute) -> None:
        """Ask once whether the routing key of a route may be used.  Raises AccessRefused if not."""
        self._rights.check_topic("write", route.origin.exchange, route.routing_key)
        route.is_admitted = True

    def lookup_each(
        self, route: CachedRoute, facts: PropertyFacts, outline: bytes, count: int
    ) -> Steps[list[PublishRoute]]:
        """Where `count` messages go that the route alone does not say: all of them, or each.

        AccessRefused for a routing key.
        """
        exchange = route.origin.exchange
        if route.guards_topics:
            for key in facts.more_routing_keys:
                self._rights.check_topic("write", exchange, key)
        is_long = route.routing_key != route.origin.routing_key
        own_keys = () if is_long else (route.routing_key,)
        keys = (*own_keys, *facts.more_routing_keys)
        needs = route.needs or KEYS_SUFFICE
        properties = None
        if needs.property_bindings:
            properties = facts.properties or (yield from decode_properties_in_steps(outline))
        routes: list[PublishRoute] = []
        for _ in range(count if needs.is_drawn else 1):
            found = yield from self.lookup(exchange, keys, properties, route.topic)
            routes.append(found)
        return routes

    def lookup(
        self,
        exchange: str,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Steps[PublishRoute]:
        """Where messages go; the default exchange also leads to requesters."""
        found = yield from self._vhost.route_in_steps(exchange, routing_keys, properties, topic)
        queues, histories, misses = found
        if exchange:
            return PublishRoute(queues, histories, misses)
        names = dict.fromkeys(key for key in routing_keys if key.startswith(PREFIX))
        misses = len(queues) + len(names) < len(set(routing_keys))
        return PublishRoute((*queues, *map(self._replies.target, names)), (), misses)


def rest_on_absence(route: CachedRoute, routes: Sequence[PublishRoute]) -> bool:
    """True if it rests on something not being there where messages go."""
    return any(each.misses for each in routes) if routes else route.misses


def all_delayed(routes: Sequence[PublishRoute]) -> bool:
    """True if messages go nowhere yet but to wait: they still need the keys of BCC."""
    targets = [target for each in routes for target in each.targets]
    return bool(targets) and all(is_delayed_queue(target.name) for target in targets)


def keep_in_histories(
    origin: Origin, facts: PropertyFacts, contents: list[bytes], routes: Sequence[PublishRoute]
) -> None:
    """Have exchanges on the way keep messages; `routes` are those of each, or of all."""
    more, persistent = facts.more_routing_keys, facts.persistent
    for content, each in zip(contents, cycle(routes), strict=False):
        for history in each.histories:
            history.keep(HistoryMessage(origin, content, more, persistent))


# Messages sorted by their routes


class PendingEnqueue:
    """Messages of a routed batch that not all of their queues have taken, or not yet."""

    __slots__ = ("is_recorded", "receipts")

    def __init__(
        self, receipts: list[PublishReceipt | PartialResult], *, is_recorded: bool
    ) -> None:
        self.receipts = receipts
        """At least one."""
        self.is_recorded = is_recorded
        """True if they must be safe here, too."""


Answer: TypeAlias = EnqueueResult | PendingEnqueue
"""Answer of all queues of a routed batch together."""


class RoutedBatch:
    """Messages of one batch that go to the same queues, in order."""

    __slots__ = (
        "answer", "content_bytes", "contents", "expiration_ms", "mandatory", "origins", "places",
        "retained_target", "targets", "targets_left",
    )  # fmt: skip

    def __init__(
        self,
        targets: tuple[PublishTarget, ...],
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        places: Sequence[int],
        mandatory: bool,
        expiration_ms: Lifetimes,
    ) -> None:
        self.targets = self.targets_left = targets
        """And `targets_left`: those into which it has not been put yet."""
        self.answer: Answer = EnqueueResult.ACCEPTED
        """The answer of the other queues, together."""
        self.retained_target: PublishTarget | None = None
        """Where the messages are retained, if they are."""
        self.origins = origins
        self.contents = contents
        self.content_bytes = content_bytes
        """The summed length of `contents`."""
        self.places = places
        """Where each message stands among those that are published together."""
        self.mandatory = mandatory
        self.expiration_ms = expiration_ms
        """Times for which they may wait in a queue, if their properties say so."""


def are_apart(routes: Collection[CachedRoute]) -> bool:
    """True if each queue is in the targets of like routes only, and nothing else is to be asked.

    Then messages may be sorted by their targets, and those of each queue stay in order.
    """
    kinds = {route.targets for route in routes}
    return len(set(chain.from_iterable(kinds))) == sum(map(len, kinds)) and not any(
        route.needs is not None for route in routes
    )


def batches_by_key(
    keys: Sequence[bytes],
    contents: Sequence[bytes],
    routes: Mapping[bytes, CachedRoute],
    lifetimes_ms: Lifetimes,
) -> list[RoutedBatch]:
    """The messages in front of the first whose route is not there, by where they go."""
    places: dict[object, list[int]] = {}
    add_place: dict[bytes, Callable[[int], None]] = {}
    for key, route in routes.items():
        add_place[key] = places.setdefault(route.targets or route.mandatory, []).append
    for place, key in enumerate(keys):
        if key not in add_place:
            break
        add_place[key](place)
    routed_batches = []
    for found in places.values():
        of_each = [routes[key] for key in map(keys.__getitem__, found)]
        taken = list(map(contents.__getitem__, found))
        routed_batches.append(
            RoutedBatch(
                of_each[0].targets,
                [route.origin for route in of_each],
                taken,
                sum(map(len, taken)),
                places=found,
                mandatory=of_each[0].mandatory,
                expiration_ms=lifetimes_at(lifetimes_ms, found),
            )
        )
    return routed_batches


def keyed_origins(origin: Origin, keys: Sequence[bytes]) -> list[Origin]:
    """Return the origin of each message, with its key."""
    return [
        Origin(
            origin.exchange,
            origin.routing_key,
            origin.past,
            origin.blind_keys,
            with_key(origin.annotations, key),
        )
        for key in keys
    ]


def batches_by_route(
    origins: list[Origin],
    contents: list[bytes],
    routes: Sequence[PublishRoute],
    lifetimes_ms: Lifetimes,
    *,
    mandatory: bool,
) -> list[RoutedBatch]:
    """Messages of which each goes its own way; in every queue they are in order."""
    places: dict[object, list[int]] = {}
    kinds = {each.targets for each in routes}
    are_apart = len(set(chain.from_iterable(kinds))) == sum(map(len, kinds))
    for place, each in enumerate(routes):
        places.setdefault(each.targets if are_apart else place, []).append(place)
    routed_batches = []
    for found in places.values():
        taken = [contents[place] for place in found]
        routed_batches.append(
            RoutedBatch(
                routes[found[0]].targets,
                [origins[place] for place in found],
                taken,
                sum(map(len, taken)),
                places=found,
                mandatory=mandatory,
                expiration_ms=lifetimes_at(lifetimes_ms, found),
            )
        )
    return routed_batches


def runs_in_order(routed_batches: Sequence[RoutedBatch]) -> list[tuple[int, int]]:
    """Return which batch messages are in, in the order in which they came, and how many follow each
    other."""
    if len(routed_batches) == 1:
        return [(0, len(routed_batches[0].contents))]
    places = sorted(
        (place, at) for at, routed in enumerate(routed_batches) for place in routed.places
    )
    return [(at, sum(1 for _ in same)) for at, same in groupby(map(itemgetter(1), places))]


def in_order(routed_batches: Sequence[TracedBatch]) -> list[tuple[Origin, bytes, TracedBatch]]:
    """Messages as they were published, each with the batch that it is in."""
    placed = [
        (place, origin, content, routed)
        for routed in routed_batches
        for place, origin, content in zip(
            routed.places, routed.origins, routed.contents, strict=True
        )
    ]
    placed.sort(key=itemgetter(0))
    return [(origin, content, routed) for _place, origin, content, routed in placed]
