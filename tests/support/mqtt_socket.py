"""MQTT client on a blocking socket, which answers nothing by itself."""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.packets import Connack, Connect, Packet, encode
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.protocol.mqtt.reader import ClientReader, Event


class MqttSocketClosed(Exception):
    """The node has closed the connection."""


class MqttSocket:
    """Client on a socket that is connected."""

    def __init__(self, connected: socket.socket, version: int = MQTT_5) -> None:
        self.socket = connected
        self.version = version
        self._packets = ClientReader(1 << 28, version)
        self._came: deque[Event] = deque()

    def connect_packet(
        self, client_id: str, *, expiry_s: int = 0, keep_alive_s: int = 0
    ) -> Connect:
        """Return a CONNECT of guest; its session lasts if `expiry_s` says so."""
        values = {PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s} if expiry_s else {}
        return Connect(
            self.version,
            client_id,
            not expiry_s,
            keep_alive_s,
            user="guest",
            password=b"guest",
            properties=Properties(dict(values)),
        )

    def connect(self, client_id: str = "", **terms: Any) -> Connack:
        """Log in."""
        self.send(self.connect_packet(client_id, **terms))
        answer = self.next()
        assert isinstance(answer, Connack), answer
        assert not answer.code, answer
        return answer

    def send(self, *packets: Packet) -> None:
        self.send_bytes(b"".join(encode(each, self.version) for each in packets))

    def send_bytes(self, octets: bytes) -> None:
        """Send bytes as they are; that the peer has gone is heard later."""
        try:
            self.socket.sendall(octets)
        except (BrokenPipeError, ConnectionResetError):
            return

    def next(self) -> Event:
        """Return the next packet, or run of them; MqttSocketClosed, TimeoutError."""
        while not self._came:
            data = self.socket.recv(65_536)
            if not data:
                raise MqttSocketClosed
            self._came += self._packets.feed(data)
            while self._packets.is_waiting:
                self._came += self._packets.go_on()
        return self._came.popleft()

    def close(self) -> None:
        self.socket.close()
