"""The firehose: while it is on, `amq.rabbitmq.tracer` gets a copy of every message that clients of
this node publish to a virtual host or are given from one.

A copy has the body of the message, and in its headers what there was to know of it, as RabbitMQ has
them.  What has come through the exchange itself is not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE, TRACE_EXCHANGE
from fluffle.broker.transfer.own_messages import publish_own
from fluffle.broker.transfer.republish import routing_keys
from fluffle.protocol.properties import Properties, body_of, decode_properties, raw_properties
from fluffle.protocol.types import Field, FieldTable

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientChannel, SessionChannel
    from fluffle.broker.core.enqueue import RoutedBatch
    from fluffle.broker.core.property_facts import PropertyFacts
    from fluffle.broker.core.publisher import Publisher
    from fluffle.broker.queues.delivery import DeliveryBatch
    from fluffle.broker.queues.queue_api import QueueHandle
    from fluffle.broker.vhosts.vhost import VirtualHost


FIREHOSE = "firehose"
"""The name of this tap."""


class Tracer(Protocol):
    """Sees what clients of a virtual host on this node publish, are given and purge."""

    def published(
        self, publisher: Publisher, routed_batches: Sequence[RoutedBatch], facts: PropertyFacts
    ) -> None:
        """A client has published messages, which are about to be put into queues."""

    def delivered(self, channel: ClientChannel, delivery_batch: DeliveryBatch) -> None:
        """A client is about to be given messages of a queue, which have no tags yet."""

    def purging(self, channel: SessionChannel, queue: QueueHandle) -> Callable[[], None]:
        """A client purges a queue: what comes from now on stays.  What is returned is called once
        that is done, if it is."""


class Tracers:
    """Several tracers used as one."""

    __slots__ = ("_tracers",)

    def __init__(self, tracers: Sequence[Tracer]) -> None:
        self._tracers = tracers

    def published(
        self, publisher: Publisher, routed_batches: Sequence[RoutedBatch], facts: PropertyFacts
    ) -> None:
        for each in self._tracers:
            each.published(publisher, routed_batches, facts)

    def delivered(self, channel: ClientChannel, delivery_batch: DeliveryBatch) -> None:
        for each in self._tracers:
            each.delivered(channel, delivery_batch)

    def purging(self, channel: SessionChannel, queue: QueueHandle) -> Callable[[], None]:
        all_done = [each.purging(channel, queue) for each in self._tracers]

        def done() -> None:
            for each in all_done:
                each()

        return done


def set_tracer(vhost: VirtualHost, name: str, one: Tracer | None) -> None:
    """From now on there is such a tap under this name, or there is none."""
    if one is not None:
        vhost.tracers[name] = one
    else:
        vhost.tracers.pop(name, None)
    tracers = tuple(vhost.tracers.values())
    vhost.tracer = tracers[0] if len(tracers) == 1 else Tracers(tracers) if tracers else None


class Firehose:
    """A `Tracer` of one virtual host, on one node."""

    __slots__ = ("_node",)

    def __init__(self, node: str) -> None:
        """`node` is the name that copies say."""
        self._node = node

    def published(
        self, publisher: Publisher, routed_batches: Sequence[RoutedBatch], facts: PropertyFacts
    ) -> None:
        """A client has published messages, which are about to be put into queues."""
        copies = []
        for origin, content, routed in in_order(routed_batches):
            keys = (origin.routing_key, *facts.more_routing_keys)
            # RabbitMQ collects them in front of each other, but those of the default exchange
            is_default = origin.exchange == DEFAULT_EXCHANGE
            queues = sorted((each.name for each in routed.targets), reverse=not is_default)
            headers = self._described(publisher, origin, keys, content)
            headers["routed_queues"] = texts(queues)
            copies.append((f"publish.{origin.exchange}", headers, content))
        publish_copies(publisher, copies)

    def delivered(self, channel: ClientChannel, delivery_batch: DeliveryBatch) -> None:
        """A client is about to be given messages of a queue."""
        queue, copies = delivery_batch.holder.queue.name, []
        for origin, content in zip(delivery_batch.origins, delivery_batch.contents, strict=True):
            if origin.exchange == TRACE_EXCHANGE:
                continue
            keys = routing_keys(origin, raw_properties(content))
            headers = self._described(channel, origin, keys, content)
            headers["redelivered"] = ("I", int(delivery_batch.redelivered))
            copies.append((f"deliver.{queue}", headers, content))
        publish_copies(channel, copies)

    def purging(self, channel: SessionChannel, queue: QueueHandle) -> Callable[[], None]:
        """Nothing is to be called: RabbitMQ does not trace it."""
        del channel, queue
        return ignore_done

    def _described(
        self, channel: SessionChannel, origin: Origin, keys: Sequence[str], content: bytes
    ) -> FieldTable:
        """What there is to know of a message, and of who has published or is given it."""
        session = channel.session
        return {
            "exchange_name": longstr(origin.exchange),
            "routing_keys": texts(keys),
            "properties": ("F", table_of(decode_properties(raw_properties(content)))),
            "node": longstr(self._node),
            "vhost": longstr(session.vhost.name),
            "connection": longstr(session.name),
            "channel": ("I", channel.number),
            "user": longstr(session.user.name),
        }


def publish_copies(channel: SessionChannel, copies: list[tuple[str, FieldTable, bytes]]) -> None:
    """Publish what is to be known of messages under routing keys, with their bodies."""
    publish_own(
        channel.session.vhost,
        TRACE_EXCHANGE,
        [(key, Properties(headers=headers), body_of(content)) for key, headers, content in copies],
    )


def in_order(routed_batches: Sequence[RoutedBatch]) -> list[tuple[Origin, bytes, RoutedBatch]]:
    """Messages as they were published, each with the parcel that it is in."""
    placed = [
        (place, origin, content, routed)
        for routed in routed_batches
        for place, origin, content in zip(
            routed.places, routed.origins, routed.contents, strict=True
        )
    ]
    placed.sort(key=itemgetter(0))
    return [(origin, content, routed) for _place, origin, content, routed in placed]


def table_of(properties: Properties) -> FieldTable:
    """Properties under their names: numbers have 32 bits here, whatever they have in a message."""
    present = ((each.name, getattr(properties, each.name)) for each in fields(properties))
    return {name: shown(value) for name, value in present if value is not None}


def shown(value: str | int | FieldTable) -> Field:
    if isinstance(value, dict):
        return "F", value
    if isinstance(value, int):
        return "I", int.from_bytes((value & 0xFFFFFFFF).to_bytes(4, "big"), "big", signed=True)
    return longstr(value)


def longstr(text: str) -> Field:
    return "S", text.encode(errors="surrogateescape")


def texts(values: Sequence[str]) -> Field:
    return "A", [longstr(value) for value in values]
