"""A channel of a client with a verb a method, for scenarios that are about more than frames.

A verb that has an answer waits for it, or for the close that it earns; publishes, settlements and
what is sent with nowait do not.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Connection,
    Exchange,
    Method,
    Queue,
    Tx,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import to_table
from tests.compat.scenario import DeclaredAs, Peer
from tests.support.client import Client, Heard

Arguments = Mapping[str, Any]
NOTHING: Arguments = {}


def speaker(peer: Peer, name: str = "client", **options: object) -> "Speaker":
    """The first channel of a new connection; options as `Client.open`."""
    return Speaker(peer.client(name, **options), count(1), peer.declared_as)


class Speaker:
    """An open channel.  `arguments` are plain values, or Fields where the tag matters."""

    def __init__(
        self, client: Client, numbers: Iterator[int], declared_as: DeclaredAs | None = None
    ) -> None:
        self.client = client
        self._numbers = numbers
        self._declared_as = declared_as
        self.number = client.channel(next(numbers))

    def another(self) -> "Speaker":
        """A further channel of the same connection: also for what a channel is closed for."""
        return Speaker(self.client, self._numbers, self._declared_as)

    @contextmanager
    def aside(self) -> Iterator["Speaker"]:
        """A further channel, of which nothing is compared."""
        other = self.another()
        yield other
        self.forget(f"[{other.number}] ")

    def do(self, method: Method) -> Heard | None:
        """Send a method; the answer, unless it is not to be answered."""
        if getattr(method, "nowait", False):
            self.client.send(self.number, method)
            return None
        return self.client.call(self.number, method)

    def send(self, method: Method) -> None:
        self.client.send(self.number, method)

    def expect(self, name: str, times: int = 1) -> list[Heard]:
        return self.client.expect(name, times)

    def refused(self) -> None:
        """Listen for the close that an error earns, and answer it.

        Before that RabbitMQ does not give back what the channel holds.
        """
        self.expect("Channel.Close")
        self.send(make(Channel.CloseOk))

    def settle(self) -> None:
        """Show that nothing more comes.  Sets prefetch 0 for consumers to come."""
        self.client.settle(self.number)

    def close(self) -> None:
        closing = make(Channel.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
        self.do(closing)

    def hang_up(self) -> None:
        """Close the connection; RabbitMQ answers once its exclusive queues are gone."""
        closing = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
        self.client.call(0, closing)

    # Exchanges and queues

    def declare_exchange(
        self, name: str, kind: str = "direct", arguments: Arguments = NOTHING, **flags: bool
    ) -> None:
        table = _table(arguments)
        self.do(make(Exchange.Declare, exchange=name, exchange_type=kind, arguments=table, **flags))

    def delete_exchange(self, name: str, **flags: bool) -> None:
        self.do(make(Exchange.Delete, exchange=name, **flags))

    def bind_exchange(
        self, to: str, source: str, key: str = "", arguments: Arguments = NOTHING, **flags: Any
    ) -> None:
        self.do(make(Exchange.Bind, 0, to, source, key, arguments=_table(arguments), **flags))

    def unbind_exchange(
        self, to: str, source: str, key: str = "", arguments: Arguments = NOTHING, **flags: Any
    ) -> None:
        self.do(make(Exchange.Unbind, 0, to, source, key, arguments=_table(arguments), **flags))

    def declare(self, queue: str = "", arguments: Arguments = NOTHING, **flags: bool) -> None:
        method = make(Queue.Declare, queue=queue, arguments=_table(arguments), **flags)
        self.do(self._declared_as(method) if self._declared_as else method)

    def bind(
        self, queue: str, exchange: str, key: str = "", arguments: Arguments = NOTHING, **flags: Any
    ) -> None:
        self.do(make(Queue.Bind, 0, queue, exchange, key, arguments=_table(arguments), **flags))

    def unbind(
        self, queue: str, exchange: str, key: str = "", arguments: Arguments = NOTHING
    ) -> None:
        self.do(make(Queue.Unbind, 0, queue, exchange, key, arguments=_table(arguments)))

    def purge(self, queue: str, **flags: bool) -> None:
        self.do(make(Queue.Purge, queue=queue, **flags))

    def delete(self, *queues: str, **flags: bool) -> None:
        for queue in queues:
            self.do(make(Queue.Delete, queue=queue, **flags))

    def until_gone(self, queue: str) -> None:
        """Ask on a channel of its own until a queue is gone: RabbitMQ may take a moment."""
        other = self.another()
        while self.client.heard[-1].name != "Channel.Close":
            other.declare(queue, passive=True)
        self.forget(f"[{other.number}] Queue.DeclareOk(")

    # Messages

    def publish(
        self,
        exchange: str,
        key: str,
        body: str = "",
        *,
        headers: Arguments | None = None,
        mandatory: bool = False,
        **properties: Any,
    ) -> None:
        table = None if headers is None else to_table(headers)
        self.client.publish(
            self.number,
            exchange,
            key,
            body.encode(),
            Properties(headers=table, **properties),
            mandatory=mandatory,
        )

    def fill(self, queue: str, *bodies: str) -> None:
        """Put messages into a queue, one after the other; return when all are in it."""
        with self.aside() as other:
            other.confirms()
            for body in bodies:
                other.publish("", queue, body)
                other.expect("Basic.Ack")

    def get(self, queue: str, *, no_ack: bool = True) -> Heard:
        return self.client.call(self.number, make(Basic.Get, queue=queue, no_ack=no_ack))

    def drain(self, queue: str) -> None:
        """Get messages until there is none."""
        while self.get(queue).name == "Basic.GetOk":
            pass

    def consume(
        self, queue: str, tag: str = "", arguments: Arguments = NOTHING, **flags: bool
    ) -> None:
        table = _table(arguments)
        self.do(make(Basic.Consume, queue=queue, consumer_tag=tag, arguments=table, **flags))

    def cancel(self, tag: str, **flags: bool) -> None:
        self.do(make(Basic.Cancel, consumer_tag=tag, **flags))

    def qos(self, prefetch: int, **flags: Any) -> None:
        self.do(make(Basic.Qos, prefetch_count=prefetch, **flags))

    def ack(self, tag: int, **flags: bool) -> None:
        self.send(make(Basic.Ack, delivery_tag=tag, **flags))

    def nack(self, tag: int, **flags: bool) -> None:
        self.send(make(Basic.Nack, delivery_tag=tag, **flags))

    def reject(self, tag: int, **flags: bool) -> None:
        self.send(make(Basic.Reject, delivery_tag=tag, **flags))

    def recover(self, *, requeue: bool = True) -> None:
        self.do(make(Basic.Recover, requeue=requeue))

    # Confirms and transactions

    def confirms(self) -> None:
        self.do(make(Confirm.Select))

    def confirmed(self, last: int) -> str:
        """Listen until every publish up to `last` is confirmed: which were acked, which nacked.

        A number is named as often as it was confirmed.  The confirms themselves are taken out of
        the transcript, because how a broker coalesces them is its own affair.
        """
        settled: dict[str, list[int]] = {"Basic.Ack": [], "Basic.Nack": []}
        earlier = iter(self.client.heard[:])
        while sum(map(len, settled.values())) < last:
            heard = next(earlier, None) or self.client.next()
            if heard.channel == self.number and heard.name in settled:
                confirm: Any = heard.method
                known = {number for numbers in settled.values() for number in numbers}
                covered = set(range(1, confirm.delivery_tag)) if confirm.multiple else set()
                settled[heard.name] += [*covered - known, confirm.delivery_tag]
        self.forget(f"[{self.number}] Basic.Ack(")
        self.forget(f"[{self.number}] Basic.Nack(")
        return ", ".join(f"{name} {sorted(numbers)}" for name, numbers in settled.items())

    def transact(self) -> None:
        self.do(make(Tx.Select))

    def commit(self) -> None:
        self.do(make(Tx.Commit))

    def roll_back(self) -> None:
        self.do(make(Tx.Rollback))

    def without_times(self) -> None:
        """Take out of the transcript when messages died: brokers are asked at other moments."""
        lines = self.client.transcript
        lines[:] = [re.sub(r"time: T \d+", "time: T …", line) for line in lines]

    def forget(self, start: str) -> None:
        """Take lines out of the transcript."""
        lines = self.client.transcript
        lines[:] = [line for line in lines if not line.startswith(start)]


def _table(arguments: Arguments) -> Any:
    return pamqp_table(to_table(arguments))
