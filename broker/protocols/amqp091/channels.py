"""The channels of one connection by number: which are open, which we closed, what reaches them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.errors import BrokerError, ChannelError, NotAllowed, NotImplementedHere
from fluffle.broker.base.logs import event
from fluffle.broker.core.admission import check_channel_limit
from fluffle.broker.core.client import SessionChannel
from fluffle.broker.core.consumer import Subscription, deliver_ready
from fluffle.broker.protocols.amqp091 import (
    basic_methods,
    topology_methods,
    tx_methods,
)
from fluffle.broker.protocols.amqp091.channel import (
    AmqpSession,
    Channel,
    close_for,
    unimplemented,
)
from fluffle.protocol.methods import Basic, Method, encode_method, make
from fluffle.protocol.methods import Channel as ChannelMethods
from fluffle.protocol.methods import Channel as Methods
from fluffle.protocol.spec import ProtocolError, ReplyCode


def on_flow(channel: Channel, method: Method) -> None:
    """RabbitMQ holds publishers back by not reading; a client cannot hold it back."""
    assert isinstance(method, ChannelMethods.Flow)
    if not method.active:
        raise NotImplementedHere("active=false")
    channel.reply(make(ChannelMethods.FlowOk, active=True))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    ChannelMethods.Flow: on_flow,
    **basic_methods.HANDLERS,
    **topology_methods.HANDLERS,
    **tx_methods.HANDLERS,
}
"""Handlers of all methods on a channel.

