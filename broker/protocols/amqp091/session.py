"""Session of an AMQP connection, with what its channels share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fluffle.broker.access.users import User
from fluffle.broker.core.client import Client
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import Session
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.protocols.amqp091.pending_requests import WaitingChannels


class ChannelConnection(Client, Protocol):
    """Connection that has channels, as they know it."""

    output: OutputBuffer
    waiting: WaitingChannels

    def give_up(self, error: Exception) -> None:
        """Close it for an error of the broker's own that concerns it alone."""


class AmqpSession(Session):
    """Session of a connection that has channels."""

    __slots__ = ("connection", "frame_bytes_max", "notify_cancel", "output", "waiting")

    def __init__(
        self,
        connection: ChannelConnection,
        user: User,
        vhost: VirtualHost,
        services: Services,
        *,
        notify_cancel: bool,
    ) -> None:
        super().__init__(user=user, vhost=vhost, services=services, client=connection)
        self.connection = connection
        self.output = connection.output
        self.waiting = connection.waiting
        """Channels that cannot go on yet."""
        self.frame_bytes_max = connection.handshake.frame_bytes_max
        """What the client takes in one frame; 0 is no limit."""
        self.notify_cancel = notify_cancel
        """Whether the client understands a basic.cancel from the server."""
