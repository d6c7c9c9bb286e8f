"""The rules of declaring an exchange anew or again, with RabbitMQ's reply texts.

They run in this order: `check_type`, `check_not_default`, then `check_equivalent` for an exchange
that is there, or `check_creatable` for one that is not.
"""

from fluffle.broker.errors import AccessRefused, PreconditionFailed
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import (
    ALTERNATE_EXCHANGE,
    ExchangeSpec,
    check_not_default,
)
from fluffle.protocol.terms import atom, text
from fluffle.protocol.types import Field
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
    if received.type != current.type:
        types = f"'{atom(received.type)}'", f"'{atom(current.type)}'"
        raise _inequivalent("type", received.name, vhost, *types)
    for name in ("durable", "auto_delete", "internal"):
        new, old = getattr(received, name), getattr(current, name)
        if new != old:
            raise _inequivalent(name, received.name, vhost, f"'{text(new)}'", f"'{text(old)}'")
    new = received.arguments.get(ALTERNATE_EXCHANGE)
    old = current.arguments.get(ALTERNATE_EXCHANGE)
    if new is None and old is None:
        return
    if new is None or old is None:
        described = _typed(new), _typed(old)
    elif new[1] != old[1]:
        described = _untyped(new), _untyped(old)
    else:
        return
    raise _inequivalent(ALTERNATE_EXCHANGE, received.name, vhost, *described)


def resource(name: str, vhost: str) -> str:
    """An exchange as reply texts name it."""
    return f"exchange '{name}' in vhost '{vhost}'"


def _inequivalent(
    argument: str, name: str, vhost: str, received: str, current: str
) -> PreconditionFailed:
    return PreconditionFailed(
        f"inequivalent arg '{argument}' for {resource(name, vhost)}:"
        f" received {received} but current is {current}"
    )


def _typed(field: Field | None) -> str:
    """An argument beside one that is missing."""
    if field is None:
        return "none"
    tag, value = field
    return f"the value '{text(value)}' of type '{TYPE_NAMES[tag]}'"


def _untyped(field: Field) -> str:
    """An argument beside another; RabbitMQ's void is its word for a missing one."""
    _, value = field
    return "none" if value is None else f"'{text(value)}'"
