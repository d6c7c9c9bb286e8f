"""Runs of messages of MQTT clients, ready to be routed; their routes, and what of them is retained.

prepared = prepared_run(session, converter, terms, run)
route = yield from find_route(session, prepared)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.base.traffic import ClientDrop
from fluffle.broker.core.property_facts import PropertyFacts, read_lifetimes, remember_facts
from fluffle.broker.core.publisher import MessageBatch
from fluffle.broker.core.route_lookup import (
    CachedRoute,
)
from fluffle.broker.protocols.mqtt.sys_topics import check_may_publish_to
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.protocol.properties import body_size, build_contents
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.base.logs import LimitedLog
    from fluffle.broker.core.session import Session
    from fluffle.broker.definitions.retained import RetainedStore
    from fluffle.broker.protocols.mqtt.conversion import AmqpProperties, MessageConverter
    from fluffle.protocol.mqtt.reader import Publishes


class PublishTerms(NamedTuple):
    """Terms on which a client publishes."""

    version: int
    exchange: str
    client: bytes
    """Its mark in annotations."""
    receive_max: int
    """Messages of QoS 1 and 2 that it may have under way."""
    disconnects: bool
    """True if a publish without the right ends the connection, where it cannot be answered."""
    warnings: LimitedLog


class PreparedRun(NamedTuple):
    """Run of messages that is ready to be routed."""

    topic: str
    topic_key: bytes
    """Topic as a key of the remembered routes."""
    exchange: str
    routing_key: str
    reaches_amqp: bool
    """False if the routing key is too long for one of AMQP."""
    messages: MessageBatch
    facts: PropertyFacts
    lifetimes_ms: Lifetimes
    annotations: bytes
    qos: int
    retain: bool
    packet_ids: Sequence[int]
    repeated_ids: Sequence[int]
    """Packets whose identifiers messages of QoS 2 have that were taken already: they are answered
    before it, and not taken."""


def part_of(run: Publishes, packet_ids: list[int], payloads: list[bytes]) -> Publishes:
    """Return a run with some of its messages."""
    content_bytes = sum(map(len, payloads))
    return replace(run, packet_ids=packet_ids, payloads=payloads, content_bytes=content_bytes)


def prepared_run(
    session: Session,
    converter: MessageConverter,
    terms: PublishTerms,
    run: Publishes,
    repeated_ids: Sequence[int] = (),
    *,
    converted: AmqpProperties | None = None,
) -> PreparedRun:
    """Convert messages that a client has published; `converted`: their properties, if that is
    done.  PreconditionFailed."""
    topic = run.topic.decode()
    form = converter.published(
        *(topic, run.properties, run.qos),
        retain=run.retain,
        client=terms.client,
        converted=converted,
    )
    properties, contents = form.properties, build_contents(form.properties, run.payloads)
    if session.interceptors is not None and session.interceptors.incoming is not None:
        contents, properties = session.interceptors.incoming.intercepted(contents, properties)
    facts = session.facts.get(properties) or remember_facts(session.facts, properties)
    return PreparedRun(
        topic,
        run.topic,
        terms.exchange,
        form.routing_key or converter.topics.routing_key(topic),
        form.reaches_amqp,
        MessageBatch(contents, sum(map(len, contents)), properties),
        facts,
        read_lifetimes(contents) if facts.expires else None,
        form.annotations,
        run.qos,
        run.retain,
        run.packet_ids,
        repeated_ids,
    )


def find_route(session: Session, prepared: PreparedRun) -> Steps[CachedRoute]:
    """Find where messages of a topic go.  AccessRefused; NotFound for the exchange."""
    route = session.route_cache.current(prepared.topic_key)
    if route is not None:
        return route
    check_may_publish_to(prepared.topic)
    return (
        yield from session.route_cache.search(
            prepared.topic_key,
            prepared.exchange,
            prepared.routing_key,
            mandatory=False,
            topic=prepared.topic,
        )
    )


def note_unreached(session: Session, prepared: PreparedRun, warnings: LimitedLog) -> None:
    """Count and log messages that were published and that queues of AMQP are not given."""
    # mutant: MQ71
    session.traffic.dropped[ClientDrop.TOPIC_TOO_LONG] += len(prepared.messages.contents)
    vhost, user = session.vhost.name, session.user.name
    warnings.warn("topic_too_long_for_amqp", vhost=vhost, user=user)


def retain(
    store: RetainedStore,
    session: Session,
    prepared: PreparedRun,
    done: Callable[[], None],
    failed: Callable[[BrokerError], None],
    *,
    client_id: str = "",
) -> None:
    """Keep the last of messages of one topic that were published with RETAIN; an empty one removes
    what there was.  One of the two is called, once that is durable or refused.  `client_id`: the
    client that publishes them; none if they are a will."""
    content, lifetimes_ms = prepared.messages.contents[-1], prepared.lifetimes_ms  # mutant: MQ8
    message = None
    if body_size(content):
        lifetime_ms = lifetimes_ms[-1] if isinstance(lifetimes_ms, list) else lifetimes_ms
        now_ms = store.now_ms()
        message = RetainedMessage(
            content,
            prepared.annotations,
            session.user.name,
            now_ms,
            NEVER_EXPIRES_MS if lifetime_ms is None else now_ms + max(1, lifetime_ms),
        )
    store.put(session.vhost.name, prepared.topic, message, done, failed, client_id=client_id)
    if store.is_full:
        session.client.on_behind(store, 1)
