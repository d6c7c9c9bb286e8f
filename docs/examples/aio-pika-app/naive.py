"""The same, by somebody who believes that a message that is acknowledged comes once."""

import aio_pika
import app


class Payments(app.Payments):
    async def charge(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process(requeue=True):
            await self._bank.charge(message.headers["customer"], message.headers["cents"])
