"""`Faults` and `Clients`: what goes wrong at a broker or for a virtual host, as a test calls it."""

from __future__ import annotations

from datetime import timedelta

from fluffle.broker.admin.context import Row
from fluffle.broker.testing.faults.tapped_transport import (
    NEXT,
    REASON,
    FaultScope,
)
from fluffle.broker.testing.loop_thread import LoopBound


def do(scope: FaultScope, name: str, **arguments: object) -> Row:
    """Perform one of `operations`.  BrokerError."""
    from fluffle.broker.testing.faults.operations import perform  # noqa: PLC0415  if it is used

    return perform(scope, name, arguments)


class ConsumerFaults(LoopBound):
    """Consumer as it was when the test asked for it."""

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


class NextConnection(LoopBound):
    """The next one that comes to the broker, and that after it, with each call."""

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


class ConnectionFaults(LoopBound):
    """Connection as it was when the test asked for it."""

    def __init__(self, scope: FaultScope, row: Row) -> None:
        self._scope = scope
        self.name: str = row["name"]
        self.user: str = row["user"]
        """Empty before the login, as `vhost`."""
        self.vhost: str = row["vhost"]
        self.protocol: str = row["protocol"]
        """Protocol by RabbitMQ's name: "AMQP 0-9-1", "MQTT 5-0"."""
        self.client_id: str = row["client_id"]
        """Client identifier of MQTT; empty for AMQP."""
        self.client_properties: Row = row["client_properties"]
        self.channels: list[int] = [each["number"] for each in row["channels"]]
        self.consumers = [ConsumerFaults(scope, each) for each in row["consumers"]]
        self.is_frozen: bool = row["frozen"]
        self._same = NextConnection(scope, self.name)

    async def close(self, text: str = REASON, *, code: int | None = None) -> None:
        """Close it as an operator would: connection.close with 320 CONNECTION_FORCED and this text.

        A client of MQTT 5.0 gets DISCONNECT, with a reason code as 0x8b, or else with 0x98.
        SyntaxFailure for a code that DISCONNECT does not have.
        """
        do(self._scope, "connections.close", connection=self.name, text=text, code=code)

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


class Clients(LoopBound):
    """Clients of a broker, or of one virtual host of it."""

    def __init__(self, scope: FaultScope) -> None:
        self._scope = scope

    async def connections(self) -> list[ConnectionFaults]:
        """Open connections, in the order in which they came."""
        rows = do(self._scope, "connections.list")["connections"]
        return [ConnectionFaults(self._scope, row) for row in rows]

    async def connection(self, name: str) -> ConnectionFaults:
        """Return a connection by its name, the one that its client has given it, or the client
        identifier of MQTT.  NotFound."""
        return ConnectionFaults(self._scope, do(self._scope, "connections.show", connection=name))

    async def next_connection(self) -> NextConnection:
        """Faults for the next connection, whichever virtual host it opens."""
        return NextConnection(self._scope)

    async def consumer(self, name: str) -> ConsumerFaults:
        """Return a consumer by its tag, or by its queue if that has no other.  NotFound,
        PreconditionFailed."""
        return ConsumerFaults(self._scope, do(self._scope, "consumers.show", consumer=name))


