"""Clients of a broker as a test holds them: their connections and consumers."""

from __future__ import annotations

from fluffle.broker.admin.context import Row
from fluffle.broker.testing.faults.fault_scope import NEXT, REASON, FaultScope


def do(scope: FaultScope, name: str, **arguments: object) -> Row:
    """One of `operations`.  BrokerError."""
    from fluffle.broker.testing.faults.operations import perform  # noqa: PLC0415  if it is used

    return perform(scope, name, arguments)


class Consumer:
    """Consumer as it was when the test asked for it."""

    __slots__ = ("_scope", "is_auto_ack", "prefetch", "queue", "tag", "unacked")

    def __init__(self, scope: FaultScope, row: Row) -> None:
        self._scope = scope
        self.tag: str = row["consumer_tag"]
        self.queue: str = row["queue_name"]
        self.prefetch: int = row["prefetch_count"]
        self.is_auto_ack: bool = not row["ack_required"]
        self.unacked: int = row["messages_unacknowledged"]
        """Messages that it held."""

    async def cancel(self) -> None:
        """End it from the server's side; what it holds stays unacknowledged."""
        do(self._scope, "consumers.cancel", consumer=self.tag)

    async def freeze(self) -> None:
        """Deliver nothing more to it."""
        do(self._scope, "consumers.freeze", consumer=self.tag)

    async def thaw(self) -> None:
        """Deliver to it again."""
        do(self._scope, "consumers.thaw", consumer=self.tag)

    async def redeliver(self) -> int:
        """Deliver again what it holds, though it may be about to acknowledge it; how many."""
        return int(do(self._scope, "consumers.redeliver", consumer=self.tag)["messages"])

    def __repr__(self) -> str:
        return f"<consumer '{self.tag}' of queue '{self.queue}', which held {self.unacked}>"


class NextConnection:
    """The next one that comes to the broker, and that after it, with each call."""

    __slots__ = ("_scope", "name")

    def __init__(self, scope: FaultScope, name: str = NEXT) -> None:
        self._scope = scope
        self.name = name

    async def reset(self) -> None:
        """Reset it without a closing handshake: by TCP the client learns that the peer is gone."""
        do(self._scope, "connections.reset", connection=self.name)

    async def freeze(self) -> None:
        """Read and write nothing on it; the socket stays open, and heartbeats stop."""
        do(self._scope, "connections.freeze", connection=self.name)

    async def cut_after(self, count: int, *, sent_by: str = "broker") -> None:
        """Cut it once so many more bytes have passed, though that is in the midst of a frame.

        Those that are counted are sent by the `broker` or by the `client`.
        """
        do(self._scope, "connections.cut_after", connection=self.name, bytes=count, sent_by=sent_by)

    def __repr__(self) -> str:
        return "<the next connection>"


class Connection:
    """Connection as it was when the test asked for it."""

    __slots__ = (
        "_same", "_scope", "channels", "client_properties", "consumers", "is_frozen", "name",
        "user", "vhost",
    )  # fmt: skip

    def __init__(self, scope: FaultScope, row: Row) -> None:
        self._scope = scope
        self.name: str = row["name"]
        self.user: str = row["user"]
        """Empty before the login, as `vhost`."""
        self.vhost: str = row["vhost"]
        self.client_properties: Row = row["client_properties"]
        self.channels: list[int] = [each["number"] for each in row["channels"]]
        self.consumers = [Consumer(scope, each) for each in row["consumers"]]
        self.is_frozen: bool = row["frozen"]
        self._same = NextConnection(scope, self.name)

    async def close(self, text: str = REASON) -> None:
        """Close it as an operator would: connection.close with 320 CONNECTION_FORCED and this
        text."""
        do(self._scope, "connections.close", connection=self.name, text=text)

    async def reset(self) -> None:
        """Reset it without a closing handshake: by TCP the client learns that the peer is gone."""
        await self._same.reset()

    async def freeze(self) -> None:
        """Read and write nothing on it; the socket stays open, and heartbeats stop."""
        await self._same.freeze()

    async def thaw(self) -> None:
        """Go on where it stopped."""
        do(self._scope, "connections.thaw", connection=self.name)

    async def cut_after(self, count: int, *, sent_by: str = "broker") -> None:
        """Cut it as `NextConnection.cut_after` does."""
        await self._same.cut_after(count, sent_by=sent_by)

    def __repr__(self) -> str:
        count = len(self.channels)
        return f"<connection '{self.name}' of '{self.user}' to '{self.vhost}', {count} channels>"


class Clients:
    """Those of a broker, or of one virtual host of it."""

    __slots__ = ("_scope",)

    def __init__(self, scope: FaultScope) -> None:
        self._scope = scope

    async def connections(self) -> list[Connection]:
        """Those that are open, in the order in which they came."""
        rows = do(self._scope, "connections.list")["connections"]
        return [Connection(self._scope, row) for row in rows]

    async def next_connection(self) -> NextConnection:
        """What is done to it happens once it is there, to whichever virtual host it goes."""
        return NextConnection(self._scope)

    async def consumer(self, name: str) -> Consumer:
        """Return a consumer by its tag, or by its queue if that has no other.  NotFound,
        PreconditionFailed."""
        return Consumer(self._scope, do(self._scope, "consumers.show", consumer=name))
