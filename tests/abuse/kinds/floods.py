"""Too many of what one is welcome to have."""

from __future__ import annotations

from random import Random

from fluffle.protocol.methods import Basic, Channel, Exchange, Queue, encode_method, make
from tests.abuse.target import AttackContext, UnexpectedAnswer
from tests.support.client import start_ok

CONNECTIONS = 50
CHANNELS_MAX = 2047
DECLARES = 300
NOT_ALLOWED = 530


def many_connections(context: AttackContext, chance: Random) -> None:
    """A crowd that connects at once and says little or nothing."""
    rogues = [context.accept() for _ in range(CONNECTIONS)]
    for rogue in rogues:
        if chance.randrange(2):
            rogue.send(b"AMQP\x00\x00\x09\x01")
    for rogue in rogues:
        rogue.client.close()


def many_channels(context: AttackContext, _chance: Random) -> None:
    """Ten thousand channels, of which a connection may have a fifth."""
    opens = b"".join(encode_method(n, make(Channel.Open)) for n in range(1, 10_001))
    with context.log_in() as rogue:
        rogue.pour(opens)
        heard = rogue.client.next()
        count = 0
        while heard.name == "Channel.OpenOk":
            count += 1
            heard = rogue.client.next()
        if heard.name != "Connection.Close" or heard.method["reply_code"] != NOT_ALLOWED:
            raise UnexpectedAnswer(f"{heard} after {count} channels")
        if count != CHANNELS_MAX:
            raise UnexpectedAnswer(f"{count} channels could be opened")


def many_declares(context: AttackContext, chance: Random) -> None:
    """Queues and bindings without end, all of which go with their connection."""
    prefix = f"flood-{chance.getrandbits(48)}"
    with context.log_in(1) as rogue:
        exchange = make(Exchange.Declare, exchange=prefix, exchange_type="topic", auto_delete=True)
        rogue.call(1, exchange)
        for number in range(DECLARES):
            name = f"{prefix}-{number}"
            rogue.client.send(
                1,
                make(Queue.Declare, queue=name, exclusive=True, durable=bool(number % 2)),
                make(Queue.Bind, queue=name, exchange=prefix, routing_key=f"{number}.#.*"),
            )
        rogue.client.expect("Queue.BindOk", DECLARES)
        rogue.leave()


def many_consumers(context: AttackContext, _chance: Random) -> None:
    """Consumers of one queue without end."""
    with context.log_in(1) as rogue:
        rogue.declare()
        rogue.client.send(1, *[make(Basic.Consume, queue="")] * DECLARES)
        rogue.client.expect("Basic.ConsumeOk", DECLARES)
        rogue.client.publish(1, "", "nowhere")


def second_logins(context: AttackContext, _chance: Random) -> None:
    """The handshake again and again on a connection that is open."""
    with context.log_in(1) as rogue:
        rogue.client.send(0, *[start_ok()] * 200)
        rogue.ends(503, 504)


KINDS = {
    "many connections": many_connections,
    "many channels": many_channels,
    "many declares": many_declares,
    "many consumers": many_consumers,
    "second logins": second_logins,
}
