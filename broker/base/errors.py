"""Errors that clients cause, one class a reply code, and errors that end a node.

The first have RabbitMQ's texts; those that queues and exchanges share are made here
(`inequivalent`, `check_same`), their code's name and length by `protocol/spec.reply_text`.

They are raised anywhere below the protocols, each of which turns them into its own answers in one
place: `amqp091/connection`, `mqtt/reasons`, `http/server`.
"""

from typing import ClassVar

from fluffle.protocol.spec import SOFT_CODES, ReplyCode, reply_text
from fluffle.protocol.terms import text
from fluffle.protocol.wire import TYPE_NAMES, Field, FieldValue


class BrokerError(Exception):
    """Error with what the peer must be sent.  `explanation` is the text behind `NAME - `."""

    code: ClassVar[ReplyCode]
    http_status: ClassVar[int]

    def __init__(self, explanation: str) -> None:
        super().__init__(explanation)
        self.explanation = explanation

    @property
    def is_soft(self) -> bool:
        """True if only the channel is closed (RabbitMQ decides by the code alone)."""
        return self.code in SOFT_CODES

    @property
    def reply_text(self) -> str:
        """`NAME - explanation`, as RabbitMQ words it; at most 255 bytes."""
        return reply_text(self.code, self.explanation)


class AccessRefused(BrokerError):
    code, http_status = ReplyCode.ACCESS_REFUSED, 401


class NotFound(BrokerError):
    code, http_status = ReplyCode.NOT_FOUND, 404


class Unreachable(NotFound):
    """The thing is defined, and cannot be reached now."""


class QueueDeleted(NotFound):
    """The queue that was asked was deleted before it answered; another may have its name."""


class QueueCrashed(NotFound):
    """The queue came upon damage, and hands out nothing until an operator has it go on."""

    def __init__(self, queue: str) -> None:
        """`queue`: its name and virtual host, as errors have them."""
        super().__init__(f"{queue} has crashed and failed to restart")


class ResourceLocked(BrokerError):
    code, http_status = ReplyCode.RESOURCE_LOCKED, 400


class PreconditionFailed(BrokerError):
    code, http_status = ReplyCode.PRECONDITION_FAILED, 400


class DeleteProtected(BrokerError):
    """A queue or virtual host is protected against deletion."""

    code, http_status = ReplyCode.PRECONDITION_FAILED, 412


class ConnectionForced(BrokerError):
    code, http_status = ReplyCode.CONNECTION_FORCED, 400


class NodeStops(ConnectionForced):
    """The node stops, or is taken out of service."""


class SyntaxFailure(BrokerError):
    code, http_status = ReplyCode.SYNTAX_ERROR, 400


class CommandInvalid(BrokerError):
    code, http_status = ReplyCode.COMMAND_INVALID, 400


class ChannelError(BrokerError):
    code, http_status = ReplyCode.CHANNEL_ERROR, 400


class ResourceError(BrokerError):
    code, http_status = ReplyCode.RESOURCE_ERROR, 400


class NotAllowed(BrokerError):
    code, http_status = ReplyCode.NOT_ALLOWED, 401


class NotImplementedHere(BrokerError):
    code, http_status = ReplyCode.NOT_IMPLEMENTED, 400


class InternalError(BrokerError):
    """The cluster has not done it in time."""

    code, http_status = ReplyCode.INTERNAL_ERROR, 503


class BrokerFailed(InternalError):
    """The broker itself is at fault."""

    http_status = 500

    def __init__(self) -> None:
        super().__init__("the broker failed, see its log")


class StartFailed(Exception):
    """Error that keeps a node from starting here, as a sentence that says what to change."""


class NodeMustStop(Exception):
    """Error that ends a running node through no fault of the program; a sentence says what to
    do."""


def inequivalent(key: str, where: str, received: str, current: str) -> PreconditionFailed:
    """Return the error for an exchange or a queue that is declared again as another."""
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
