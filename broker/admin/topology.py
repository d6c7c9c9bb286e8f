"""exchanges.list, bindings.list and messages.explain: what leads where, and where a message
would go."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from itertools import chain
from typing import Any

from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.core.property_facts import sender_selected
from fluffle.broker.definitions.file_format import plain, table_of
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE, ExchangeSpec
from fluffle.broker.routing.explain import Verdict, Visit, explain
from fluffle.broker.routing.topic_filter import shown_arguments
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import Properties, encode_properties
from fluffle.protocol.spec import ProtocolError


def list_exchanges(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """Rows of the exchanges of a virtual host, or of all; the default exchange has no name."""
    return (
        exchange_row(context, each, spec)
        for each in context.vhosts(vhost)
        for spec in tuple(each.topology.exchanges())
    )


def exchange_row(context: NodeContext, vhost: VirtualHost, spec: ExchangeSpec) -> Row:
    policy = context.catalogue.policies.for_exchange(vhost.name, spec.name).policy
    return {
        "vhost": vhost.name,
        "name": spec.name,
        "type": spec.type,
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "internal": spec.internal,
        "policy": policy.name if policy is not None else None,
        "arguments": plain(spec.arguments),
    }


def list_bindings(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """Rows of the bindings of a virtual host, or of all, with the default exchange's own."""
    return (
        binding_row(each, binding)
        for each in context.vhosts(vhost)
        for binding in bindings_in(each)
    )


def bindings_in(vhost: VirtualHost) -> Iterator[Binding]:
    for name in tuple(vhost.queues):
        if not is_delayed_queue(name):
            yield Binding(DEFAULT_EXCHANGE, name, DestinationKind.QUEUE, name)
    yield from vhost.topology.bindings


def binding_row(vhost: VirtualHost, binding: Binding) -> Row:
    return {
        "vhost": vhost.name,
        "source_name": binding.source,
        "source_kind": "exchange",
        "destination_name": binding.destination,
        "destination_kind": binding.destination_kind.value,
        "routing_key": binding.routing_key,
        "arguments": plain(shown_arguments(binding)),
    }


PROPERTIES = frozenset(each.name for each in fields(Properties)) - {"headers"}


def explain_message(
    context: NodeContext,
    *,
    vhost: str,
    exchange: str = "",
    routing_key: str = "",
    headers: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
) -> Row:
    """Nothing is published: the exchanges that would be asked, with all their bindings."""
    host, answer = context.vhost(vhost), properties_of(headers or {}, properties or {})
    table = answer.headers or {}
    more = (sender_selected(table, "CC"), sender_selected(table, "BCC"))

    def is_there(queue: str) -> bool:
        return queue in host.queues and not is_delayed_queue(queue)

    keys = (routing_key, *chain.from_iterable(more))
    found = explain(host.topology, is_there, exchange, keys, answer)
    return {
        "routed": bool(found.queues),
        "queues": [queue for queue in found.queues if not is_delayed_queue(queue)],
        "routing_keys": list(found.routing_keys),
        "exchanges": [visit_row(visit) for visit in found.visits],
        "text": str(found),
    }


def properties_of(headers: dict[str, Any], others: dict[str, Any]) -> Properties:
    """SyntaxFailure for what cannot be in a message."""
    if unknown := sorted(others.keys() - PROPERTIES):
        raise SyntaxFailure(f"there is no property '{unknown[0]}'")
    answer = Properties(headers=table_of(headers), **others)
    try:
        encode_properties(answer)
    except (ProtocolError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise SyntaxFailure(f"these cannot be properties: {error}") from error
    return answer


def visit_row(visit: Visit) -> Row:
    return {
        "name": visit.exchange,
        "type": visit.type,
        "came": visit.came,
        "bindings": [verdict_row(verdict) for verdict in visit.verdicts],
        "notes": list(visit.notes),
    }


def verdict_row(verdict: Verdict) -> Row:
    """A binding under RabbitMQ's names, and why it does not match."""
    binding = verdict.binding
    return {
        "destination": binding.destination,
        "destination_type": binding.destination_kind.value,
        "routing_key": binding.routing_key,
        "arguments": plain(binding.arguments),
        "matches": verdict.is_match,
        "reason": verdict.reason,
    }


READS: Mapping[str, Callable[..., Any]] = {
    "exchanges.list": list_exchanges,
    "bindings.list": list_bindings,
    "messages.explain": explain_message,
}
