"""Where messages go whose basic.publish frame does not say it all.  A hot file.

They have more routing keys, or an exchange on their way looks at properties, throws dice, or keeps
what has come recently.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, cycle
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fluffle.broker.base.delayed_queues import is_delayed_queue
from fluffle.broker.base.message import Origin
from fluffle.broker.core.direct_reply_to import PREFIX
from fluffle.broker.core.enqueue import RoutedBatch
from fluffle.broker.core.property_facts import PropertyFacts
from fluffle.broker.core.session import Session
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_at
from fluffle.broker.queues.queue_api import PublishTarget
from fluffle.broker.routing.recent_history import HistoryMessage, MessageHistory
from fluffle.broker.routing.router import KEYS_SUFFICE
from fluffle.protocol.events import Publishes
from fluffle.protocol.properties import Properties, decode_properties_in_steps
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.publish_methods import CachedRoute


T = TypeVar("T")


class Route(NamedTuple):
    """Route of one message: the targets and histories that it goes to."""

    targets: tuple[PublishTarget, ...]
    histories: tuple[MessageHistory, ...]
    """What keeps it."""
    misses: bool
    """Whether that rests on something not being there."""


class LookupTooLong(Exception):
    """The search takes too long to be done at once; nothing has been done with the batch yet."""

    batch: Publishes | None = None
    """Set by who knows it."""


def run_at_once(session: Session, steps: Steps[T]) -> T:
    """Return the result of steps; LookupTooLong if they stop more often than the session allows."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        session.patience -= 1
        if session.patience < 0:
            raise LookupTooLong


def lookup_routes(
    session: Session, route: CachedRoute, facts: PropertyFacts, batch: Publishes
) -> Steps[list[Route]]:
    """Where messages go that the route alone does not say: all of them, or each.

    AccessRefused for a routing key.
    """
    exchange = route.origin.exchange
    if route.guards_topics:
        for key in facts.more_routing_keys:
            session.rights.check_topic("write", exchange, key)
    keys = (route.origin.routing_key, *facts.more_routing_keys)
    needs = route.needs or KEYS_SUFFICE
    properties = None
    if needs.property_bindings:
        properties = facts.properties or (yield from decode_properties_in_steps(batch.outline))
    routes: list[Route] = []
    for _ in range(len(batch.methods) if needs.is_drawn else 1):
        found = yield from lookup_route(session, exchange, keys, properties)
        routes.append(found)
    return routes


def lookup_route(
    session: Session, exchange: str, routing_keys: Sequence[str], properties: Properties | None
) -> Steps[Route]:
    """Where messages go; the default exchange also leads to requesters."""
    found = yield from session.vhost.route_in_steps(exchange, routing_keys, properties)
    queues, histories, misses = found
    if exchange:
        return Route(queues, histories, misses)
    names = dict.fromkeys(key for key in routing_keys if key.startswith(PREFIX))
    misses = len(queues) + len(names) < len(set(routing_keys))
    return Route((*queues, *map(session.replies.target, names)), (), misses)


def all_delayed(routes: Sequence[Route]) -> bool:
    """Whether messages go nowhere yet but to wait: they still need the keys that nobody may see."""
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


def batches_by_route(
    origin: Origin,
    contents: list[bytes],
    routes: Sequence[Route],
    lifetimes_ms: Lifetimes,
    *,
    mandatory: bool,
) -> list[RoutedBatch]:
    """Messages of one origin, of which each goes its own way; in every queue they are in order."""
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
                [origin] * len(found),
                taken,
                sum(map(len, taken)),
                places=found,
                mandatory=mandatory,
                expiration_ms=lifetimes_at(lifetimes_ms, found),
            )
        )
    return routed_batches
