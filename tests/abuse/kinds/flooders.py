"""Floods of what is dear for a node and cheap for its client, who goes on being served."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from functools import partial
from random import Random

from tests.abuse.flooders import FLOODERS, Flooder
from tests.abuse.target import AttackContext, UnexpectedAnswer

FLOOD_S = 0.5
PIECE_BYTES = 1 << 18


def flood(context: AttackContext, _chance: Random, *, flooder: Flooder) -> None:
    """Send as much as the node takes for a moment; whatever it answers is read."""
    with context.log_in(1) as rogue:
        blocks = flooder(rogue.client)
        block = memoryview(next(blocks))
        until_s = time.monotonic() + FLOOD_S
        rogue.client.socket.setblocking(False)
        while time.monotonic() < until_s:
            with suppress(BlockingIOError):
                block = block[rogue.client.socket.send(block[:PIECE_BYTES]) :]
            with suppress(BlockingIOError):
                if not rogue.client.socket.recv(PIECE_BYTES):
                    raise UnexpectedAnswer("the flooder was cut off")
            block = block or memoryview(next(blocks))
        # what it has sent and nobody has read goes with it: the next one would have to wait for it
        rogue.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


KINDS = {f"flood: {name}": partial(flood, flooder=flooder) for name, flooder in FLOODERS.items()}
