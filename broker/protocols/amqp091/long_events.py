"""Events that take long: done in steps, so that the others have their turns in between.

Nothing else of the connection is acted on meanwhile, so its order holds.  What has begun is given
up with the channel or the connection that wanted it.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from fluffle.broker.core.enqueue import RoutedBatch, current_target, enqueue_in_steps
from fluffle.broker.core.property_facts import read_facts_in_steps, read_lifetimes
from fluffle.broker.core.route_lookup import Route, lookup_routes
from fluffle.broker.metadata.read_barrier import UnconfirmedAbsence
from fluffle.broker.protocols.amqp091.publish_methods import (
    CachedRoute,
    PutBack,
    admit,
    batches_found,
    count_published,
    messages_at_once,
    part_of,
    parted,
    rest_on_absence,
    runs_of,
    search_route,
    split_for_routing,
)
from fluffle.broker.queues.expiry_times import lifetimes_at
from fluffle.protocol.events import Publishes
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.core.pending_requests import Occurrence
    from fluffle.broker.core.property_facts import PropertyFacts
    from fluffle.broker.core.session import Session
    from fluffle.broker.protocols.amqp091.channel import Channel


class LongEvent:
    """An event that is being acted on."""

    __slots__ = ("channel", "event", "steps")

    def __init__(self, event: Occurrence, channel: Channel | None, steps: Steps[None]) -> None:
        self.event = event
        self.channel = channel
        """The work ends with this channel, if there is one."""
        self.steps = steps

    def go_on(self) -> bool:
        """Do one step; whether there are more."""
        try:
            next(self.steps)
        except StopIteration:
            return False
        return True


def take_in_steps(channel: Channel, batch: Publishes, put_back: PutBack) -> Steps[None]:
    """Take messages as `publishing.take` does, whatever it takes to find where they go.

    Those that do not go together are put back in parts, so that nothing has been done of what turns
    out to be refused, or to be in doubt.
    """
    return take_run(channel, batch, put_back, is_certain=channel.is_certain)


def take_run(
    channel: Channel, run: Publishes, put_back: PutBack, *, is_certain: bool
) -> Steps[None]:
    """The same; `is_certain`: all is known that was defined before they came."""
    session = channel.session
    if len(runs := runs_of(run, repeat(run.outline))) > 1:
        put_back(runs)
        return
    route = yield from route_in_steps(session, run.methods[0])
    if route.needs is not None and (parts := split_for_routing(route.needs, run)):
        put_back(parts)
        return
    facts = session.facts.get(run.outline)
    if facts is None:
        facts = yield from read_facts_in_steps(run.outline)
    lifetimes_ms = read_lifetimes(run.contents) if facts.expires else None
    if isinstance(lifetimes_ms, list) and len(lifetimes_ms) < len(run.methods):
        put_back(parted(run, len(lifetimes_ms)))
        return
    if not route.is_admitted:
        admit(session, route)
    routes = [Route(route.targets, (), route.misses)]
    if facts.more_routing_keys or route.needs is not None:
        routes = yield from lookup_routes(session, route, facts, run)
    if not is_certain and rest_on_absence(route, routes):
        raise UnconfirmedAbsence
    if len(routes) > 1:
        routed_batches = batches_found(
            channel, route, facts, run, routes=routes, lifetimes_ms=lifetimes_ms
        )
        yield from publish_in_steps(channel, routed_batches, facts)
        return
    at_once_max = messages_at_once(routes[0].targets)
    for start in range(0, len(run.methods), at_once_max):
        span = part_of(run, start, start + at_once_max, run.outline)
        stop = start + len(span.methods)
        these_ms = lifetimes_at(lifetimes_ms, range(start, stop))
        routes = [there_now(session, routes[0])]
        routed_batches = batches_found(
            channel, route, facts, span, routes=routes, lifetimes_ms=these_ms
        )
        yield from publish_in_steps(channel, routed_batches, facts)
        yield


def publish_in_steps(
    channel: Channel, routed_batches: list[RoutedBatch], facts: PropertyFacts
) -> Steps[None]:
    """Act as `publish_routed` does: put them into some queues at a time, and answer when all have
    them.

    Should the channel end meanwhile it sees to the rest: a message that is in some of its queues
    gets into all of them.
    """
    count_published(channel, routed_batches, facts)
    if channel.transaction is None:
        channel.putting = enqueue_in_steps(channel, routed_batches, persistent=facts.persistent)
        try:
            for _ in channel.putting:  # not `yield from`: it goes on when this is given up
                yield
        finally:
            channel.putting = None
    if channel.is_open:
        channel.publish(channel, routed_batches, persistent=facts.persistent)


def there_now(session: Session, route: Route) -> Route:
    """Return the same route without queues that have gone while others had their turn."""
    found = (current_target(session.vhost, target) for target in route.targets)
    there = tuple(target for target in found if target is not None)
    return Route(there, route.histories, route.misses)


def route_in_steps(session: Session, method_frame: bytes) -> Steps[CachedRoute]:
    """The route that a basic.publish frame means now."""
    route = session.routes.get(method_frame)
    if route is None or route.epoch != route.ground.epoch:
        route = yield from search_route(session, method_frame)
    return route
