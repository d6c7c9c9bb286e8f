"""Requests that are done by an AMQP channel, and the HTTP answers for its refusals.

RabbitMQ words refusals in two ways: what is declared is refused with the explanation alone, what is
done with messages also with the code.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.direct_client import ClosedByBroker, DirectChannel
from fluffle.broker.protocols.http.responses import (
    UNAUTHORIZED,
    Refusal,
    bad_request,
    error_reply,
    internal_error,
    not_there,
)
from fluffle.protocol.methods import Basic, Confirm, Method, make
from fluffle.protocol.spec import ReplyCode

FORBIDDEN = (ReplyCode.ACCESS_REFUSED, ReplyCode.NOT_ALLOWED)
CONFIRM_TIMEOUT_S = 5.0
"""RabbitMQ waits so long until a message is safe."""


async def declare(call: Call, *methods: Method) -> None:
    """Have definitions changed, or a queue purged.  Refusal."""
    try:
        async with call.channel() as channel:
            for method in methods:
                await channel.call(method)
    except ClosedByBroker as refused:
        raise declaration_refusal(refused) from None


def declaration_refusal(refused: ClosedByBroker) -> Refusal:
    if refused.code == ReplyCode.NOT_FOUND:
        return not_there(refused.explanation)
    if refused.code in FORBIDDEN:
        return Refusal(error_reply(UNAUTHORIZED, "not_authorised", "Access refused."))
    return other_refusal(refused, refused.explanation)


def other_refusal(refused: ClosedByBroker, reason: str) -> Refusal:
    """The client is at fault, or the broker."""
    if refused.code == ReplyCode.INTERNAL_ERROR:
        return Refusal(internal_error(refused.explanation))
    return bad_request(reason)


@asynccontextmanager
async def publish_channel(call: Call) -> AsyncIterator[DirectChannel]:
    """A channel for messages that are put somewhere.  Refusal."""
    try:
        async with call.channel() as channel:
            yield channel
    except ClosedByBroker as refused:
        raise other_refusal(refused, f"{refused.code} {refused.text}") from None


@asynccontextmanager
async def get_channel(call: Call) -> AsyncIterator[DirectChannel]:
    """A channel for messages that are taken from somewhere.  Refusal."""
    try:
        async with call.channel() as channel:
            yield channel
    except ClosedByBroker as refused:
        if refused.code == ReplyCode.NOT_FOUND:
            raise not_there(refused.text) from None
        if refused.code in FORBIDDEN:
            refusal = error_reply(UNAUTHORIZED, "not_authorised", refused.text)
            raise Refusal(refusal) from None
        raise other_refusal(refused, f"{refused.code} {refused.text}") from None


async def publish(
    channel: DirectChannel, exchange: str, routing_key: str, raw_properties: bytes, body: bytes
) -> bool:
    """Publish a message and wait until it is safe; whether it led to a queue.  Refusal for one that
    some queue did not take, or that is not safe in time."""
    await channel.call(make(Confirm.Select))
    channel.publish(exchange, routing_key, raw_properties, body)
    try:
        async with asyncio.timeout(CONFIRM_TIMEOUT_S):
            return await _is_routed(channel)
    except TimeoutError:
        raise bad_request(f"confirm_timeout no confirm in {CONFIRM_TIMEOUT_S:g} s") from None


async def _is_routed(channel: DirectChannel) -> bool:
    is_routed = True
    while True:
        heard = await channel.next(Basic.Return, Basic.Ack, Basic.Nack)
        if isinstance(heard.method, Basic.Nack):
            raise bad_request("rejected Unable to publish message. Check queue limits.")
        if isinstance(heard.method, Basic.Ack):
            return is_routed
        is_routed = False
