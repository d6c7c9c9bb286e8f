"""The same, by somebody who believes that a broker never loses a session."""

import aiomqtt
import app


class Lamps(app.Lamps):
    _is_subscribed = False

    async def subscribe(self, client: aiomqtt.Client) -> None:
        if not self._is_subscribed:
            self._is_subscribed = True
            await super().subscribe(client)
