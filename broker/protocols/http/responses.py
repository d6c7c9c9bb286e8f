"""Answers to requests and refusals, with RabbitMQ's statuses and bodies.

An endpoint returns what there is: a row or a list (200), `ListingResponse` (200, after paging),
None (204), `Created` (201) or a `Reply`.  It raises `Refusal`, or `BrokerError` as the rest of the
broker does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    BrokerFailed,
    DeleteProtected,
    InternalError,
    NotAllowed,
    NotFound,
)
from fluffle.protocol.spec import ReplyCode

JSON = "application/json"
LOGIN = {"www-authenticate": 'Basic realm="RabbitMQ Management"'}
UNAUTHORIZED = HTTPStatus.UNAUTHORIZED


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it leaves."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Created:
    """Answer that an object was created."""

    location: str | None = None
    """Where it is, below `/api/`; None for the path that was asked for."""


@dataclass(frozen=True, slots=True)
class ListingResponse:
    """Rows of which the client may want some columns, in an order, by the page."""

    rows: list[Row]
    """Rows with the columns that can be made at once."""
    complete: Callable[[list[Row]], Awaitable[list[Row]]] | None = None
    """Adds to some of them, in order, what is only asked for if it is wanted."""


Answer: TypeAlias = Row | list[Any] | ListingResponse | Created | Reply | None


class Refusal(Exception):
    """Exception that answers the request with a reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def error_reply(status: HTTPStatus, error: str, reason: object, **headers: str) -> Reply:
    """RabbitMQ's `{"error": …, "reason": …}`."""
    return Reply(status, body_of(error, reason), headers=headers)


def bad_request(reason: object) -> Refusal:
    """400: what is asked for cannot be."""
    return unlike("bad_request", reason)


def unlike(error: str, reason: object) -> Refusal:
    """400, by another name."""
    return Refusal(error_reply(HTTPStatus.BAD_REQUEST, error, reason))


def not_found() -> Refusal:
    """404: there is no such object, or no such path."""
    return Refusal(error_reply(HTTPStatus.NOT_FOUND, "Object Not Found", "Not Found"))


def not_there(reason: str) -> Refusal:
    """404: what a request names is not there."""
    return Refusal(error_reply(HTTPStatus.NOT_FOUND, "not_found", reason))


def unavailable(reason: str) -> Refusal:
    """503: not now."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return Refusal(error_reply(status, "service_unavailable", reason))


def too_large(reason: str) -> Refusal:
    """413: what is sent is more than is read."""
    return Refusal(error_reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "bad_request", reason))


def not_authorized(reason: str) -> Refusal:
    """401, for a user who is known."""
    return Refusal(Reply(UNAUTHORIZED, body_of("not_authorised", reason)))


def as_json(content: object) -> bytes:
    """Without blanks, as RabbitMQ writes it."""
    return json.dumps(content, default=str, separators=(",", ":")).encode()


def internal_error(explanation: str) -> Reply:
    """503 with the reason why the cluster has not done something in time; 500 for a failure of
    the broker itself."""
    if explanation == BrokerFailed().explanation:
        return error_reply(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", explanation)
    return error_reply(HTTPStatus.SERVICE_UNAVAILABLE, "timeout", explanation)


def body_of(error: str, reason: object) -> bytes:
    return as_json({"error": error, "reason": reason})


def reply_to(error: BrokerError) -> Reply:
    """Reply of RabbitMQ where a declaration or another change is refused."""
    if isinstance(error, NotFound):
        return not_found().reply
    if isinstance(error, AccessRefused | NotAllowed):
        return Reply(UNAUTHORIZED, body_of("not_authorised", "Access refused."))
    if isinstance(error, DeleteProtected):
        status = HTTPStatus.PRECONDITION_FAILED
        return Reply(status, body_of("precondition_failed", error.explanation))
    if isinstance(error, InternalError):
        return internal_error(error.explanation)
    return Reply(HTTPStatus.BAD_REQUEST, body_of("bad_request", error.explanation))


FORBIDDEN = (ReplyCode.ACCESS_REFUSED, ReplyCode.NOT_ALLOWED)


def declaration_refusal(error: BrokerError) -> Refusal:
    """Refusal of a definition or a purge: with the explanation alone, as RabbitMQ words it."""
    if error.code == ReplyCode.NOT_FOUND:
        return not_there(error.explanation)
    if error.code in FORBIDDEN:
        return Refusal(error_reply(UNAUTHORIZED, "not_authorised", "Access refused."))
    return other_refusal(error, error.explanation)


def publish_refusal(error: BrokerError) -> Refusal:
    """Refusal of a message that is put somewhere: here RabbitMQ gives the code, too."""
    return other_refusal(error, f"{error.code} {error.reply_text}")


def get_refusal(error: BrokerError) -> Refusal:
    """Refusal of messages that are taken from somewhere."""
    if error.code == ReplyCode.NOT_FOUND:
        return not_there(error.reply_text)
    if error.code in FORBIDDEN:
        return Refusal(error_reply(UNAUTHORIZED, "not_authorised", error.reply_text))
    return publish_refusal(error)


def other_refusal(error: BrokerError, reason: str) -> Refusal:
    """The client is at fault, or the broker."""
    if error.code == ReplyCode.INTERNAL_ERROR:
        return Refusal(internal_error(error.explanation))
    return bad_request(reason)
