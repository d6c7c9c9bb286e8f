"""What can be tortured on this machine, by name: each a context that starts it and ends it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from fluffle.broker.torture.system import System
from fluffle.broker.torture.talk import Address
from tests.compat.oracle import free_port
from tests.support.daemon import environment_for_nodes
from tests.torture.processes import Command, processes

FLUFFLE = (sys.executable, "-m", "fluffle.broker", "serve")
DISK_MIB = 96
"""Of a disk that can be filled."""

Launch: TypeAlias = Callable[[Path], AbstractAsyncContextManager[System]]


@asynccontextmanager
async def lone_fluffle(folder: Path) -> AsyncIterator[System]:
    """One node with durable classic queues: whatever it confirms is on its disk."""
    port, data = free_port(), folder / "data"
    words = (*FLUFFLE, "--listen", f"127.0.0.1:{port}", "--data-dir", str(data))
    command = Command(words, environment_for_nodes(), folder / "log")
    data.mkdir(parents=True)
    async with processes({"node": command}) as group:
        addresses = [Address("node", "127.0.0.1", port)]
        yield System(addresses, group.deeds, queue_type="classic")


SYSTEMS: dict[str, Launch] = {"lone": lone_fluffle}
