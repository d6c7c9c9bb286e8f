"""The rules of declaring an exchange anew or again, with RabbitMQ's reply texts.

They run in this order: `check_type`, `check_not_default`, then `check_equivalent` for an exchange
that is there, or `check_creatable` for one that is not.
"""

from fluffle.broker.base.errors import AccessRefused, PreconditionFailed
from fluffle.broker.base.inequivalent import check_same, inequivalent, plain
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import (
    ALTERNATE_EXCHANGE,
    ExchangeSpec,
    check_not_default,
)
from fluffle.protocol.terms import atom
from fluffle.protocol.wire import TYPE_NAMES

RESERVED_PREFIX = "amq."


def check_creatable(spec: ExchangeSpec, vhost: str) -> None:
    """Refuses to make what must not be made: reserved names, an alternate that is no name."""
    if spec.name.startswith(RESERVED_PREFIX):
        raise AccessRefused(
            f"exchange name '{spec.name}' contains reserved prefix '{RESERVED_PREFIX}*'"
        )
    tag, _ = spec.arguments.get(ALTERNATE_EXCHANGE, ("S", b""))
    if tag != "S":
        raise PreconditionFailed(
            f"invalid type '{TYPE_NAMES[tag]}' for arg '{ALTERNATE_EXCHANGE}'"
            f" in {resource(spec.name, vhost)}"
        )


def check_deletable(name: str, vhost: str) -> None:
    """Refuses to delete the default exchange and those of the broker itself."""
    check_not_default(name)
    if name.startswith(RESERVED_PREFIX):
        raise AccessRefused(f"deletion of system {resource(name, vhost)} not allowed")


def check_bindable(binding: Binding) -> None:
    """Refuses to bind or unbind the default exchange, on either end."""
    check_not_default(binding.source)
    if binding.destination_kind is DestinationKind.EXCHANGE:
        check_not_default(binding.destination)


def check_equivalent(current: ExchangeSpec, received: ExchangeSpec, vhost: str) -> None:
    """Refuses to declare an exchange again as another; of the arguments only one is compared."""
    where = resource(received.name, vhost)
    if received.type != current.type:
        types = f"'{atom(received.type)}'", f"'{atom(current.type)}'"
        raise inequivalent("type", where, *types)
    for name in ("durable", "auto_delete", "internal"):
        new, old = getattr(received, name), getattr(current, name)
        if new != old:
            raise inequivalent(name, where, plain(new), plain(old))
    new, old = (spec.arguments.get(ALTERNATE_EXCHANGE) for spec in (received, current))
    check_same(ALTERNATE_EXCHANGE, where, new, old)


def resource(name: str, vhost: str) -> str:
    """An exchange as reply texts name it."""
    return f"exchange '{name}' in vhost '{vhost}'"
