"""fluffle/…: endpoints beyond RabbitMQ's API: messages of a queue, and verbs of the control socket;
and mqtt/retained/…: what topics retain, for users that monitor.

`fluffle/verbs/{verb}` is the control socket for administrators that are elsewhere: the body has the
arguments of a verb, the answer is what the socket would say, whose errors keep their codes.
"""

from __future__ import annotations

from http import HTTPStatus
from json import dumps
from math import prod
from typing import Any

from fluffle.broker.access.access import ResourceKind, Rights
from fluffle.broker.access.access import Right as Needed
from fluffle.broker.admin.context import Row
from fluffle.broker.admin.dispatch import error_row
from fluffle.broker.admin.messages import BODY_BYTES
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Routes
from fluffle.broker.protocols.http.responses import ListingResponse, Reply, bad_request
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.vhosts.vhost import existing_queue

routes = Routes()
RETAINED = "mqtt/retained/{vhost}"

AT_ONCE = 1000
"""Messages that are moved by one request; for more it is repeated."""
PEEKED_BYTES_MAX = 1 << 26
"""Most bytes of bodies in one answer, which is made in memory."""
FIRST_DEATH = "x-first-death-queue"
QUEUE = "fluffle/queues/{vhost}/{name}"

READ: tuple[Needed, ResourceKind] = "read", "queue"


def of(**types: str) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "properties": {name: {"type": each} for name, each in types.items()}}


EXPLAIN = of(exchange="string", routing_key="string", headers="object", properties="object")
PEEK = of(count="integer", offset="integer", body_bytes="integer")
MOVE = of(to="string", routing_key="string", where="array", limit="integer", rate="integer")


def check(call: Call, needed: tuple[Needed, ResourceKind], name: str) -> None:
    """AccessRefused."""
    right, kind = needed
    Rights(call.context.access, call.user, call.vhost().name).check(right, kind, name)


def queue_in(call: Call) -> dict[str, Any]:
    """Queue in the path, as verbs name it.  NotFound."""
    queue = existing_queue(call.vhost(), call.path["name"])
    return {"vhost": call.vhost().name, "name": queue.name}


def readable_queue_in(call: Call) -> dict[str, Any]:
    """The same, from which he may read.  AccessRefused, NotFound; ResourceLocked for one that is
    exclusive to a connection, unless he administers."""
    check(call, READ, call.path["name"])
    if not call.is_administrator:
        call.vhost().queue(call.path["name"], None)
    return queue_in(call)


@routes.post(
    "fluffle/explain/{vhost}",
    Right.VHOST_VISIBLE,
    "Where a message would go, by which bindings, and why not elsewhere.",
    body=EXPLAIN,
)
async def explain(call: Call) -> Row:
    """Where a message would go."""
    vhost = call.vhost().name
    return await call.result("messages.explain", **{**call.json(), "vhost": vhost})


@routes.post(
    f"{QUEUE}/peek", Right.VHOST, "Ready messages of a queue, without taking them.", body=PEEK
)
async def peek(call: Call) -> list[Row]:
    """Ready messages, which stay as they are.  Refusal for more than an answer may have in it."""
    given = {"count": 1, "body_bytes": BODY_BYTES, **call.json(), **readable_queue_in(call)}
    sizes = given["count"], given["body_bytes"]
    if all(isinstance(each, int) for each in sizes) and prod(sizes) > PEEKED_BYTES_MAX:
        raise bad_request(f"'count' times 'body_bytes' may be {PEEKED_BYTES_MAX}")
    return await call.rows("queues.peek", **given)


@routes.post(
    f"{QUEUE}/move",
    Right.VHOST,
    "Move messages to another queue: 1000, if no limit is given.",
    body=MOVE,
)
async def move(call: Call) -> Row:
    """Some messages to another queue; there may be more if as many were moved as may be at once."""
    given = {"limit": AT_ONCE, **call.json(), **readable_queue_in(call)}
    check(call, ("write", "exchange"), "")
    return (await call.rows("queues.move", **given))[-1]


@routes.post(
    f"{QUEUE}/redrive",
    Right.VHOST,
    "Move dead letters back to the queues in which they died first.",
    body=of(),
)
async def redrive(call: Call) -> Row:
    """Dead letters among the first messages, each to the queue in which it has died first."""
    where, moved = readable_queue_in(call), dict[str, int]()
    check(call, ("write", "exchange"), "")
    seen = await call.rows("queues.peek", **where, count=AT_ONCE, body_bytes=0)
    origins = dict.fromkeys(str(row["headers"].get(FIRST_DEATH, "")) for row in seen)
    queues = call.vhost().queues
    for origin in origins:
        if origin in queues and origin != where["name"]:
            given = {"to": origin, "where": [f"{FIRST_DEATH}={origin}"], "limit": AT_ONCE}
            rows = await call.rows("queues.move", **where, **given)
            moved[origin] = rows[-1]["moved"]
    return {"moved": sum(moved.values()), "queues": moved}


@routes.get(
    f"{QUEUE}/held", Right.VHOST_VISIBLE, "Who has messages of a queue in hands, and for how long."
)
async def held(call: Call) -> list[Row]:
    """Rows of the messages that clients hold; without monitoring rights, only of a queue that the
    user may read."""
    where = queue_in(call) if call.is_monitor else readable_queue_in(call)
    return await call.rows_everywhere("messages.held", **where)


@routes.get(RETAINED, Right.MONITORING, "What topics of a virtual host retain.")
async def retained(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("retained.list", vhost=call.vhost().name))


@routes.get(f"{RETAINED}/{{topic}}", Right.MONITORING, "What a topic retains.")
async def retained_one(call: Call) -> Row:
    """Retained message of the topic in the path.  NotFound."""
    return await call.result("retained.show", vhost=call.vhost().name, topic=call.path["topic"])


@routes.delete(RETAINED, Right.ADMINISTRATOR, "Remove all that is retained.")
async def clear_retained(call: Call) -> None:
    """All of a virtual host."""
    await call.result("retained.clear_all", vhost=call.vhost_to_change().name)


@routes.delete(f"{RETAINED}/{{topic}}", Right.ADMINISTRATOR, "Remove what a topic retains.")
async def clear_retained_one(call: Call) -> None:
    """Clear the retained message of the topic in the path.  NotFound."""
    await call.result("retained.clear", vhost=call.vhost_to_change().name, topic=call.path["topic"])


@routes.post(
    "fluffle/verbs/{verb}",
    Right.ADMINISTRATOR,
    "Act on a verb of the control socket; the body is an object of its arguments.",
    body={"type": "object"},
)
async def ask(call: Call) -> Reply:
    """`{"result": …}`, `{"rows": […]}` or `{"error": {code, name, text}}`."""
    try:
        answer = await call.verbs.answer(call.path["verb"], await call.long_json())
    except BrokerError as error:
        body = dumps({"error": error_row(error)}).encode()
        return Reply(HTTPStatus(error.http_status), body)
    name = "rows" if isinstance(answer, list) else "result"
    return Reply(HTTPStatus.OK, dumps({name: answer}, default=str).encode())
