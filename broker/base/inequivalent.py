"""Errors for exchanges and queues that are declared again with other arguments, in RabbitMQ's
words."""

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.protocol.terms import text
from fluffle.protocol.types import Field, FieldValue
from fluffle.protocol.wire import TYPE_NAMES


def inequivalent(key: str, where: str, received: str, current: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"inequivalent arg '{key}' for {where}: received {received} but current is {current}"
    )


def check_same(key: str, where: str, received: Field | None, current: Field | None) -> None:
    """PreconditionFailed for an argument that is another.

    Values are compared without their tags: short 5 is long 5, but 4.0 is not 4.
    """
    if received is None or current is None:
        if received is not current:
            raise inequivalent(key, where, _typed(received), _typed(current))
    elif type(received[1]) is not type(current[1]) or received[1] != current[1]:
        raise inequivalent(key, where, plain(received[1]), plain(current[1]))


def plain(value: FieldValue) -> str:
    """Return a value beside another; void is RabbitMQ's word for a missing one."""
    return "none" if value is None else f"'{text(value)}'"


def _typed(argument: Field | None) -> str:
    """Return an argument beside one that is missing."""
    if argument is None:
        return "none"
    tag, value = argument
    return f"the value '{text(value)}' of type '{TYPE_NAMES[tag]}'"
