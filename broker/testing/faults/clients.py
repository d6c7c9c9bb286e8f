"""Clients of a broker as a test holds them: their connections and consumers."""

from __future__ import annotations

from fluffle.broker.admin.context import Row
from fluffle.broker.testing.faults.fault_scope import NEXT, REASON, FaultScope


def do(scene: FaultScope, name: str, **arguments: object) -> Row:
    """One of `operations`.  BrokerError."""
    from fluffle.broker.testing.faults.operations import perform  # noqa: PLC0415  if it is used

    return perform(scene, name, arguments)


class Consumer:
    """Consumer as it was when the test asked for it."""

    __slots__ = ("_scene", "is_auto_ack", "prefetch", "queue", "tag", "unacked")

    def __init__(self, scope: FaultScope, row: Row) -> None:
        self._scene = scope
        self.tag: str = row["consumer_tag"]
        self.queue: str = row["queue_name"]
        self.prefetch: int = row["prefetch_count"]
        self.is_auto_ack: bool = not row["ack_required"]
        self.unacked: int = row["messages_unacknowledged"]
        """Messages that it held."""

    async def cancel(self) -> None:
        """End it from the server's side; what it holds stays unacknowledged."""
        do(self._scene, "consumers.cancel", consumer=self.tag)

    async def freeze(self) -> None:
        """Deliver nothing more to it."""
        do(self._scene, "consumers.freeze", consumer=self.tag)

    async def thaw(self) -> None:
        """Deliver to it again."""
        do(self._scene, "consumers.thaw", consumer=self.tag)

    async def redeliver(self) -> int:
        """Deliver again what it holds, though it may be about to acknowledge it; how many."""
        return int(do(self._scene, "consumers.redeliver", consumer=self.tag)["messages"])

    def __repr__(self) -> str:
        return f"<consumer '{self.tag}' of queue '{self.queue}', which held {self.unacked}>"


class NextConnection:
    """The next one that comes to the broker, and that after it, with each call."""

    __slots__ = ("_scene", "name")

    def __init__(self, scope: FaultScope, name: str = NEXT) -> None:
        self._scene = scope
        self.name = name

    async def reset(self) -> None:
        """No goodbye: TCP tells the client that there is nobody any more."""
        do(self._scene, "connections.reset", connection=self.name)

    async def freeze(self) -> None:
        """Read and write nothing on it; the socket stays open, and heartbeats stop."""
        do(self._scene, "connections.freeze", connection=self.name)

    async def cut_after(self, count: int, *, sent_by: str = "broker") -> None:
        """Cut it once so many more bytes have passed, though that is in the midst of a frame.

        Those that are counted are sent by the `broker` or by the `client`.
        """
        do(self._scene, "connections.cut_after", connection=self.name, bytes=count, sent_by=sent_by)

    def __repr__(self) -> str:
        return "<the next connection>"


class Connection:
    """Connection as it was when the test asked for it."""

    __slots__ = (
        "_same", "_scene", "channels", "client_properties", "consumers", "is_frozen", "name",
        "user", "vhost",
    )  # fmt: skip

    def __init__(self, scope: FaultScope, row: Row) -> None:
        self._scene = scope
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
        """As an operator would: connection.close with 320 CONNECTION_FORCED and this text."""
        do(self._scene, "connections.close", connection=self.name, text=text)

    async def reset(self) -> None:
        """No goodbye: TCP tells the client that there is nobody any more."""
        await self._same.reset()

    async def freeze(self) -> None:
        """Read and write nothing on it; the socket stays open, and heartbeats stop."""
        await self._same.freeze()

    async def thaw(self) -> None:
        """Go on where it stopped."""
        do(self._scene, "connections.thaw", connection=self.name)

    async def cut_after(self, count: int, *, sent_by: str = "broker") -> None:
        """As `NextConnection.cut_after`."""
        await self._same.cut_after(count, sent_by=sent_by)

    def __repr__(self) -> str:
        count = len(self.channels)
        return f"<connection '{self.name}' of '{self.user}' to '{self.vhost}', {count} channels>"


class Clients:
    """Those of a broker, or of one virtual host of it."""

    __slots__ = ("_scene",)

    def __init__(self, scope: FaultScope) -> None:
        self._scene = scope

    async def connections(self) -> list[Connection]:
        """Those that are open, in the order in which they came."""
        rows = do(self._scene, "connections.list")["connections"]
        return [Connection(self._scene, row) for row in rows]

    async def next_connection(self) -> NextConnection:
        """What is done to it happens once it is there, to whichever virtual host it goes."""
        return NextConnection(self._scene)

    async def consumer(self, name: str) -> Consumer:
        """By its tag, or by its queue if that has no other.  NotFound, PreconditionFailed."""
        return Consumer(self._scene, do(self._scene, "consumers.show", consumer=name))
