"""`Network`: links between the nodes of a cluster, and what goes wrong with them.

Nodes know each other by names that mean nothing to the machine; a dial of one is led to where that
listens now.  Two nodes between which either way is cut cannot have a new connection.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, permutations
from random import Random
from typing import cast

from fluffle.broker.testing.cluster.process import Dial, MakeProtocol
from fluffle.broker.testing.loop_thread import LoopBound

RESEND_S = 0.2
"""After which TCP sends again at the earliest; doubled each time."""
RESENDS_MAX = 5
"""Then whatever is lost arrives: a link is given up before the next."""

Address = tuple[str, int]
Find = Callable[[int], Address | None]
"""Where a node listens for others; None if it does not run."""


class Network(LoopBound):
    """Between nodes that are called by their numbers."""

    def __init__(self, names: Sequence[str], find: Find, seed: int) -> None:
        """`seed`: of what is dropped."""
        self._names = names
        self._find = find
        self._loop = asyncio.get_running_loop()
        self.seed = seed
        chance = Random(seed)
        self._directions = {
            pair: LinkDirection(chance) for pair in permutations(range(len(names)), 2)
        }

    def dial_from(self, node: int) -> Dial:
        """Return how this one dials the others."""

        async def dial(make: MakeProtocol, host: str, port: int) -> object:
            del port
            return await self._dial(node, self._names.index(host), make)

        return dial

    async def _dial(self, node: int, other: int, make: MakeProtocol) -> object:
        forth, back = self._directions[node, other], self._directions[other, node]
        while forth.is_cut or back.is_cut:
            await forth.when_whole.wait()
            await back.when_whole.wait()
        address = self._find(other)
        if address is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return await self._loop.create_connection(
            lambda: FaultyTransport(make(), self._loop, forth, back), *address
        )

    # What goes wrong

    async def cut(self, from_: int, to: int) -> None:
        """Cut a direction: nothing goes this way any more."""
        self._direction(from_, to).cut()

    async def partition(self, *sides: Iterable[int]) -> None:
        """Cut all directions between these sides; within each all is as it was.

        ValueError for a node that is on two of them.
        """
        groups = [frozenset(side) for side in sides]
        if len(groups) < 2 or sum(map(len, groups)) != len(frozenset().union(*groups)):
            raise ValueError(f"not the sides of a partition: {sides}")
        for one, other in combinations(groups, 2):
            for a in one:
                for b in other:
                    self._direction(a, b).cut()
                    self._direction(b, a).cut()

    async def heal(self) -> None:
        """Restore the network as it was in the beginning; what was held up arrives."""
        for direction in self._directions.values():
            direction.delay_s = direction.loss = 0.0
            direction.mend()

    async def drop(self, share: float, *, from_: int | None = None, to: int | None = None) -> None:
        """Lose this share of the pieces that are sent; each is sent again 200 ms later or more."""
        if not 0 <= share < 1:
            raise ValueError(f"{share} is no share from 0 to below 1")
        for direction in self._some(from_, to):
            direction.loss = share

    async def delay(self, ms: float, *, from_: int | None = None, to: int | None = None) -> None:
        """Delay what is sent by so much."""
        if ms < 0:
            raise ValueError(f"nothing arrives {-ms} ms before it is sent")
        for direction in self._some(from_, to):
            direction.delay_s = ms / 1_000

    def _direction(self, from_: int, to: int) -> LinkDirection:
        """Return the direction from one node to another.  ValueError."""
        if (from_, to) not in self._directions:
            raise ValueError(f"there is no way from node {from_} to node {to}")
        return self._directions[from_, to]

    def _some(self, from_: int | None, to: int | None) -> Iterator[LinkDirection]:
        """Return all directions that begin and end there; None is anywhere."""
        if from_ is not None and to is not None:
            yield self._direction(from_, to)
            return
        for (one, other), direction in self._directions.items():
            if from_ in (None, one) and to in (None, other):
                yield direction


class LinkDirection:
    """Direction of a link from one node to another: what becomes of all that is sent there."""

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
        """True if something is under way."""
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
        """Stop reading while what was read waits for the other end, as a full network would."""
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
