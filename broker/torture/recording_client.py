"""A client that writes down all it says and hears: it publishes, consumes, and looks."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from fluffle.broker.torture.connection import Address, Manners, Refusal, Talk
from fluffle.broker.torture.history import Looked, Note
from fluffle.broker.torture.publisher import Press
from fluffle.broker.torture.unacked import Hands
from fluffle.protocol.methods import Queue, make
from fluffle.protocol.spec import ReplyCode


class Witness:
    """Its name is used once in a history.  Leaving it as a context hangs up."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.press = Press(talk)
        self.hands = Hands(talk)

    @classmethod
    async def connect(
        cls, to: Address, name: str, note: Note, manners: Manners | None = None
    ) -> Self:
        """`Gone` where that fails."""
        return cls(await Talk.connect(to, name, note, manners or Manners()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.talk.end(error)

    async def reopen_channel(self) -> None:
        """Close the channel with all it holds, and open another, without any mode."""
        await self.talk.close_channel()
        self._forget()
        await self.talk.open_channel()

    async def is_there(self, queue: str) -> bool:
        """Whether a queue is; if not, that costs the channel, and another is opened."""
        try:
            await self.ready_count(queue)
        except Refusal as refusal:
            if refusal.code != ReplyCode.NOT_FOUND:
                raise
            self.talk.note(Looked(queue, found=False))
            self._forget()
            await self.talk.replace_channel(str(refusal))
            return False
        self.talk.note(Looked(queue, found=True))
        return True

    async def ready_count(self, queue: str) -> int:
        """How many messages of a queue are in nobody's hands."""
        heard = await self.talk.call(make(Queue.Declare, queue=queue, passive=True))
        assert isinstance(heard.method, Queue.DeclareOk)
        return heard.method.message_count or 0

    def _forget(self) -> None:
        self.press.forget()
        self.hands.forget()
