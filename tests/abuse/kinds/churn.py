"""Coming and going without end: connections, channels, queues and errors."""

from __future__ import annotations

import socket
import struct
from random import Random

from fluffle.protocol.methods import Basic, Channel, Queue, make
from tests.abuse.target import AttackContext

ROUNDS = 20
NOT_FOUND, PRECONDITION_FAILED = 404, 406
CLOSE = make(Channel.Close, reply_code=200, reply_text="", class_id=0, method_id=0)


def connection_churn(context: AttackContext, chance: Random) -> None:
    """Connections that are opened and left in order, without a word, or with a reset."""
    for _ in range(ROUNDS):
        with context.log_in(1) as rogue:
            rogue.declare()
            manner = chance.randrange(3)
            if manner == 0:
                rogue.leave()
            elif manner == 1:
                linger = struct.pack("ii", 1, 0)
                rogue.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def channel_churn(context: AttackContext, _chance: Random) -> None:
    """Channels that are opened and closed, with a consumer and messages in its hands."""
    with context.log_in(1) as rogue:
        rogue.declare()
        for number in range(2, 2 + ROUNDS):
            rogue.client.channel(number)
            queue = rogue.declare(number)
            rogue.call(number, make(Basic.Consume, queue=queue, consumer_tag="churn"))
            rogue.client.publish(number, "", queue, bytes(100))
            rogue.client.expect("Basic.Deliver")
            rogue.call(number, CLOSE)
        rogue.leave()


def channel_errors(context: AttackContext, chance: Random) -> None:
    """Channels that are closed for an error, again and again on one connection."""
    missing = make(Queue.Declare, queue="nobody has declared this", passive=True)
    unknown_tag = make(Basic.Ack, delivery_tag=99)
    with context.log_in() as rogue:
        for _ in range(ROUNDS):
            rogue.client.channel(1)
            method, code = chance.choice(((missing, NOT_FOUND), (unknown_tag, PRECONDITION_FAILED)))
            rogue.client.send(1, method, method, method)
            context.count()
            rogue.channel_ends(1, code)
        rogue.leave()


def redelivery_loops(context: AttackContext, _chance: Random) -> None:
    """A message that is given back a thousand times."""
    with context.log_in(1) as rogue:
        queue = rogue.declare()
        rogue.call(1, make(Basic.Consume, queue=queue, consumer_tag="loop"))
        rogue.client.publish(1, "", queue, bytes(1_000))
        for _ in range(200):
            (heard,) = rogue.client.expect("Basic.Deliver")
            assert isinstance(heard.method, Basic.Deliver)
            tag = heard.method.delivery_tag or 0
            rogue.client.send(1, make(Basic.Nack, delivery_tag=tag, requeue=True))
        rogue.client.heard.clear()


KINDS = {
    "connection churn": connection_churn,
    "channel churn": channel_churn,
    "channel errors": channel_errors,
    "redelivery loops": redelivery_loops,
}
