"""A meter that reports its readings."""

from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

import paho.mqtt.client
from paho.mqtt.reasoncodes import ReasonCode

WAIT_S = 30


class ReadingRefused(Exception):
    """Reading that the broker does not take."""


class Meter:
    """Connected for as long as it is entered."""

    def __init__(self, url: str, name: str) -> None:
        """`url`: mqtt://USER:PASSWORD@HOST:PORT"""
        self.topic = f"meters/{name}"
        self.answers: dict[int, ReasonCode] = {}
        """Reason codes of PUBACK, by packet identifier."""
        at = urlsplit(url)
        self.client = paho.mqtt.client.Client(
            paho.mqtt.client.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=paho.mqtt.client.MQTTv5,
        )
        self.client.username_pw_set(unquote(at.username), unquote(at.password))
        self.client.on_publish = self._on_publish
        self.client.connect(at.hostname, at.port)

    def __enter__(self) -> "Meter":
        self.client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_publish(self, _client, _data, number, reason, _properties) -> None:
        self.answers[number] = reason

    def report(self, readings: Iterable[float]) -> None:
        """Return once the broker has them all.  ReadingRefused."""
        for reading in readings:
            self.place(reading)

    def place(self, reading: float) -> None:
        """That a PUBACK has come does not say that the message was taken: its code does."""
        for _ in range(3):
            published = self.client.publish(self.topic, str(reading), qos=1)
            published.wait_for_publish(WAIT_S)
            answer = self.answers.pop(published.mid)
            if not answer.is_failure:
                return
        raise ReadingRefused(f"{reading}: {answer}")
