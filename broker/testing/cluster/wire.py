"""`FaultyTransport`: a connection between two nodes, over a network that can be cut and slowed.

It stands at the end that dials, as a transport to its node and as a protocol to the socket; what
goes either way passes a `StreamDirection`, in order.

    node --write--> StreamDirection forth --> socket ====> the other node
         <--------- StreamDirection back  <--        <====

Nothing is lost of what a cut holds up: it arrives once that is mended, unless one end has hung up
by then.  Nor is a packet that is dropped: TCP sends it again, and what is behind it waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import cast

RESEND_S = 0.2
"""After which TCP sends again at the earliest; doubled each time."""
RESENDS_MAX = 5
"""Then whatever is lost arrives: a link is given up before the next."""


class LinkDirection:
    """Direction of a link from one node to another: what becomes of all that is sent there."""

    __slots__ = ("chance", "delay_s", "flows", "is_cut", "loss", "when_whole")

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.is_cut = False
        self.delay_s = 0.0
        self.loss = 0.0
        """The share of pieces that are dropped, each time."""
        self.flows: set[StreamDirection] = set()
        self.when_whole = asyncio.Event()
        self.when_whole.set()

    def cut(self) -> None:
        self.is_cut = True
        self.when_whole.clear()

    def mend(self) -> None:
        """Restore the direction: what was held up arrives."""
        self.is_cut = False
        self.when_whole.set()
        for flow in tuple(self.flows):
            flow.pump()

    def taken_s(self) -> float:
        """Return how long the next piece is under way."""
        taken_s, resend_s = self.delay_s, RESEND_S
        for _ in range(RESENDS_MAX if self.loss else 0):
            if self.chance.random() >= self.loss:
                break
            taken_s += resend_s
            resend_s *= 2
        return taken_s


class StreamDirection:
    """Bytes of one connection in one direction."""

    __slots__ = ("_direction", "_in_transit", "_loop", "_on_busy", "_timer")

    def __init__(
        self, direction: LinkDirection, loop: asyncio.AbstractEventLoop, on_busy: Callable[[], None]
    ) -> None:
        """`on_busy` is called when `is_busy` changes."""
        self._direction = direction
        self._loop = loop
        self._on_busy = on_busy
        self._in_transit: deque[tuple[float, Callable[[], object]]] = deque()
        """When each piece arrives, and what happens then."""
        self._timer: asyncio.TimerHandle | None = None
        direction.flows.add(self)

    @property
    def is_busy(self) -> bool:
        """Whether something is under way."""
        return bool(self._in_transit)

    def put(self, arrive: Callable[[], object]) -> None:
        """Call `arrive` when a piece that is sent now arrives: at once if nothing is in the way."""
        taken_s = self._direction.taken_s()
        if not (self._in_transit or taken_s or self._direction.is_cut):
            arrive()
            return
        self._in_transit.append((self._loop.time() + taken_s, arrive))
        if len(self._in_transit) == 1:
            self._on_busy()
        self.pump()

    def drop(self) -> None:
        """Drop what is under way."""
        self._in_transit.clear()

    def end(self) -> None:
        """The connection is gone."""
        self.drop()
        self._direction.flows.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def pump(self) -> None:
        """Deliver what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        was_busy = self.is_busy
        while self._in_transit and not self._direction.is_cut:
            at_s, arrive = self._in_transit[0]
            if at_s > self._loop.time():
                self._timer = self._loop.call_at(at_s, self.pump)
                break
            self._in_transit.popleft()
            arrive()
        if was_busy and not self.is_busy:
            self._on_busy()


class FaultyTransport(asyncio.Transport, asyncio.Protocol):
    """Transport between two nodes, at the end that has dialled."""

    def __init__(
        self,
        protocol: asyncio.Protocol,
        loop: asyncio.AbstractEventLoop,
        forth: LinkDirection,
        back: LinkDirection,
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._loop = loop
        self._socket: asyncio.Transport
        self._forth = StreamDirection(forth, loop, self._look_whether_full)
        self._back = StreamDirection(back, loop, self._look_whether_read)
        self._is_close_notified = False
        """The node knows that it is over."""
        self._is_reading = True
        self._is_socket_full = self._is_full = False

    # To the node

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closing():
            self._forth.put(lambda: self._socket.write(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Behind what was written."""
        self._end(self._socket.close)

    def abort(self) -> None:
        self._forth.drop()
        self._end(self._socket.abort)

    def _end(self, hang_up: Callable[[], None]) -> None:
        """The node is done with it; the other one hears of it when that arrives."""
        self._forth.put(hang_up)
        if not self._is_close_notified:
            self._is_close_notified = True
            self._back.end()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._is_close_notified or self._socket.is_closing()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._socket.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._socket.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        return self._is_reading and not self.is_closing()

    def pause_reading(self) -> None:
        self._is_reading = False
        self._look_whether_read()

    def resume_reading(self) -> None:
        self._is_reading = True
        self._look_whether_read()

    def _look_whether_read(self) -> None:
        """What has not arrived here fills the network."""
        is_wanted = self._is_reading and not self._back.is_busy
        if self._socket.is_closing() or is_wanted == self._socket.is_reading():
            return
        if is_wanted:
            self._socket.resume_reading()
        else:
            self._socket.pause_reading()

    def _look_whether_full(self) -> None:
        is_full = self._is_socket_full or self._forth.is_busy
        if is_full == self._is_full or self._is_close_notified:
            return
        self._is_full = is_full
        if is_full:
            self._protocol.pause_writing()
        else:
            self._protocol.resume_writing()

    # To the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self._back.put(lambda: self._protocol.data_received(data))

    def eof_received(self) -> bool:
        self._back.put(self._protocol.eof_received)
        return True

    def pause_writing(self) -> None:
        self._is_socket_full = True
        self._look_whether_full()

    def resume_writing(self) -> None:
        self._is_socket_full = False
        self._look_whether_full()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forth.end()
        if not self._is_close_notified:
            self._back.put(lambda: self._lost(exc))

    def _lost(self, error: Exception | None) -> None:
        """The node hears that it is over."""
        if not self._is_close_notified:
            self._is_close_notified = True
            self._back.end()
            self._protocol.connection_lost(error)
