"""The port to whoever sees what happens at the edge of a node: it is composed in at the start, and
without any of them nobody is asked but where connections, channels and consumers come and go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.metadata.metadata import Metadata
from fluffle.protocol.types import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.session import Session
    from fluffle.broker.protocols.amqp091.channel import Channel
    from fluffle.broker.protocols.amqp091.connection import Connection
    from fluffle.broker.queues.consumers import Consumer


class ChangedBy(NamedTuple):
    """User and connection that change definitions."""

    actor: str
    """The user, or what stands for who is on the machine."""
    settler: str
    """What stands for who does that which has to be, as a consequence."""
    connection: str = ""
    """Its name, for a client's."""


class Observer(Protocol):
    """Sees it at the moment at which it is so."""

    def metadata(self, inner: Metadata, by: ChangedBy) -> Metadata:
        """Definitions whose changes are seen."""

    def logged_in(self, connection: Connection, mechanism: str, name: str) -> None: ...

    def refused(self, connection: Connection, mechanism: str, name: str, reason: str) -> None: ...

    def opened(self, connection: Connection, session: Session) -> None:
        """A virtual host, by a client."""

    def closed(self, session: Session) -> None: ...

    def channel_opened(self, channel: Channel) -> None:
        """It may be given other functions: `Channel.settle`."""

    def channel_refused(self, channel: Channel, error: BrokerError) -> None:
        """It is about to be closed, for something was wrong."""

    def channel_closed(self, channel: Channel, consumer_count: int) -> None: ...

    def consumer_started(
        self, channel: Channel, consumer: Consumer, arguments: FieldTable
    ) -> None: ...

    def consumer_ended(self, channel: Channel, consumer: Consumer) -> None: ...
