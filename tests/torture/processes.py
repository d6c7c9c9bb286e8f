"""Nodes as processes of this machine, each in a process group of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fluffle.broker.torture.system import Doing, NodeAction, NodeActionFailed

STOP_S = 60.0


class Command(NamedTuple):
    """How a node is started."""

    words: Sequence[str]
    environment: Mapping[str, str]
    log: Path


class Processes:
    """`actions` are what can be done to them."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        """Prepare the commands by node."""
        self._commands = commands
        self._running: dict[str, asyncio.subprocess.Process] = {}

    @property
    def actions(self) -> dict[NodeAction, Doing]:
        return {
            NodeAction.START: self.start,
            NodeAction.STOP: self.stop,
            NodeAction.KILL: self.kill,
            NodeAction.PAUSE: self.pause,
            NodeAction.RESUME: self.resume,
        }

    def pid(self, node: str) -> int:
        """The number of its last process, which leads a process group."""
        return self._running[node].pid

    async def start(self, node: str) -> None:
        running = self._running.get(node)
        if running is not None and running.returncode is None:
            return
        words, environment, log = self._commands[node]
        with log.open("ab") as output:
            self._running[node] = await asyncio.create_subprocess_exec(
                *words,
                env=dict(environment),
                cwd=log.parent,  # where Erlang leaves what it crashed with
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )

    async def stop(self, node: str) -> None:
        self._signal(node, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._running[node].wait()
        except TimeoutError:
            raise NodeActionFailed(f"{node} ignored SIGTERM for {STOP_S:.0f} s") from None
        await self.kill(node)  # what it has left behind

    async def ends(self, node: str, within_s: float) -> int:
        """Wait until it ends by itself; its exit code."""
        try:
            async with asyncio.timeout(within_s):
                return await self._running[node].wait()
        except TimeoutError:
            raise NodeActionFailed(f"{node} has not ended by itself for {within_s:.0f} s") from None

    async def kill(self, node: str) -> None:
        self._signal(node, signal.SIGKILL)
        await self._running[node].wait()

    async def pause(self, node: str) -> None:
        self._signal(node, signal.SIGSTOP)

    async def resume(self, node: str) -> None:
        self._signal(node, signal.SIGCONT)

    def _signal(self, node: str, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._running[node].pid, number)


@asynccontextmanager
async def processes(commands: Mapping[str, Command]) -> AsyncIterator[Processes]:
    """All of them started; none is left at the end."""
    group = Processes(commands)
    try:
        await asyncio.gather(*map(group.start, commands))
        yield group
    finally:
        for node in commands:
            with suppress(KeyError):
                await group.kill(node)
