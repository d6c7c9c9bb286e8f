"""Transactions of a client: what was published in one happens when it is committed."""

from __future__ import annotations

from collections.abc import Iterable

from fluffle.broker.torture.history import Confirmed, Published
from fluffle.broker.torture.recording_client import RecordedTarget, RecordingClient
from fluffle.protocol.methods import Basic, Tx, make


class Transactions:
    """Transactions on the channel of a witness, one after the other."""

    def __init__(self, client: RecordingClient) -> None:
        self._witness = client
        self._published: list[Published] = []

    async def select(self) -> None:
        await self._witness.connection.call(Tx.Select())

    def publish(self, targets: Iterable[RecordedTarget], size: int) -> None:
        events, frames = self._witness.publisher.compose(targets, size, persistent=True)
        self._published += events
        self._witness.connection.write(frames)

    async def commit(self, acked: Iterable[int] = ()) -> None:
        """Acknowledge, and commit that with what was published."""
        published, self._published = self._published, []
        for event in published:
            self._witness.connection.note(event)
        self._witness.unacked.ack(*acked)
        await self._witness.connection.call(Tx.Commit())
        for event in published:
            self._witness.connection.note(Confirmed(event.message))

    async def roll_back(self, acked: Iterable[int] = ()) -> None:
        """Acknowledge, and undo that; what was published never was, and is not written down."""
        self._published.clear()
        connection = self._witness.connection
        connection.send(*(make(Basic.Ack, delivery_tag=tag) for tag in acked))
        await connection.call(Tx.Rollback())
