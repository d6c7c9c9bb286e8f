"""Charges customers for their orders: each order once, however often it is delivered."""

import asyncio
from contextlib import AsyncExitStack
from typing import Protocol

import aio_pika


class Bank(Protocol):
    async def charge(self, customer: str, cents: int) -> None: ...


class Payments:
    """Consumes `payments` for as long as it is entered."""

    def __init__(self, url: str, bank: Bank) -> None:
        self._url = url
        self._bank = bank
        self._one_at_a_time = asyncio.Lock()
        """What is in work may be delivered again, too."""
        self._done: set[str] = set()
        """Ids of messages; an application with a database keeps them there, in the transaction
        that does the work."""

    async def __aenter__(self) -> "Payments":
        async with AsyncExitStack() as entering:
            connection = await aio_pika.connect(self._url)
            await entering.enter_async_context(connection)
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            queue = await channel.declare_queue("payments", durable=True)
            await queue.consume(self.charge)
            self._entered = entering.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._entered.aclose()

    async def charge(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        """What was charged for before is only acknowledged."""
        async with self._one_at_a_time, message.process(requeue=True):
            if message.message_id in self._done:
                return
            await self._bank.charge(message.headers["customer"], message.headers["cents"])
            self._done.add(message.message_id)
