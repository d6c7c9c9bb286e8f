"""Switches lamps as it is told, through losses of the connection."""

import asyncio
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SESSION_S = 3600
RETRY_S = 0.01


class Lamps:
    """Has a session, in which commands wait while it is not connected."""

    def __init__(self, url: str, switch: Callable[[str, str], None]) -> None:
        """`url`: mqtt://USER:PASSWORD@HOST:PORT; `switch` is given the topic of a command, and the
        command."""
        self._at = urlsplit(url)
        self._switch = switch
        self._lasts = Properties(PacketTypes.CONNECT)
        self._lasts.SessionExpiryInterval = SESSION_S

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                async with self._connection() as client:
                    await self.subscribe(client)
                    async for message in client.messages:
                        self._switch(str(message.topic), message.payload.decode())
            except aiomqtt.MqttError:
                await asyncio.sleep(RETRY_S)

    def _connection(self) -> aiomqtt.Client:
        return aiomqtt.Client(
            self._at.hostname,
            self._at.port,
            username=unquote(self._at.username),
            password=unquote(self._at.password),
            identifier="lamps",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=self._lasts,
        )

    async def subscribe(self, client: aiomqtt.Client) -> None:
        """Each time: a broker may have lost the session, and to subscribe again costs nothing."""
        await client.subscribe("lamps/+", qos=1)
