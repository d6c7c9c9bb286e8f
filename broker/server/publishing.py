"""basic.publish, basic.return and publisher confirms.  A hot file.

A batch is a run of messages with the same basic.publish frame and the same properties: it is
looked up once, checked once, routed once and put into each queue once.  The order of the checks:
write permission, exchange, internal, expiration, CC and BCC, topic permission, reply-to, user-id,
route.  Permission costs nothing more than once a route: when the user's rights change, the session
forgets its routes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.errors import BrokerError, NotImplementedHere, PreconditionFailed
from fluffle.broker.message import Origin
from fluffle.broker.queues.engine import Admission, Debtor
from fluffle.broker.server.confirms import Confirms
from fluffle.broker.server.properties import PropertyFacts, read_facts, with_reply_to
from fluffle.broker.server.replies import PREFIX
from fluffle.broker.server.session import (
    REMEMBERED_MAX,
    REMEMBERED_PROPERTIES_BYTES_MAX,
    REMEMBERED_PROPERTIES_MAX,
    Session,
)
from fluffle.protocol.events import Publishes
from fluffle.protocol.methods import Basic, Confirm, Method, decode_method, make, return_frame
from fluffle.protocol.properties import raw_properties, replace_properties, split_content
from fluffle.protocol.spec import ReplyCode
from fluffle.protocol.types import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.server.channel import Channel

HEADERS_BINDINGS_PER_COST = 8
"""So many bindings are asked about headers in the time in which a queue takes a run."""

METHOD_AT = 7
"""Where the payload of a method frame begins."""


class Target(Protocol):
    """Where messages go: a queue, or a requester of direct reply-to."""

    debtors: list[Debtor]

    @property
    def is_behind(self) -> bool: ...

    def enqueue(
        self, origin: Origin, contents: list[bytes], content_bytes: int, *, persistent: bool
    ) -> Admission: ...


class Ground(Protocol):
    """What routes depend on: for the default exchange the queues, for others the topology."""

    epoch: int


class Route:
    """What a basic.publish frame means, and where its messages go while nothing changes."""

    __slots__ = (
        "epoch",
        "ground",
        "guards_topics",
        "headers_bindings",
        "is_special",
        "mandatory",
        "origin",
        "targets",
    )

    def __init__(
        self, origin: Origin, targets: Sequence[Target], ground: Ground, *, mandatory: bool
    ) -> None:
        self.origin = origin
        self.targets = targets
        """Where messages go that have no keys in CC or BCC and no headers to match."""
        self.ground = ground
        """What the route stands on: it is used only while that has not changed."""
        self.epoch = ground.epoch
        self.mandatory = mandatory
        self.headers_bindings = 0
        """How many bindings look at headers; if any do, `targets` says nothing."""
        self.guards_topics = False
        """Whether each routing key needs a permission."""
        self.is_special = False
        """Whether it is one of the two."""


class Publisher(Protocol):
    """Takes messages that have passed all checks."""

    def __call__(
        self,
        channel: Channel,
        route: Route,
        targets: Sequence[Target],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
    ) -> None: ...


def on_publishes(channel: Channel, batch: Publishes) -> int:
    """Take a batch of messages; what that cost, 1 for itself and for each queue."""
    session = channel.session
    route = session.routes.get(batch.method_frame)
    if route is None or route.epoch != route.ground.epoch:
        route = remember_route(session, batch.method_frame)
    raw = raw_properties(batch.contents[0])
    facts = session.facts.get(raw)
    if facts is None:
        facts = remember_facts(session, raw)
    contents, content_bytes, targets = batch.contents, batch.content_bytes, route.targets
    if facts.more_routing_keys or route.is_special:
        targets = look_closer(session, route, facts)
    if facts.is_special:
        contents = prepare(channel, facts, raw, contents)
        content_bytes = sum(map(len, contents))
    # RabbitMQ 4.0.5 counts before its checks, and so a refused message too; of a batch that is
    # refused it would have seen the first alone
    session.traffic.received += len(contents)
    channel.publish(channel, route, targets, contents, content_bytes, persistent=facts.persistent)
    return 1 + len(targets) + route.headers_bindings // HEADERS_BINDINGS_PER_COST


def remember_route(session: Session, method_frame: bytes) -> Route:
    """Decode a basic.publish frame and find where its messages go.

    Raises NotImplementedHere for immediate, NotFound and AccessRefused for the exchange.
    """
    method = decode_method(method_frame[METHOD_AT:-1])
    assert isinstance(method, Basic.Publish)
    if method.immediate:
        raise NotImplementedHere("immediate=true")
    vhost = session.vhost
    exchange, routing_key = method.exchange, method.routing_key
    session.rights.check("write", "exchange", exchange)
    is_topic = vhost.router.publishable(exchange).type == "topic"
    targets = find_targets(session, exchange, (routing_key,), {})
    ground = vhost.topology if exchange else vhost
    origin = vhost.origin(exchange, routing_key)
    route = Route(origin, targets, ground, mandatory=method.mandatory)
    route.headers_bindings = vhost.router.headers_bindings(exchange)
    route.guards_topics = is_topic and session.rights.guards_topics(exchange)
    route.is_special = bool(route.headers_bindings) or route.guards_topics
    if len(session.routes) >= REMEMBERED_MAX:
        session.routes.clear()
    session.routes[method_frame] = route
    return route


def look_closer(session: Session, route: Route, facts: PropertyFacts) -> Sequence[Target]:
    """Where messages go that the route alone does not say.  AccessRefused for a routing key."""
    exchange = route.origin.exchange
    keys = (route.origin.routing_key, *facts.more_routing_keys)
    if route.guards_topics:
        for key in keys:
            session.rights.check_topic("write", exchange, key)
    if facts.more_routing_keys or route.headers_bindings:
        return find_targets(session, exchange, keys, facts.headers or {})
    return route.targets


def find_targets(
    session: Session, exchange: str, routing_keys: Sequence[str], headers: FieldTable
) -> Sequence[Target]:
    """The queues that messages go to; the default exchange also leads to requesters."""
    queues = session.vhost.route(exchange, routing_keys, headers)
    if exchange:
        return queues
    names = dict.fromkeys(key for key in routing_keys if key.startswith(PREFIX))
    return (*queues, *map(session.replies.target, names))


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
    """The contents as they are stored: with the name of the requester, without BCC.

    Raises PreconditionFailed for a reply-to without a consumer and for another's user-id.
    """
    if facts.stored is not None:
        raw = facts.stored
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


def publish_plain(
    channel: Channel,
    route: Route,
    targets: Sequence[Target],
    contents: list[bytes],
    content_bytes: int,
    *,
    persistent: bool,
) -> None:
    """Put messages into their queues, or return them."""
    put(channel, route, targets, contents, content_bytes, persistent=persistent)


def publish_confirmed(
    channel: Channel,
    route: Route,
    targets: Sequence[Target],
    contents: list[bytes],
    content_bytes: int,
    *,
    persistent: bool,
) -> None:
    """As `publish_plain`, and confirm: at the end of the batch, or once they are on disk."""
    confirms = channel.confirms
    assert confirms is not None
    answer = put(channel, route, targets, contents, content_bytes, persistent=persistent)
    if answer is Admission.RECORDED:
        commits = channel.session.commits
        confirms.defer(len(contents), commits.ticket)
        commits.wait(channel, commits.ticket)
        return
    if answer is Admission.ACCEPTED:
        confirms.settle(len(contents))
    else:
        confirms.refuse(confirms.assign(len(contents)))
    channel.session.confirming[channel] = None


def put(
    channel: Channel,
    route: Route,
    targets: Sequence[Target],
    contents: list[bytes],
    content_bytes: int,
    *,
    persistent: bool,
) -> Admission:
    """Put messages into their queues, or return them.

    REFUSED when any queue refuses them, as RabbitMQ has it, though the others keep them; else
    RECORDED when any queue records them.
    """
    answer = Admission.ACCEPTED
    for target in targets:
        one = target.enqueue(route.origin, contents, content_bytes, persistent=persistent)
        if one is not Admission.ACCEPTED and answer is not Admission.REFUSED:
            answer = one
        if target.is_behind:
            channel.session.on_behind(target, len(contents))
    if answer is Admission.RECORDED and channel.session.commits.is_behind:
        channel.session.on_disk_behind()
    traffic = channel.session.traffic
    if targets:
        traffic.routed += len(contents) * len(targets)
    elif route.mandatory:
        traffic.unroutable_returned += len(contents)
        return_unroutable(channel, route.origin, contents)
    else:
        traffic.unroutable_dropped += len(contents)
    return answer


def return_unroutable(channel: Channel, origin: Origin, contents: list[bytes]) -> None:
    """basic.return with 312 for messages that were mandatory and went nowhere."""
    frame = return_frame(
        channel.number, ReplyCode.NO_ROUTE, "NO_ROUTE", origin.exchange, origin.routing_key
    )
    frame_bytes_max = channel.session.frame_bytes_max
    for content in contents:
        channel.session.outlet.add(frame)
        channel.session.outlet.add(split_content(content, channel.number, frame_bytes_max))


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
        channel.publish = publish_confirmed
    if not method.nowait:
        channel.reply(make(Confirm.SelectOk))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    Confirm.Select: on_confirm_select,
}
