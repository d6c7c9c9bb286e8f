"""The firehose: while it is on, `amq.rabbitmq.tracer` gets a copy of every message that clients of
this node publish to a virtual host or are given from one.

A copy has the body of the message, and in its headers what there was to know of it, as RabbitMQ has
them.  What has come through the exchange itself is not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

from fluffle.broker.base.message import Origin
from fluffle.broker.core.route_lookup import in_order
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.queues.queue_api import DeliveryBatch, QueueHandle
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE, TRACE_EXCHANGE
from fluffle.broker.transfer.republish import publish_own, routing_keys
from fluffle.broker.vhosts.vhost import TracedBatch, TracedClient, VirtualHost
from fluffle.protocol.properties import Properties, body_of, decode_properties, raw_properties
from fluffle.protocol.wire import Field, FieldTable

FIREHOSE = "firehose"
"""The name of this tap."""


class Firehose:
    """A `Tracer` of one virtual host, on one node."""

    __slots__ = ("_node", "_vhost")

    def __init__(self, vhost: VirtualHost, node: str) -> None:
        """`node` is the name that copies say."""
        self._vhost = vhost
        self._node = node

    def published(
        self,
        client: TracedClient,
        routed_batches: Sequence[TracedBatch],
        more_routing_keys: Sequence[str],
    ) -> None:
        """A client has published messages, which are about to be put into queues."""
        copies = []
        for origin, content, routed in in_order(routed_batches):
            keys = (origin.routing_key, *more_routing_keys)
            # RabbitMQ collects them in front of each other, but those of the default exchange
            is_default = origin.exchange == DEFAULT_EXCHANGE
            queues = sorted((each.name for each in routed.targets), reverse=not is_default)
            headers = self._described(client, origin, keys, content)
            headers["routed_queues"] = texts(queues)
            copies.append((f"publish.{origin.exchange}", headers, content))
        self._publish(copies)

    def delivered(
        self, client: TracedClient, delivery_batch: DeliveryBatch, first_tag: int
    ) -> None:
        """A client is about to be given messages of a queue."""
        del first_tag
        queue, copies = delivery_batch.holder.queue.name, []
        for origin, content in zip(delivery_batch.origins, delivery_batch.contents, strict=True):
            if origin.exchange == TRACE_EXCHANGE:
                continue
            keys = routing_keys(origin, raw_properties(content))
            headers = self._described(client, origin, keys, content)
            headers["redelivered"] = ("I", int(delivery_batch.redelivered))
            copies.append((f"deliver.{queue}", headers, content))
        self._publish(copies)

    def purging(self, client: TracedClient, queue: QueueHandle) -> Callable[[], None]:
        """Nothing is to be called: RabbitMQ does not trace it."""
        del client, queue
        return ignore_done

    def _described(
        self, client: TracedClient, origin: Origin, keys: Sequence[str], content: bytes
    ) -> FieldTable:
        """Describe a message, and the client that has published it or is given it."""
        return {
            "exchange_name": longstr(origin.exchange),
            "routing_keys": texts(keys),
            "properties": ("F", table_of(decode_properties(raw_properties(content)))),
            "node": longstr(self._node),
            "vhost": longstr(self._vhost.name),
            "connection": longstr(client.connection),
            "channel": ("I", client.channel),
            "user": longstr(client.user),
        }

    def _publish(self, copies: list[tuple[str, FieldTable, bytes]]) -> None:
        """Publish what is to be known of messages under routing keys, with their bodies."""
        messages = [
            (key, Properties(headers=headers), body_of(content)) for key, headers, content in copies
        ]
        publish_own(self._vhost, TRACE_EXCHANGE, messages)


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
