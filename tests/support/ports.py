"""Ports of this machine's loopback that a test knows before somebody listens there."""

from __future__ import annotations

import atexit
import socket

LOOPBACK = "127.0.0.1"

RESERVED: list[socket.socket] = []
"""Bound and never listened on, so that the kernel gives these ports to nobody who asks for any;
who asks for one of them, to listen there, gets it."""


@atexit.register
def give_up_reserved() -> None:
    while RESERVED:
        RESERVED.pop().close()


def free_ports(count: int) -> list[int]:
    """Ports of this machine's loopback for nobody else, as long as this process lives."""
    ports = []
    for _ in range(count):
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((LOOPBACK, 0))
        RESERVED.append(reserved)
        ports.append(int(reserved.getsockname()[1]))
    return ports
