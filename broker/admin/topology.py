"""exchanges.list and bindings.list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.base.delayed_queues import is_delayed_queue
from fluffle.broker.definitions.values import plain
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE, ExchangeSpec
from fluffle.broker.vhosts.vhost import VirtualHost


def list_exchanges(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """Those of a virtual host, or all; the default exchange has no name."""
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
    """Those of a virtual host, or all, with those that the default exchange has by itself."""
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
        "arguments": plain(binding.arguments),
    }


READS: Mapping[str, Callable[..., Any]] = {
    "exchanges.list": list_exchanges,
    "bindings.list": list_bindings,
}
