"""From a path and a body to an answer: where operations are called, and errors become statuses.

| 200 | it is done |
| 400 | the arguments are wrong |
| 404 | there is no such path, virtual host, queue … |
| 409 | it is not as was expected |
| 500 | a bug, reported in the log |
| 503 | it has not ended in time |
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable
from http import HTTPStatus
from typing import NoReturn
from urllib.parse import unquote

from fluffle.broker.admin.arguments import check_arguments
from fluffle.broker.base.errors import BrokerError, InternalError, NotFound, SyntaxFailure
from fluffle.broker.config.start_error import StartFailed
from fluffle.broker.definitions.parser import DefinitionsError
from fluffle.broker.node import NodeFailed
from fluffle.broker.patterns.patterns import UnusablePattern
from fluffle.broker.testing.server.http import HttpResponse
from fluffle.broker.testing.server.operations import WITHIN_S_MAX, Operations, Row

NAMED = re.compile(r"\b(node|vhost)s/([^/]+)/")
"""What a path names; a virtual host may be called `nodes`, but is in front of what follows it."""
ANSWER_BYTES_MAX = 1 << 26
ENDS_IN_S = WITHIN_S_MAX + 30.0
"""What takes longer will never end."""

logger = logging.getLogger(__name__)


class Dispatcher:
    """The operations on one broker, or on one cluster."""

    __slots__ = ("_operations", "_served")

    def __init__(self, served: object, operations: Operations) -> None:
        self._served = served
        self._operations = operations

    async def answer(self, path: str, body: bytes) -> HttpResponse:
        """Do what is asked for."""
        try:
            async with asyncio.timeout(ENDS_IN_S):
                return answer_of(await self._act(path, body))
        except RecursionError:
            return HttpResponse.error(HTTPStatus.BAD_REQUEST, "this is nested too deeply")
        except TimeoutError as error:
            if not str(error):
                why = f"it is not done in {ENDS_IN_S:g} s"
                return HttpResponse.error(HTTPStatus.SERVICE_UNAVAILABLE, why)
            return HttpResponse.error(HTTPStatus.CONFLICT, str(error))
        except (AssertionError, RuntimeError, NodeFailed, StartFailed) as error:
            return HttpResponse.error(HTTPStatus.CONFLICT, str(error))
        except BrokerError as error:
            return HttpResponse.error(status_of(error), error.explanation)
        except (DefinitionsError, UnusablePattern, TypeError, ValueError, OverflowError) as error:
            return HttpResponse.error(HTTPStatus.BAD_REQUEST, str(error))
        except Exception:  # a bug ends one request, not the broker
            logger.exception("an operation of the test server failed")
            return HttpResponse.error(
                HTTPStatus.INTERNAL_SERVER_ERROR, "this is a bug; see the log"
            )

    async def _act(self, path: str, body: bytes) -> Row:
        named: dict[str, str] = {}

        def take(found: re.Match[str]) -> str:
            named[found[1]] = unquote(found[2], errors="strict")
            return f"{found[1]}s/{{{found[1]}}}/"

        path = NAMED.sub(take, path)
        operation = self._operations.get(path)
        if operation is None:
            raise NotFound(f"there is no path '{path}', but: {', '.join(self._operations)}")
        arguments = read(body)
        try:
            check_arguments(operation.arguments, arguments)
        except SyntaxFailure as error:
            there = ", ".join(operation.arguments) or "none"
            raise SyntaxFailure(f"{error.explanation}; the arguments are: {there}") from None
        row = operation.act(operation.on(self._served, **named), **arguments)
        return await row if isinstance(row, Awaitable) else row


def read(body: bytes) -> Row:
    """Parse arguments; without a body there are none.  ValueError, RecursionError,
    SyntaxFailure."""
    arguments = json.loads(body or b"{}", parse_constant=refuse)
    if not isinstance(arguments, dict):
        raise SyntaxFailure("arguments are an object of JSON")
    return arguments


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


def answer_of(row: Row) -> HttpResponse:
    """SyntaxFailure for more than is answered at once."""
    body = json.dumps(row, default=str).encode()
    if len(body) > ANSWER_BYTES_MAX:
        raise SyntaxFailure(
            f"the answer has {len(body)} bytes, and the limit is {ANSWER_BYTES_MAX}; ask for fewer"
        )
    return HttpResponse(HTTPStatus.OK, body)


def status_of(error: BrokerError) -> HTTPStatus:
    if isinstance(error, NotFound):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, InternalError):
        return HTTPStatus.INTERNAL_SERVER_ERROR
    return HTTPStatus.BAD_REQUEST
