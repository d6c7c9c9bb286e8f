"""basic.publish and confirm.select: what came, and where it goes.  A hot file.

A batch is sorted by where its messages go, so that each queue is asked once: a basic.publish frame
is looked up, checked and routed once however many messages came with it.  The order of the checks:
write permission, exchange, internal, expiration, CC and BCC, topic permission, reply-to, user-id,
route.  Permission costs nothing more than once a route: when the user's rights change, the session
forgets its routes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain, groupby, repeat
from typing import TYPE_CHECKING, Protocol, TypeAlias

from fluffle.broker.base.errors import BrokerError, NotImplementedHere, PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.enqueue import TARGETS_AT_ONCE, RoutedBatch, publish_confirmed
from fluffle.broker.core.property_facts import (
    PropertyFacts,
    read_facts,
    read_lifetimes,
    with_reply_to,
)
from fluffle.broker.core.route_lookup import (
    LookupTooLong,
    Route,
    all_delayed,
    batches_by_route,
    keep_in_histories,
    lookup_route,
    lookup_routes,
    run_at_once,
)
from fluffle.broker.core.session import (
    REMEMBERED_MAX,
    REMEMBERED_PROPERTIES_BYTES_MAX,
    REMEMBERED_PROPERTIES_MAX,
    Session,
)
from fluffle.broker.metadata.read_barrier import UnconfirmedAbsence
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_at
from fluffle.broker.queues.queue_api import PublishTarget
from fluffle.broker.routing.router import KEYS_SUFFICE, RouteInputs
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.events import Publishes
from fluffle.protocol.methods import Basic, Confirm, Method, decode_method, make
from fluffle.protocol.properties import (
    OUTLINED_BYTES_MAX,
    raw_properties,
    replace_properties,
)
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel

PROPERTY_BINDINGS_PER_COST = 8
"""So many bindings are asked about properties in the time in which a queue takes a run."""

ROUTE_COST = 8
"""A route is found in the time in which some queues take a run."""

KINDS_MAX = 256
"""So many basic.publish frames that differ are looked up together, for a few milliseconds."""

COPIES_MAX = 8192
"""Into so many places in queues messages are put together, for a millisecond or two."""

DRAWN_MAX = 256
"""So many messages are routed at random together, for a few milliseconds."""

PATIENCE = 8
"""So many stops the searches for the routes of a batch may make before they are too long."""

METHOD_AT = 7
"""Where the payload of a method frame begins."""


PutBack: TypeAlias = Callable[[list[Publishes]], None]
"""Has batches taken next, one by one."""


class RouteDependency(Protocol):
    """Source of the epoch that a route depends on: the queues, or the topology."""

    epoch: int


class CachedRoute:
    """Route of a basic.publish frame, valid while nothing changes."""

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
        """What the route stands on: it is used only while that has not changed."""
        self.epoch = ground.epoch
        self.mandatory = mandatory
        self.misses = False
        """Whether `targets` rest on something not being there: see `router.Route.misses`."""
        self.needs: RouteInputs | None = None
        """What it takes besides keys; if it takes anything, `targets` says nothing."""
        self.guards_topics = False
        """Whether each routing key needs a permission."""
        self.is_admitted = True
        """Whether its own routing key has it, or needs none."""


def on_publishes(channel: Channel, batch: Publishes, put_back: PutBack) -> int:
    """Take a batch of messages; return its cost: for each routed batch, its queues, and new routes.

    One that cannot be sorted, or has too much in it for one turn, is put back in parts.
    LookupTooLong for one that `take_in_steps` must take.
    """
    session = channel.session
    found, session.patience = session.routes_found, PATIENCE
    try:
        cost = take(channel, batch, put_back)
    except LookupTooLong as too_long:
        too_long.batch = batch
        raise
    return cost + ROUTE_COST * (session.routes_found - found)


def take(channel: Channel, batch: Publishes, put_back: PutBack) -> int:
    """As `on_publishes`, new routes not counted."""
    session = channel.session
    methods = batch.methods
    route = find_route(session, methods[0])
    facts = session.facts.get(batch.outline)
    if facts is None:
        if len(batch.outline) > OUTLINED_BYTES_MAX:
            raise LookupTooLong
        facts = remember_facts(session, batch.outline)
    lifetimes_ms = read_lifetimes(batch.contents) if facts.expires else None
    if isinstance(lifetimes_ms, list) and len(lifetimes_ms) < len(methods):
        put_back(parted(batch, len(lifetimes_ms)))
        return 1
    if methods.count(methods[0]) == len(methods):
        if route.needs is not None and (parts := split_for_routing(route.needs, batch)):
            put_back(parts)
            return 1
        if len(methods) * len(route.targets) > COPIES_MAX and len(methods) > 1:
            put_back(spans_of(batch, messages_at_once(route.targets)))
            return 1
        return publish_run(channel, route, facts, batch, lifetimes_ms)
    kinds = dict.fromkeys(methods)
    if len(kinds) > KINDS_MAX:
        put_back(spans_of(batch, KINDS_MAX))
        return 1
    routes, refusal = find_routes(session, kinds)
    if not channel.is_certain and (refusal or any(route.misses for route in routes.values())):
        raise UnconfirmedAbsence
    if facts.is_special or facts.more_routing_keys or not are_apart(routes.values()):
        put_back(runs_of(batch, repeat(batch.outline)))
        return 1
    routed_batches = group_by_targets(batch, routes, lifetimes_ms)
    if exceed_one_step(routed_batches):
        put_back(runs_of(batch, repeat(batch.outline)))
        return 1
    if routed_batches:
        publish_routed(channel, routed_batches, facts)
    if refusal is not None:
        raise refusal
    return sum(1 + len(routed.targets) for routed in routed_batches)


def publish_run(
    channel: Channel,
    route: CachedRoute,
    facts: PropertyFacts,
    batch: Publishes,
    lifetimes_ms: Lifetimes,
) -> int:
    """Take messages that came with the same basic.publish frame."""
    if not route.is_admitted:
        admit(channel.session, route)
    routes: Sequence[Route] = ()
    if facts.more_routing_keys or route.needs is not None:
        routes = run_at_once(channel.session, lookup_routes(channel.session, route, facts, batch))
    if not channel.is_certain and rest_on_absence(route, routes):
        raise UnconfirmedAbsence
    is_too_much = exceed_one_step(routes) if routes else len(route.targets) > TARGETS_AT_ONCE
    if is_too_much and channel.transaction is None:
        raise LookupTooLong
    routed_batches = batches_found(
        channel, route, facts, batch, routes=routes, lifetimes_ms=lifetimes_ms
    )
    publish_routed(channel, routed_batches, facts)
    if len(routes) > 1:
        return 1 + ROUTE_COST * len(routes)
    property_bindings = route.needs.property_bindings if route.needs is not None else 0
    return 1 + len(routed_batches[0].targets) + property_bindings // PROPERTY_BINDINGS_PER_COST


def exceed_one_step(routes: Iterable[CachedRoute | Route | RoutedBatch]) -> bool:
    """Whether messages go to too many queues to be put into all of them at once."""
    return sum(len(each.targets) for each in routes) > TARGETS_AT_ONCE


def rest_on_absence(route: CachedRoute, routes: Sequence[Route]) -> bool:
    """Whether it rests on something not being there where messages go."""
    return any(each.misses for each in routes) if routes else route.misses


def batches_found(
    channel: Channel,
    route: CachedRoute,
    facts: PropertyFacts,
    batch: Publishes,
    *,
    routes: Sequence[Route],
    lifetimes_ms: Lifetimes,
) -> list[RoutedBatch]:
    """Sort messages into batches by their queues; no `routes` if the cached one says it."""
    contents, content_bytes = batch.contents, batch.content_bytes
    if facts.is_special:
        raw = facts.stored
        if raw is None or (routes and all_delayed(routes)):
            raw = batch.outline
        contents = prepare(channel, facts, raw, contents)
        content_bytes = sum(map(len, contents))
    origin = route.origin
    if facts.blind_keys:
        origin = Origin(origin.exchange, origin.routing_key, blind_keys=facts.blind_keys)
    if route.needs is not None and route.needs.is_kept:
        keep_in_histories(origin, facts, contents, routes)
    if len(routes) > 1:
        return batches_by_route(origin, contents, routes, lifetimes_ms, mandatory=route.mandatory)
    routed = RoutedBatch(
        routes[0].targets if routes else route.targets,
        [origin] * len(contents),
        contents,
        content_bytes,
        places=range(len(contents)),
        mandatory=route.mandatory,
        expiration_ms=lifetimes_ms,
    )
    return [routed]


def split_for_routing(needs: RouteInputs, batch: Publishes) -> list[Publishes]:
    """The parts of a batch that can be routed one by one; none if the whole of it can.

    Who asks for properties wants all of them: for him they are their own outline.
    """
    if needs.property_bindings and set(map(raw_properties, batch.contents)) != {batch.outline}:
        return runs_of(batch, map(raw_properties, batch.contents))
    if needs.is_drawn and len(batch.methods) > DRAWN_MAX:
        return spans_of(batch, DRAWN_MAX)
    return []


def messages_at_once(targets: Sequence[PublishTarget]) -> int:
    """How many messages may go to so many queues together."""
    return max(1, COPIES_MAX // (len(targets) or 1))


def spans_of(batch: Publishes, count: int) -> list[Publishes]:
    """The same messages, so many at a time."""
    starts = range(0, len(batch.methods), count)
    return [part_of(batch, start, start + count, batch.outline) for start in starts]


def runs_of(batch: Publishes, outlines: Iterable[bytes]) -> list[Publishes]:
    """The same messages, apart where the basic.publish frame changes, or the outline."""
    runs, start = [], 0
    for (_method, outline), same in groupby(zip(batch.methods, outlines, strict=False)):
        stop = start + sum(1 for _ in same)
        runs.append(part_of(batch, start, stop, outline))
        start = stop
    return runs


def parted(batch: Publishes, at: int) -> list[Publishes]:
    """The same messages, apart in front of that one, which is refused."""
    spans = (0, at), (at, len(batch.methods))
    return [part_of(batch, start, stop, batch.outline) for start, stop in spans]


def part_of(batch: Publishes, start: int, stop: int, outline: bytes) -> Publishes:
    """The messages from `start` up to `stop`, which have that outline."""
    contents = batch.contents[start:stop]
    size_bytes = sum(map(len, contents))
    return Publishes(batch.channel, batch.methods[start:stop], contents, size_bytes, outline)


def group_by_targets(
    batch: Publishes, routes: dict[bytes, CachedRoute], lifetimes_ms: Lifetimes
) -> list[RoutedBatch]:
    """The messages in front of the first whose route is not there, by where they go."""
    places: dict[object, list[int]] = {}
    add_place: dict[bytes, Callable[[int], None]] = {}
    for method, route in routes.items():
        add_place[method] = places.setdefault(route.targets or route.mandatory, []).append
    for place, method in enumerate(batch.methods):
        if method not in add_place:
            break
        add_place[method](place)
    methods, contents = batch.methods.__getitem__, batch.contents.__getitem__
    routed_batches = []
    for found in places.values():
        of_each = [routes[method] for method in map(methods, found)]
        taken = list(map(contents, found))
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


def are_apart(routes: Collection[CachedRoute]) -> bool:
    """Whether each queue is in the targets of like routes only, and nothing else is to be asked.

    Then messages may be sorted by their targets, and those of each queue stay in order.
    """
    kinds = {route.targets for route in routes}
    return len(set(chain.from_iterable(kinds))) == sum(map(len, kinds)) and not any(
        route.needs is not None for route in routes
    )


def publish_routed(
    channel: Channel, routed_batches: Sequence[RoutedBatch], facts: PropertyFacts
) -> None:
    """Count messages that have passed all checks, and publish them as the channel does it."""
    count_published(channel, routed_batches, facts)
    channel.publish(channel, routed_batches, persistent=facts.persistent)


def count_published(
    channel: Channel, routed_batches: Sequence[RoutedBatch], facts: PropertyFacts
) -> None:
    """Count messages that have passed all checks, and have them traced."""
    # RabbitMQ 4.0.5 counts before its checks, and so a refused message too; of a batch that is
    # refused it would have seen the first alone
    channel.session.traffic.received += sum(len(routed.contents) for routed in routed_batches)
    tracer = channel.session.vhost.tracer
    if tracer is not None:
        tracer.published(channel, routed_batches, facts)


def find_routes(
    session: Session, kinds: Iterable[bytes]
) -> tuple[dict[bytes, CachedRoute], BrokerError | ProtocolError | None]:
    """Routes by basic.publish frame, up to the first that is refused, and what is said to that.

    `kinds` are the frames, each once.
    """
    routes: dict[bytes, CachedRoute] = {}
    for method in kinds:
        try:
            route = find_route(session, method)
            if not route.is_admitted:
                admit(session, route)
        except (BrokerError, ProtocolError) as refusal:
            return routes, refusal
        routes[method] = route
    return routes, None


def find_route(session: Session, method_frame: bytes) -> CachedRoute:
    """What a basic.publish frame means now.  Raises as `remember_route` does."""
    route = session.routes.get(method_frame)
    if route is None or route.epoch != route.ground.epoch:
        route = remember_route(session, method_frame)
    return route


def remember_route(session: Session, method_frame: bytes) -> CachedRoute:
    """Search as `search_route` does.  LookupTooLong if that cannot be done at once."""
    return run_at_once(session, search_route(session, method_frame))


def search_route(session: Session, method_frame: bytes) -> Steps[CachedRoute]:
    """Decode a basic.publish frame and find where its messages go.

    Raises NotImplementedHere for immediate, NotFound and AccessRefused for the exchange.
    """
    session.routes_found += 1
    method = decode_method(method_frame[METHOD_AT:-1])
    assert isinstance(method, Basic.Publish)
    if method.immediate:
        raise NotImplementedHere("immediate=true")
    vhost = session.vhost
    exchange, routing_key = method.exchange, method.routing_key
    session.rights.check("write", "exchange", exchange)
    is_topic = vhost.router.publishable(exchange).type == "topic"
    ground = vhost.topology if exchange else vhost
    routes, epoch = session.routes, ground.epoch
    found = yield from lookup_route(session, exchange, (routing_key,), None)
    origin = vhost.origin(exchange, routing_key)
    route = CachedRoute(origin, found.targets, ground, mandatory=method.mandatory)
    route.misses, route.epoch = found.misses, epoch
    needs = vhost.router.needs(exchange)
    route.needs = needs if needs != KEYS_SUFFICE else None
    route.guards_topics = is_topic and session.rights.guards_topics(exchange)
    route.is_admitted = not route.guards_topics
    if routes is session.routes:
        if len(routes) >= REMEMBERED_MAX:
            routes.clear()
        routes[method_frame] = route
    return route


def admit(session: Session, route: CachedRoute) -> None:
    """Ask once whether the routing key of a route may be used.  Raises AccessRefused if not."""
    session.rights.check_topic("write", route.origin.exchange, route.origin.routing_key)
    route.is_admitted = True


def remember_facts(session: Session, raw: bytes) -> PropertyFacts:
    """Read properties that this connection has not sent before."""
    facts = read_facts(raw)
    if len(raw) <= REMEMBERED_PROPERTIES_BYTES_MAX:
        if len(session.facts) >= REMEMBERED_PROPERTIES_MAX:
            session.facts.clear()
        session.facts[raw] = facts
    return facts


def prepare(
    channel: Channel, facts: PropertyFacts, raw: bytes, contents: list[bytes]
) -> list[bytes]:
    """The contents as they are stored: with these properties, and the name of the requester.

    Raises PreconditionFailed for a reply-to without a consumer and for another's user-id.
    """
    if facts.wants_reply:
        if channel.reply_subscription is None:
            raise PreconditionFailed("fast reply consumer does not exist")
        raw = with_reply_to(raw, channel.reply_subscription.name)
    user = channel.session.user
    if facts.user_id not in (None, user.name) and not user.may_impersonate:
        raise PreconditionFailed(
            f"user_id property set to '{facts.user_id}' but authenticated user was '{user.name}'"
        )
    return [replace_properties(content, raw) for content in contents]


def oversized(body_bytes: int, limit_bytes: int) -> BrokerError:
    """A message was beyond the limit; its channel hears of it as RabbitMQ says it."""
    return PreconditionFailed(
        f"message size {body_bytes} is larger than configured max size {limit_bytes}"
    )


def on_confirm_select(channel: Channel, method: Method) -> None:
    """§confirm.select (RabbitMQ): repeating it changes nothing; not with tx."""
    assert isinstance(method, Confirm.Select)
    if channel.transaction is not None:
        raise PreconditionFailed("cannot switch from tx to confirm mode")
    if channel.confirms is None:
        channel.confirms = Confirms()
        channel.session.traffic.ledgers.add(channel.confirms)
        channel.publish = publish_confirmed
    if not method.nowait:
        channel.reply(make(Confirm.SelectOk))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    Confirm.Select: on_confirm_select,
}