class MqttFaults(LoopBound):
    """Faults that only clients of MQTT know."""

    def __init__(self, scope: FaultScope) -> None:
        self._scope = scope

    async def cut_before(
        self, packet: str, *, sent_by: str = "broker", client: str | None = None, count: int = 1
    ) -> None:
        """Cut the connection where the broker would send the next so many packets of a type, as
        `PUBACK`: what led to it is done, and the client does not hear of it.

        `sent_by="client"`: where the client sends it, and the broker does not hear of it.
        `client`: the identifier of the one that is meant.  SyntaxFailure for an unknown packet.
        """
        named = {"packet": packet, "sent_by": sent_by, "client": client, "count": count}
        do(self._scope, "packets.cut_before", **named)

    async def duplicate_next(self, count: int = 1, *, client: str | None = None) -> None:
        """Send clients the next so many messages of QoS 1 and 2 twice, the second time with DUP.

        Before 5.0 the second one comes at once.  5.0 permits it only when a client has come back,
        so its connection is cut before the acknowledgement comes in; its session must last.
        """
        do(self._scope, "packets.duplicate_next", client=client, count=count)

    async def refuse_next(
        self, packet: str, code: int, *, client: str | None = None, count: int = 1
    ) -> None:
        """Refuse the next so many `CONNECT`, `PUBLISH`, `SUBSCRIBE` or `UNSUBSCRIBE` packets by a
        reason code of MQTT 5.0, as 0x97; nothing else comes of them.

        Clients before 5.0 get what their version has for it: a return code of CONNACK, 0x80 in
        SUBACK, and no answer to a PUBLISH.  SyntaxFailure for a code that the answer does not have.
        """
        named = {"packet": packet, "code": code, "client": client, "count": count}
        do(self._scope, "packets.refuse_next", **named)

    async def lose_sessions(self, *, client: str | None = None) -> int:
        """Forget sessions that last, as a broker does that had them in memory and is started again;
        how many.  Their clients are cut off, and find no session when they come back."""
        return int(do(self._scope, "sessions.lose", client=client)["sessions"])

    async def limit(
        self,
        *,
        receive_maximum: int | None = None,
        maximum_packet_size: int | None = None,
        topic_alias_maximum: int | None = None,
        session_expiry: int | None = None,
        keep_alive: int | None = None,
    ) -> None:
        """Have other limits for clients that connect from now on: CONNACK says them, and who
        exceeds one is disconnected.  `session_expiry` and `keep_alive` are the longest, in
        seconds."""
        do(
            self._scope,
            "limits.set",
            receive_maximum=receive_maximum,
            maximum_packet_size=maximum_packet_size,
            topic_alias_maximum=topic_alias_maximum,
            session_expiry=session_expiry,
            keep_alive=keep_alive,
        )


class Faults(MqttFaults):
    """Faults of a broker or virtual host, called in the loop of the broker."""

    # The broker, for all its virtual hosts

    async def block(self, reason: str = "low on memory") -> None:
        """Raise a resource alarm: who publishes hears connection.blocked, and is not read."""
        do(self._scope, "block", reason=reason)

    async def unblock(self) -> None:
        """Clear the alarm."""
        do(self._scope, "unblock")

    async def refuse_logins(self) -> None:
        """Refuse logins, whatever the password: 403 ACCESS_REFUSED, 0x86 with MQTT."""
        do(self._scope, "logins.refuse")

    async def allow_logins(self) -> None:
        """Let new connections log in again."""
        do(self._scope, "logins.allow")

    async def refuse_connections(self, *, silently: bool = False) -> None:
        """Refuse connections as if there were no broker at its address; those that are open stay.

        `silently`: new ones are accepted, and nothing is said on them.
        """
        do(self._scope, "connections.refuse", silently=silently)

    async def accept_connections(self) -> None:
        """Accept connections again, and talk to them; those that were met with silence stay so."""
        do(self._scope, "connections.accept")

    # This virtual host

    async def hold_confirms(self, **time: float) -> None:
        """Confirm nothing until `release_confirms`; or, given `seconds=5`, everything so much
        later by the clock that can be moved.

        For clients of MQTT confirms are PUBACK, PUBREC and PUBCOMP.
        """
        if time:
            ms = round(timedelta(**time) / timedelta(milliseconds=1))
            do(self._scope, "confirms.delay", ms=ms)
        else:
            do(self._scope, "confirms.hold")

    async def release_confirms(self) -> None:
        """Say what has been held back, and hold back nothing more."""
        do(self._scope, "confirms.release")

    async def nack_next(
        self, count: int = 1, *, queue: str | None = None, exchange: str | None = None
    ) -> None:
        """Refuse the next so many messages that come to a queue, or through an exchange to the
        queues that are there: they are not taken, and their publishers hear basic.nack.

        NotFound for an exchange that is not there.
        """
        where = {"queue": queue, "exchange": exchange}
        do(self._scope, "publishes.nack_next", count=count, **where)

    async def unkind(
        self, seed: int | str, *, redelivered_percent: int = 25, cancelled_percent: int = 1
    ) -> None:
        """Everything that AMQP permits and naive code forgets, until `mend`.

        Of a hundred acknowledgements so many come when their messages have just been delivered once
        more, and so many when a consumer of their channel is cancelled.
        """
        do(
            self._scope,
            "unkind",
            seed=seed,
            redelivered_percent=redelivered_percent,
            cancelled_percent=cancelled_percent,
        )

    # All of them

    async def mend(self) -> None:
        """End all faults.  What has been cut stays so."""
        self._scope.mend()

    @property
    def in_effect(self) -> list[str]:
        """Faults that are in effect, in words."""
        return self._scope.in_effect

    def __repr__(self) -> str:
        return repr(self._scope)
