"""Looks at a broker from a connection of its own, and waits for what no client is told."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import count
from types import TracebackType
from typing import Any, Self

from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Exchange,
    Method,
    Queue,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import to_table
from tests.compat.http import Http
from tests.compat.verbs import Arguments
from tests.support.client import Client

FENCE = "drawn fence"
LOCKED_S_MAX = 60.0
_numbers = count(1)
MAIN, FENCES, CLEARING, FIRST = 1, 2, 3, 10
"""Its channels; those of the queues it counts follow the first."""


class Observer:
    """Observer of one broker, for many runs."""

    __slots__ = ("_client", "_clock", "_open", "http", "port")

    def __init__(self, port: int, http: Http) -> None:
        self.port = port
        self.http = http
        self._client = Client("127.0.0.1", port).open()
        self._open = {self._client.channel(number) for number in (MAIN, FENCES, CLEARING)}
        self._clock = f"drawn clock {next(_numbers)}"
        arrival = f"{self._clock} arrival"
        self._declare(FENCE, {"x-queue-type": "quorum", "x-max-length": 1}, durable=True)
        self._declare(arrival, {}, exclusive=True)
        to_arrive = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": arrival}
        self._declare(self._clock, {"x-message-ttl": 2, **to_arrive}, exclusive=True)
        self._client.call(MAIN, make(Basic.Consume, queue=arrival, no_ack=True))
        self._client.call(FENCES, make(Confirm.Select))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._client.close()

    def await_log(self) -> None:
        """Return when the log that all quorum queues write to holds what was sent to it before."""
        self._client.publish(FENCES, "", FENCE, b"", Properties(delivery_mode=2))
        self._client.expect("Basic.Ack")

    def await_expiry(self) -> None:
        """Return when what may wait for a millisecond has waited for longer."""
        self._client.publish(MAIN, "", self._clock)
        self._client.expect("Basic.Deliver")

    def counts(self, queues: Iterable[str]) -> list[tuple[int, int] | None]:
        """Messages and consumers of each queue; None if there is no such queue."""
        asked = dict(enumerate(queues, FIRST))
        for number in asked.keys() - self._open:
            self._open.add(self._client.channel(number))
        for number, queue in asked.items():
            self._client.send(number, make(Queue.Declare, queue=queue, passive=True))
        found: dict[int, tuple[int, int] | None] = {}
        while len(found) < len(asked):
            heard = self._client.next()
            if heard.name == "Queue.DeclareOk":
                answer: Any = heard.method
                found[heard.channel] = (answer.message_count, answer.consumer_count)
            elif heard.name == "Channel.Close":
                found[heard.channel] = None
                self._client.send(heard.channel, make(Channel.CloseOk))
                self._open.discard(heard.channel)
        return [found[number] for number in asked]

    def clear(
        self, queues: Iterable[str], exchanges: Iterable[str], policies: Iterable[str]
    ) -> None:
        """Delete what a run has left."""
        for queue in queues:
            self._delete(make(Queue.Delete, queue=queue))
        for exchange in exchanges:
            self._delete(make(Exchange.Delete, exchange=exchange))
        for policy in policies:
            self.http.ask("DELETE", f"policies/%2F/{policy}")
        self._client.heard.clear()
        self._client.transcript.clear()

    def _delete(self, method: Method) -> None:
        """Delete a queue or exchange; an exclusive queue is locked until the broker has seen that
        its client is gone."""
        end_s = time.monotonic() + LOCKED_S_MAX
        while (heard := self._client.call(CLEARING, method)).name == "Channel.Close":
            assert time.monotonic() < end_s, heard
            self._client.send(CLEARING, make(Channel.CloseOk))
            self._client.channel(CLEARING)

    def _declare(self, queue: str, arguments: Arguments, **flags: bool) -> None:
        table = pamqp_table(to_table(arguments))
        self._client.call(MAIN, make(Queue.Declare, queue=queue, arguments=table, **flags))
