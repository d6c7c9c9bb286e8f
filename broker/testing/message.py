"""`Message`: one of a queue, as a test sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluffle.broker.admin.context import Row


@dataclass(frozen=True, slots=True)
class Message:
    """Message that is ready in a queue, or was."""

    body: bytes
    """Of one that is only looked at, up to 256 KiB of it."""
    exchange: str
    routing_key: str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    """The others, by their AMQP names."""
    redelivered: bool

    def text(self) -> str:
        """Decode the body as text.  UnicodeDecodeError."""
        return self.body.decode()

    def json(self) -> Any:
        """Decode the body as JSON.  ValueError."""
        from json import loads  # noqa: PLC0415  only if it is used

        return loads(self.body)


def message_of(row: Row) -> Message:
    """Build a message from a row of `queues.peek`."""
    if row["payload_encoding"] == "base64":
        from base64 import b64decode  # noqa: PLC0415  only if it is used

        body = b64decode(row["payload"])
    else:
        body = row["payload"].encode()
    properties = {**row["properties"]}
    if row["priority"] is not None:
        properties["priority"] = row["priority"]
    return Message(
        body, row["exchange"], row["routing_key"], row["headers"], properties, row["redelivered"]
    )