basic.publish and basic.ack come as batches and have no row here; connection.* and channel.open,
close and close-ok belong to the connection."""


logger = logging.getLogger(__name__)


VOUCHING = {Methods.Close, *HANDLERS} - {
    Basic.Nack,
    Basic.Reject,
    Basic.RecoverAsync,
    Basic.CancelOk,
}
"""Methods whose answers say that all is so that was settled on their channel."""


CONNECTION_CLASS = 10

NO_METHOD = (0, 0)

LATE_EVENTS_MAX = 4096
"""Most events on a channel behind its close; an event is a run of messages, or a method."""


class Channels:
    """A channel is open, or closing (we sent close and wait for close-ok), or does not exist.

    Of one that its client has closed more may be on its way, which is dropped: what was read with
    the close, and what each read after that one brings, until one brings nothing of it.
    """

    __slots__ = ("_closing", "_has_late", "_late", "_limit", "_open", "_session")

    def __init__(self, session: AmqpSession, limit: int) -> None:
        self._session = session
        self._limit = limit
        """How many there may be at once, those that wait for close-ok included; 0 is no limit."""
        self._open: dict[int, Channel] = {}
        self._closing: set[int] = set()
        self._late: dict[int, int] = {}
        """How much has come for those that their client has just closed."""
        self._has_late = False
        """True if some of it came with this read."""

    def find(self, number: int) -> Channel | None:
        """The channel; None while it is closing.  ChannelError when it does not exist."""
        channel = self._open.get(number)
        if channel is None and number not in self._closing and not self._is_late(number):
            raise ChannelError("expected 'channel.open'")
        return channel

    def _is_late(self, number: int) -> bool:
        """True if something came that its client had sent behind the close of this channel."""
        count = self._late.get(number, LATE_EVENTS_MAX)
        if count < LATE_EVENTS_MAX:
            self._late[number] = count + 1
            self._has_late = True
        return count < LATE_EVENTS_MAX

    def end_read(self, *, is_amid: bool) -> None:
        """All that was read has been acted on.  `is_amid`: the last of it is not whole."""
        if self._late and not (self._has_late or is_amid):
            self._late.clear()
        self._has_late = False

    def opened(self, number: int) -> Channel | None:
        """The channel, if it is open."""
        return self._open.get(number)

    def has(self, channel: SessionChannel) -> bool:
        """True if a channel, not another one of its number, is open."""
        return self._open.get(channel.number) is channel

    def __iter__(self) -> Iterator[Channel]:
        """Open channels."""
        return iter(self._open.values())

    @property
    def have_consumers(self) -> bool:
        return any(channel.subscriptions for channel in self._open.values())

    def subscriptions(self) -> Iterator[Subscription]:
        """All of them, to go through while some end."""
        for channel in tuple(self._open.values()):
            yield from tuple(channel.subscriptions.values())

    def on_method(self, number: int, method: Method) -> None:
        """Give a method to its channel, or to the table if it is about the channel itself."""
        if number in self._closing:
            self._on_method_while_closing(number, method)
        elif isinstance(method, Methods.Open):
            self._on_open(number)
        elif (channel := self.find(number)) is None:
            if isinstance(method, Methods.Close):  # once more
                self._send(number, make(Methods.CloseOk))
        elif isinstance(method, Methods.Close):
            deliver_ready(channel)  # mutant: CO5
            self._end(number)
            self._send(number, make(Methods.CloseOk))
            self._late[number] = 0
        elif type(method) in HANDLERS:
            HANDLERS[type(method)](channel, method)
        else:
            raise unimplemented()

    def close(self, number: int, error: BrokerError, ids: tuple[int, int]) -> bool:
        """Close a channel on which something was wrong; False when there is no such channel, or
        the end of the connection was asked for, which the end of a channel would not answer."""
        if number not in self._open or ids[0] == CONNECTION_CLASS:
            return False
        event(
            logger,
            logging.ERROR,
            "channel_error",
            connection=self._session.name,
            channel=number,
            error=error.reply_text,
        )
        for observer in self._session.observers:
            observer.channel_refused(self._open[number], error)
        self._end(number)
        self._closing.add(number)
        self._send(number, close_for(Methods.Close, error, ids))
        return True

    def refuse(self, channel: Channel, error: BrokerError) -> None:
        """Close a channel for something that its client did not ask for, unless it has ended."""
        if self.has(channel):
            self.close(channel.number, error, NO_METHOD)

    def end_all(self) -> None:
        """The connection ends, and every channel with it; what fails in one is logged."""
        for number in tuple(self._open):
            call_listener(partial(self._end, number))

    def _on_open(self, number: int) -> None:
        if number in self._open:
            raise second_open()
        count = len(self._open) + len(self._closing)
        if self._limit and count >= self._limit:
            raise ProtocolError(  # about no method, as RabbitMQ puts it
                ReplyCode.NOT_ALLOWED,
                f"number of channels opened ({count}) has reached the negotiated channel_max "
                f"({self._limit})",
            )
        try:
            check_channel_limit(self._session.access, self._session.user)
        except NotAllowed as refused:  # about no method, too
            raise ProtocolError(ReplyCode.NOT_ALLOWED, refused.explanation) from None
        self._late.pop(number, None)
        channel = Channel(number, self._session, self)
        observer = self._session.open_channel(channel)
        self._open[number] = channel
        channel.observer = channel.settlements.observer = channel.publisher.observer = observer
        self._send(number, make(Methods.OpenOk, channel_id=""))

    def _on_method_while_closing(self, number: int, method: Method) -> None:
        """Only close-ok frees the number; of the rest only a close is answered."""
        if isinstance(method, Methods.CloseOk):
            self._closing.remove(number)
        elif isinstance(method, Methods.Close):
            self._send(number, make(Methods.CloseOk))
        elif isinstance(method, Methods.Open):
            raise second_open()

    def _end(self, number: int) -> None:
        channel = self._open.pop(number)
        consumer_count = len(channel.subscriptions)
        try:
            channel.close()
        finally:
            self._session.end_channel(channel, consumer_count)

    def _send(self, number: int, method: Method) -> None:
        self._session.output.add(encode_method(number, method))


def second_open() -> BrokerError:
    return ChannelError("second 'channel.open' seen")
