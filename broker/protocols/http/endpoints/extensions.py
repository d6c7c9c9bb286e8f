"""fluffle/…: what RabbitMQ does not have.

`fluffle/verbs/{verb}` is the control socket for administrators that are elsewhere: the body has the
arguments of a verb, the answer is what the socket would say, whose errors keep their codes.
"""

from __future__ import annotations

from http import HTTPStatus
from json import dumps

from fluffle.broker.admin.dispatch import error_row
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint
from fluffle.broker.protocols.http.endpoints import browse
from fluffle.broker.protocols.http.responses import Reply
from fluffle.broker.protocols.http.rights import Right


async def ask(call: Call) -> Reply:
    """`{"result": …}`, `{"rows": […]}` or `{"error": {code, name, text}}`."""
    try:
        answer = await call.verbs.answer(call.path["verb"], await call.long_json())
    except BrokerError as error:
        body = dumps({"error": error_row(error)}).encode()
        return Reply(HTTPStatus(error.http_status), body)
    name = "rows" if isinstance(answer, list) else "result"
    return Reply(HTTPStatus.OK, dumps({name: answer}, default=str).encode())


ENDPOINTS = (
    *browse.ENDPOINTS,
    Endpoint(
        "POST",
        "fluffle/verbs/{verb}",
        Right.ADMINISTRATOR,
        ask,
        "Act on a verb of the control socket; the body is an object of its arguments.",
        body={"type": "object"},
    ),
)
