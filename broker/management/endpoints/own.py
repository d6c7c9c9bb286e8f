"""fluffle/…: what RabbitMQ does not have.

`fluffle/verbs/{verb}` is the control socket for administrators that are elsewhere: the body has the
arguments of a verb, the answer is what the socket would say, whose errors keep their codes.
"""

from __future__ import annotations

from http import HTTPStatus
from json import dumps

from fluffle.broker.control.dispatch import error_row
from fluffle.broker.errors import BrokerError
from fluffle.broker.management.call import Call
from fluffle.broker.management.endpoints import looking
from fluffle.broker.management.replies import Reply
from fluffle.broker.management.rights import Right
from fluffle.broker.management.table import Endpoint


async def ask(call: Call) -> Reply:
    """`{"result": …}`, `{"rows": […]}` or `{"error": {code, name, text}}`."""
    try:
        told = await call.asking.told(call.path["verb"], await call.long_json())
    except BrokerError as error:
        body = dumps({"error": error_row(error)}).encode()
        return Reply(HTTPStatus(error.http_status), body)
    name = "rows" if isinstance(told, list) else "result"
    return Reply(HTTPStatus.OK, dumps({name: told}, default=str).encode())


ENDPOINTS = (
    *looking.ENDPOINTS,
    Endpoint(
        "POST",
        "fluffle/verbs/{verb}",
        Right.ADMINISTRATOR,
        ask,
        "Act on a verb of the control socket; the body is an object of its arguments.",
        body={"type": "object"},
    ),
)
