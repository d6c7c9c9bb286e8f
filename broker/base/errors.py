"""Errors that clients cause: one class a reply code, with RabbitMQ's texts.

Raised anywhere below the protocols; turned into a close frame in one place, `server/connection`.
"""

from typing import ClassVar

from fluffle.protocol.spec import SOFT_CODES, ReplyCode, reply_text


class BrokerError(Exception):
    """Error with what the peer must be sent.  `explanation` is the text behind `NAME - `."""

    code: ClassVar[ReplyCode]
    http_status: ClassVar[int]

    def __init__(self, explanation: str) -> None:
        super().__init__(explanation)
        self.explanation = explanation

    @property
    def is_soft(self) -> bool:
        """Whether only the channel is closed (RabbitMQ decides by the code alone)."""
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


class ResourceLocked(BrokerError):
    code, http_status = ReplyCode.RESOURCE_LOCKED, 400


class PreconditionFailed(BrokerError):
    code, http_status = ReplyCode.PRECONDITION_FAILED, 400


class DeleteProtected(BrokerError):
    """A queue or virtual host is protected against deletion."""

    code, http_status = ReplyCode.PRECONDITION_FAILED, 412


class ConnectionForced(BrokerError):
    code, http_status = ReplyCode.CONNECTION_FORCED, 400


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
