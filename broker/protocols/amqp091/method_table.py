"""HANDLERS: the union of the tables of the four handler files, and nothing else.

basic.publish and basic.ack come as batches and have no row here; connection.* and
channel.open, close and close-ok belong to the connection.
"""

from collections.abc import Callable

from fluffle.broker.base.errors import NotImplementedHere
from fluffle.broker.protocols.amqp091 import (
    basic_methods,
    publish_methods,
    topology_methods,
    tx_methods,
)
from fluffle.broker.protocols.amqp091.channel import Channel
from fluffle.protocol.methods import Channel as ChannelMethods
from fluffle.protocol.methods import Method, make


def on_flow(channel: Channel, method: Method) -> None:
    """RabbitMQ holds publishers back by not reading; a client cannot hold it back."""
    assert isinstance(method, ChannelMethods.Flow)
    if not method.active:
        raise NotImplementedHere("active=false")
    channel.reply(make(ChannelMethods.FlowOk, active=True))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    ChannelMethods.Flow: on_flow,
    **publish_methods.HANDLERS,
    **basic_methods.HANDLERS,
    **topology_methods.HANDLERS,
    **tx_methods.HANDLERS,
}
