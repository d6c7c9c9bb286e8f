"""A client that writes down all it says and hears: it publishes, consumes, and looks."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from fluffle.broker.torture.connection import (
    BrokerRefusal,
    ClientConnection,
    ClientOptions,
    NodeAddress,
)
from fluffle.broker.torture.history import Looked, Note
from fluffle.broker.torture.publisher import Publisher
from fluffle.broker.torture.unacked import Unacked
from fluffle.protocol.methods import Queue, make
from fluffle.protocol.spec import ReplyCode


class RecordingClient:
    """Its name is used once in a history.  Leaving it as a context hangs up."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.publisher = Publisher(connection)
        self.unacked = Unacked(connection)

    @classmethod
    async def connect(
        cls, to: NodeAddress, name: str, note: Note, client_options: ClientOptions | None = None
    ) -> Self:
        """`Gone` where that fails."""
        return cls(
            await ClientConnection.connect(to, name, note, client_options or ClientOptions())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.connection.end(error)

    async def reopen_channel(self) -> None:
        """Close the channel with all it holds, and open another, without any mode."""
        await self.connection.close_channel()
        self._forget()
        await self.connection.open_channel()

    async def is_there(self, queue: str) -> bool:
        """Whether a queue is; if not, that costs the channel, and another is opened."""
        try:
            await self.ready_count(queue)
        except BrokerRefusal as refusal:
            if refusal.code != ReplyCode.NOT_FOUND:
                raise
            self.connection.note(Looked(queue, found=False))
            self._forget()
            await self.connection.replace_channel(str(refusal))
            return False
        self.connection.note(Looked(queue, found=True))
        return True

    async def ready_count(self, queue: str) -> int:
        """How many messages of a queue are in nobody's hands."""
        heard = await self.connection.call(make(Queue.Declare, queue=queue, passive=True))
        assert isinstance(heard.method, Queue.DeclareOk)
        return heard.method.message_count or 0

    def _forget(self) -> None:
        self.publisher.forget()
        self.unacked.forget()
