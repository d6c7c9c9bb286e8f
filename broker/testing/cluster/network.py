"""`Network`: what is between the nodes of a cluster, and what goes wrong with it.

Nodes know each other by names that mean nothing to the machine; who dials one is led to where that
listens now.  Two nodes between which either way is cut cannot have a new connection.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, permutations
from random import Random

from fluffle.broker.testing.cluster.process import Dial, MakeProtocol
from fluffle.broker.testing.cluster.wire import FaultyTransport, LinkDirection

Address = tuple[str, int]
Find = Callable[[int], Address | None]
"""Where a node listens for others; None if it does not run."""


class Network:
    """Between nodes that are called by their numbers."""

    __slots__ = ("_directions", "_find", "_loop", "_names", "seed")

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
