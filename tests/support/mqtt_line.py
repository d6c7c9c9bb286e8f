"""Client of MQTT over a socket, which says what a test has it say and answers nothing by itself.

async with mqtt_line(broker.mqtt_url, "meter-7") as line:
    line.send(Publish(b"a", b"1", qos=1, packet_id=1))
    assert await line.next() == Acks(PacketType.PUBACK, [1])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fluffle.broker.testing.arguments import MqttUrl
from fluffle.protocol.mqtt.codes import MQTT_5, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Packet,
    Suback,
    Subscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.protocol.mqtt.reader import Acks, ClientReader, Event
from tests.support.deadlines import soon


class MqttLine:
    """Connection of a client; `connack` is there once `connect` returns."""

    def __init__(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], version: int
    ) -> None:
        self._reader, self._writer = streams
        self.version = version
        self._packets = ClientReader(1 << 20, version)
        self._events: list[Event] = []
        self.connack = Connack()

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(encode(each, self.version) for each in packets))

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    async def next(self) -> Event | None:
        """The next event; None once the broker has closed, or the connection is cut."""
        async with soon():
            while not self._events:
                try:
                    data = await self._reader.read(65_536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._events += self._packets.feed(data)
        event = self._events.pop(0)
        if isinstance(event, Acks):
            return Acks(event.kind, [*event.packet_ids])  # which may be compared
        if isinstance(event, Ack) and event.code is ReasonCode.NO_MATCHING_SUBSCRIBERS:
            return Acks(event.kind, [event.packet_id])  # that nobody subscribes is no matter
        return event

    async def connect(self, packet: Connect) -> Connack | None:
        """CONNECT; the answer, or None if there is none."""
        self.send(packet)
        self._packets.topic_alias_max = packet.properties.integer(PropertyId.TOPIC_ALIAS_MAXIMUM, 0)
        answer = await self.next()
        assert answer is None or isinstance(answer, Connack)
        self.connack = answer or self.connack
        return answer

    async def subscribe(self, topic_filter: str, qos: int = 1) -> list[int]:
        """SUBSCRIBE to one filter; the codes of the SUBACK."""
        self.send(Subscribe(1, [(topic_filter, qos)]))
        answer = await self.next()
        assert isinstance(answer, Suback)
        return [*answer.codes]

    def close(self) -> None:
        self._writer.close()


def connect_packet(
    url: MqttUrl,
    client_id: str,
    *,
    version: int = MQTT_5,
    expiry_s: int = 0,
    aliases_max: int = 0,
    **fields: Any,
) -> Connect:
    """CONNECT of a client which asks for a session that lasts so long, or before 5.0 for one that
    lasts if that is not 0; and resumes one that is there.  `aliases_max`: topic aliases that it
    takes."""
    properties = Properties()
    if expiry_s and version == MQTT_5:
        properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
    if aliases_max:
        properties.values[PropertyId.TOPIC_ALIAS_MAXIMUM] = aliases_max
    fields.setdefault("clean_start", not expiry_s)
    return Connect(
        version, client_id, user=url.username, password=url.password.encode(),
        properties=properties, **fields,
    )  # fmt: skip


@asynccontextmanager
async def mqtt_line(
    url: MqttUrl, client_id: str, *, version: int = MQTT_5, **connect: Any
) -> AsyncIterator[MqttLine]:
    """A client that the broker has answered."""
    line = MqttLine(await asyncio.open_connection(url.host, url.port), version)
    try:
        await line.connect(connect_packet(url, client_id, version=version, **connect))
        yield line
    finally:
        line.close()
