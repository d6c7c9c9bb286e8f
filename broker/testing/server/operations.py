"""Operations of the control API by path, and the `OperationDispatcher` of paths and bodies.

A function takes the broker, or of the virtual host that `{vhost}` in its path names what is in it,
or what can go wrong with it; its signature says which arguments it takes, and its docstring is what
docs/test-server.md says of it.  Names and meanings are those of Python's `Broker` and `Vhost`.
What they raise becomes a status:

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
import struct
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, fields
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, get_args
from urllib.parse import unquote

from fluffle.broker.admin.arguments import Argument, arguments_of, check_arguments, is_text
from fluffle.broker.admin.context import NodeContext
from fluffle.broker.admin.messages import check_bounds
from fluffle.broker.base.errors import (
    BrokerError,
    InternalError,
    NotFound,
    StartFailed,
    SyntaxFailure,
)
from fluffle.broker.definitions.file_format import DefinitionsError, table_of
from fluffle.broker.node import NodeFailed
from fluffle.broker.patterns.patterns import UnusablePattern
from fluffle.broker.testing.arguments import VhostRequirements
from fluffle.broker.testing.broker import Broker
from fluffle.broker.testing.faults.operations import OPERATIONS as FAULTS
from fluffle.broker.testing.faults.tapped_transport import FaultScope
from fluffle.broker.testing.messages import HeldMessage, Message
from fluffle.broker.testing.server.http import HttpResponse
from fluffle.broker.testing.timeline import Passage, SeenPacket
from fluffle.broker.testing.vhost import Vhost
from fluffle.protocol.properties import Properties

if TYPE_CHECKING:
    from fluffle.broker.testing.cluster.cluster import Cluster, ClusterVhost
else:  # signatures are read, and name them; a cluster is imported only if there is one
    Cluster = ClusterVhost = object


Row: TypeAlias = dict[str, Any]
"""In values that JSON has."""
Act: TypeAlias = Callable[..., Awaitable[Row | None] | Row | None]
Operations: TypeAlias = "Mapping[str, ControlOperation]"
"""Operations by path."""

logger = logging.getLogger(__name__)

VHOST = "vhosts/{vhost}/"
"""How paths begin of what is done to one of the virtual hosts."""
WITHIN_S_MAX = 300.0
NAMED = re.compile(r"\b(node|vhost)s/([^/]+)/")
"""Node or virtual host in a path; a virtual host may be called `nodes`, but comes before what
follows it."""
ANSWER_BYTES_MAX = 1 << 26
ENDS_IN_S = WITHIN_S_MAX + 30.0
"""Time in seconds after which an operation is given up."""
PROPERTIES: Mapping[str, Argument] = {
    field.name: Argument(get_args(field.type), required=False)
    for field in fields(Properties)
    if field.name != "headers"
}
MESSAGES = 100
MESSAGES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class ControlOperation:
    """Something that can be asked for."""

    act: Act
    arguments: Mapping[str, Argument]
    on: Callable[..., object]
    """Function that finds the target: a broker or cluster, or what is named in the path."""


def operations(start: str, acts: Mapping[str, Act], on: Callable[..., object]) -> Operations:
    """Operations of `acts`, with paths that begin with `start`."""
    return {
        start + path: ControlOperation(act, arguments_of(act), on) for path, act in acts.items()
    }


def by_path(faults: Mapping[str, Act]) -> Mapping[str, Act]:
    return {name.replace(".", "/"): act for name, act in faults.items()}


async def vhosts(served: Broker | Cluster) -> Row:
    """The names of all virtual hosts."""
    return {"vhosts": list(parts_of(served).catalogue.vhosts)}


async def add_vhost(
    served: Broker | Cluster,
    *,
    name: str = "",
    users: Row | None = None,
    permissions: Row | None = None,
    definitions: Row | None = None,
    default_queue_type: str | None = None,
) -> Row:
    """A fresh virtual host, in which all users may do everything.

    It may have users of its own (names with passwords, the first one is in `url`) and definitions
    as RabbitMQ exports them; `permissions` are names with three patterns: configure, write, read.
    `mqtt_url` is for MQTT clients.  Of a cluster there are `urls` and `mqtt_urls` of all nodes,
    too.
    """
    texts = [*(users or {}).values(), *chain.from_iterable((permissions or {}).values())]
    if not all(map(is_text, texts)):
        raise ValueError("passwords are strings, permissions lists of strings")
    wanted = VhostRequirements(users or {}, permissions or {}, definitions, default_queue_type)
    taken = parts_of(served).catalogue.vhosts
    free = (name for number in served.numbers if (name := f"test-{number}") not in taken)
    name = name or next(free)
    vhost = await served.add_vhost(name, wanted)
    row = {"name": vhost.name, "url": vhost.url, "mqtt_url": vhost.mqtt_url}
    if isinstance(served, Broker):
        return row
    numbers = [node.number for node in served.nodes]
    return {
        **row,
        "urls": [served.url_of(name, number) for number in numbers],
        "mqtt_urls": [served.mqtt_url_of(name, number) for number in numbers],
    }


async def delete_vhost(served: Broker | Cluster, *, name: str) -> None:
    """A virtual host with all that is in it; its connections are closed."""
    await served.delete_vhost(name)


async def advance(
    served: Broker | Cluster,
    *,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
) -> None:
    """Time passes for messages and queues: TTLs, expiry, delays, consumers that hold on."""
    await served.clock.advance(days=days, hours=hours, minutes=minutes, seconds=seconds)


async def queues(vhost: Vhost | ClusterVhost) -> Row:
    """All queues by their names, as `fluffle queues list` shows them."""
    return {"queues": await vhost.queues()}


async def expect(
    vhost: Vhost | ClusterVhost,
    *,
    queue: str,
    count: int | None = None,
    ready: int | None = None,
    unacked: int | None = None,
    consumers: int | None = None,
    within: float = 2.0,
) -> None:
    """Wait until a queue has so many messages (in all, ready, unacknowledged) and consumers;
    409 after `within` seconds."""
    check_within(within)
    await vhost.expect(
        queue, count=count, ready=ready, unacked=unacked, consumers=consumers, within=within
    )


async def messages(vhost: Vhost | ClusterVhost, *, queue: str, count: int = MESSAGES) -> Row:
    """The first messages that are ready, in order; they stay as they are."""
    check_bounds(count, "count", 1, MESSAGES_MAX)
    return {"messages": [row_of(message) for message in await vhost.messages(queue, count=count)]}


async def publish(
    vhost: Vhost | ClusterVhost,
    *,
    routing_key: str,
    exchange: str = "",
    body: str = "",
    body_encoding: str = "utf-8",
    headers: Row | None = None,
    properties: Row | None = None,
) -> None:
    """Publish without a client; `properties` by their AMQP names; 409 if it leads nowhere."""
    named = properties or {}
    check_arguments(PROPERTIES, named)
    content = bytes_of(body, body_encoding)
    try:
        await vhost.publish(
            exchange, routing_key, content, headers=headers and table_of(headers), **named
        )
    except struct.error as error:
        raise ValueError(str(error)) from error  # a number that does not fit


async def explain(
    vhost: Vhost | ClusterVhost,
    *,
    routing_key: str,
    exchange: str = "",
    headers: Row | None = None,
    properties: Row | None = None,
) -> Row:
    """Where a message would go: `queues`, and as `text` which bindings match or not, and why;
    `properties` as for `publish`."""
    named = properties or {}
    check_arguments(PROPERTIES, named)
    try:
        explanation = await vhost.explain(exchange, routing_key, table_of(headers or {}), **named)
    except struct.error as error:
        raise ValueError(str(error)) from error  # a number that does not fit
    return {"queues": list(explanation.queues), "text": str(explanation)}


async def get(vhost: Vhost, *, queue: str, outcome: str = "ack", within: float = 2.0) -> Row:
    """Take the next message as a consumer does; `outcome` is `ack`, `reject` or `requeue`; 409 if
    there is none within so many seconds."""
    check_within(within)
    if outcome not in OUTCOMES:
        raise ValueError(f"'outcome' is one of: {', '.join(OUTCOMES)}")
    message = await vhost.get(queue, within=within)
    OUTCOMES[outcome](message)
    return {"message": row_of(message)}


async def consume(vhost: Vhost, *, queue: str, count: int = 1, within: float = 2.0) -> Row:
    """Take so many messages, and acknowledge them; 409 if there are not as many within so many
    seconds, and those that came go back."""
    check_within(within)
    check_bounds(count, "count", 1, MESSAGES_MAX)
    found = await vhost.consume(queue, count=count, within=within)
    return {"messages": [row_of(message) for message in found]}


async def purge(vhost: Vhost | ClusterVhost, *, queue: str) -> Row:
    """Drop ready messages; how many there were."""
    return {"messages": await vhost.purge(queue)}


async def history(vhost: Vhost | ClusterVhost, *, queue: str, count: int = MESSAGES) -> Row:
    """History of the first `count` messages of a queue: `state` and `steps` of each."""
    check_bounds(count, "count", 1, MESSAGES_MAX)
    return {"messages": [passage_row(each) for each in (await vhost.history(queue))[:count]]}


async def timeline(vhost: Vhost | ClusterVhost) -> Row:
    """Timeline of the virtual host, as `text`."""
    return {"text": await vhost.timeline()}


async def no_unacked(vhost: Vhost | ClusterVhost, *, within: float = 2.0) -> None:
    """409 with what is not acknowledged after `within` seconds."""
    check_within(within)
    await vhost.assert_no_unacked(within=within)


async def no_unroutable(vhost: Vhost | ClusterVhost) -> None:
    """409 with what was published and led nowhere."""
    await vhost.assert_no_unroutable()


async def no_leaked_channels(vhost: Vhost | ClusterVhost, *, within: float = 2.0) -> None:
    """409 with what is still open after `within` seconds."""
    check_within(within)
    await vhost.assert_no_leaked_channels(within=within)


async def sessions(vhost: Vhost | ClusterVhost) -> Row:
    """All sessions of MQTT by client identifiers, as `/api/mqtt/sessions` shows them."""
    return {"sessions": await vhost.sessions()}


async def packets(
    vhost: Vhost | ClusterVhost,
    *,
    packet: str | None = None,
    client: str | None = None,
    topic: str | None = None,
    sent_by: str | None = None,
) -> Row:
    """Packets that MQTT clients have sent or were sent, in order: of one type as `PUBLISH`, of one
    client by its identifier, with a topic or topic filter, sent by the `client` or the `broker`."""
    found = await vhost.packets(packet, client=client, topic=topic, sent_by=sent_by)
    return {"packets": [packet_row(each) for each in found]}


async def expect_packets(
    vhost: Vhost | ClusterVhost,
    *,
    packet: str,
    client: str | None = None,
    topic: str | None = None,
    sent_by: str = "client",
    count: int = 1,
    within: float = 2.0,
) -> Row:
    """The same, once there are so many at least; 409 after `within` seconds."""
    check_within(within)
    found = await vhost.expect_packets(
        packet, client=client, topic=topic, sent_by=sent_by, count=count, within=within
    )
    return {"packets": [packet_row(each) for each in found]}


def packet_row(packet: SeenPacket) -> Row:
    payload, encoding = shown(packet.payload)
    row = {**asdict(packet), "payload": payload, "payload_encoding": encoding}
    return {**row, "filters": list(packet.filters)}


def passage_row(passage: Passage) -> Row:
    body, encoding = shown(passage.body)
    return {
        "body": body,
        "body_encoding": encoding,
        "exchange": passage.exchange,
        "routing_key": passage.routing_key,
        "state": passage.state,
        "acked_by": passage.acked_by,
        "steps": [
            {
                "what": step.what,
                "at_ms": step.at_ms,
                "connection": step.who.connection,
                "channel": step.who.channel,
                "consumer_tag": step.consumer_tag,
                "detail": step.detail,
            }
            for step in passage.steps
        ],
    }


def row_of(message: Message) -> Row:
    body, encoding = shown(message.body)
    return {
        "body": body,
        "body_encoding": encoding,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "headers": dict(message.headers),
        "properties": dict(message.properties),
        "redelivered": message.redelivered,
    }


def shown(body: bytes) -> tuple[str, str]:
    """A body in JSON, and how it is written there."""
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return b64encode(body).decode(), "base64"


def bytes_of(body: str, encoding: str) -> bytes:
    """The way back.  ValueError."""
    if encoding == "base64":
        return b64decode(body, validate=True)
    if encoding != "utf-8":
        raise ValueError("'body_encoding' is utf-8 or base64")
    return body.encode(errors="surrogateescape")


def check_within(seconds: float) -> None:
    """ValueError."""
    if not 0 <= seconds <= WITHIN_S_MAX:
        raise ValueError(f"'within' is from 0 to {WITHIN_S_MAX:g} seconds")


OUTCOMES: Mapping[str, Callable[[HeldMessage], None]] = {
    "ack": HeldMessage.ack,
    "reject": HeldMessage.reject,
    "requeue": lambda message: message.reject(requeue=True),
}
ON_ALL: Mapping[str, Act] = {
    "vhosts": vhosts,
    "vhosts/add": add_vhost,
    "vhosts/delete": delete_vhost,
    "clock/advance": advance,
}
ON_VHOST: Mapping[str, Act] = {
    "queues": queues,
    "expect": expect,
    "messages": messages,
    "publish": publish,
    "explain": explain,
    "purge": purge,
    "history": history,
    "timeline": timeline,
    "sessions": sessions,
    "packets": packets,
    "packets/expect": expect_packets,
    "assert/no_unacked": no_unacked,
    "assert/no_unroutable": no_unroutable,
    "assert/no_leaked_channels": no_leaked_channels,
}
TAKING: Mapping[str, Act] = {"get": get, "consume": consume}


def parts_of(served: Broker | Cluster) -> NodeContext:
    """Return the context of one node, with a majority if any has.  RuntimeError if none runs."""
    return served.node.parts if isinstance(served, Broker) else served.nodes.well().parts


def itself(served: object) -> object:
    return served


def vhost_of(served: Broker | Cluster, vhost: str) -> Vhost | ClusterVhost:
    """NotFound."""
    return served.vhost(vhost)


def scope_of(broker: Broker, vhost: str) -> FaultScope:
    """NotFound."""
    broker.node.parts.vhost(vhost)
    return broker.scope(vhost)


OPERATIONS: Operations = {
    **operations("", ON_ALL, itself),
    **operations(VHOST, {**ON_VHOST, **TAKING}, vhost_of),
    **operations(VHOST, by_path(FAULTS), scope_of),
}
"""Operations of a broker; those of a cluster are in `cluster_operations`."""


class OperationDispatcher:
    """The operations on one broker, or on one cluster."""

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
        return (await row if isinstance(row, Awaitable) else row) or {}


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
