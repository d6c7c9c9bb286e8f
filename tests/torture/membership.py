"""Nodes of a cluster that come and go, as an operator has them do so."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fluffle.broker.torture.system import Doing, NodeAction, NodeActionFailed
from fluffle.storage.environment import STORE_FOLDER
from tests.support.daemon import environment_for_nodes

COMMAND = (sys.executable, "-m", "fluffle.broker")
ATTEMPTS, AGAIN_S = 60, 2.0


class NodePaths(NamedTuple):
    """Paths of a node, and its address."""

    data: Path
    copy: Path
    """A copy of its store; not on its disk."""
    log: Path
    address: str
    """The address for the other nodes."""

    @property
    def store(self) -> Path:
        return self.data / STORE_FOLDER


class Operator:
    """Gives commands to nodes of a cluster: to whichever can do them, as others may be cut off."""

    def __init__(self, nodes: Mapping[str, NodePaths]) -> None:
        self._nodes = nodes

    async def do_without(self, node: str, *words: str) -> str:
        """Have another node do it, sooner or later: what that says.  NodeActionFailed."""
        said: dict[str, str] = {}
        for _ in range(ATTEMPTS):
            for name, there in self._nodes.items():
                if name == node:
                    continue
                try:
                    return await self.do(*words, "--data-dir", str(there.data))
                except NodeActionFailed as failed:
                    said[name] = str(failed)
            await asyncio.sleep(AGAIN_S)
        raise NodeActionFailed("\n".join(said.values()))

    async def grow(self, node: str) -> None:
        """Return when the queues that there are have a member on it, and not before: another disk
        may be lost next, and with it a majority of those that have two."""
        await self._change_members("grow", node, has_member=True)

    async def shrink(self, node: str) -> None:
        """Return when the queues that there are have no member on it any more."""
        await self._change_members("shrink", node, has_member=False)

    async def _change_members(self, verb: str, node: str, *, has_member: bool) -> None:
        """Give the command until each queue has been as wanted, or is deleted.

        Again and again, as a queue that was declared between the command and the first list has
        members as before.
        """
        await self.do_without(node, "queues", verb, node)
        others = set(await self._queues(node))
        for _ in range(ATTEMPTS):
            queues = await self._queues(node)
            others = {each for each in others & queues.keys()
                      if (node in queues[each]) is not has_member}  # fmt: skip
            if not others:
                return
            await asyncio.sleep(AGAIN_S)
            await self.do_without(node, "queues", verb, node)
        raise NodeActionFailed(f"the members of groups {sorted(others)} on {node} do not change")

    async def _queues(self, node: str) -> dict[int, Sequence[str]]:
        """Where the members of each quorum queue are, by its group, in the eyes of another node."""
        said = await self.do_without(node, "queues", "list", "--json")
        return {row["group"]: row["members"] for row in json.loads(said) if row["type"] == "quorum"}

    async def do(self, *words: str) -> str:
        """The output of a command, when it is done.  NodeActionFailed, with that, if it fails."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            env=environment_for_nodes(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        said = output.decode().strip()
        if process.returncode:
            raise NodeActionFailed(f"fluffle {' '.join(words)}: {said}")
        return said


class Membership:
    """A cluster that grows and shrinks.  `actions` can be done to one of its nodes for that,
    besides a start and a stop."""

    def __init__(
        self,
        operator: Operator,
        founders: Sequence[str],
        nodes: Mapping[str, NodePaths],
        forget: Callable[[str], None],
    ) -> None:
        """`founders` of the `nodes` are never left.  `forget`: what is known of a disk, which is
        wiped."""
        self._operator = operator
        self._founders = founders
        self._nodes = nodes
        self._forget = forget

    @property
    def actions(self) -> dict[NodeAction, Doing]:
        return {
            NodeAction.JOINED: self.joined,
            NodeAction.GROW: self.grow,
            NodeAction.SHRINK: self.shrink,
            NodeAction.FORGET: self.forget,
            NodeAction.WIPE: self.wipe,
        }

    async def joined(self, node: str) -> None:
        """Wait until the nodes that are asked say that it runs, though no operator has added it."""
        for _ in range(ATTEMPTS):
            if await self._runs(node):
                return
            await asyncio.sleep(AGAIN_S)
        raise NodeActionFailed(f"{node} has not joined for {ATTEMPTS * AGAIN_S:.0f} s")

    async def _runs(self, node: str) -> bool:
        """In the eyes of another."""
        with suppress(NodeActionFailed):
            said = await self._operator.do_without(node, "cluster", "status", "--json")
            return any((row["node"], row["state"]) == (node, "running") for row in json.loads(said))
        return False

    async def grow(self, node: str) -> None:
        await self._operator.grow(node)

    async def shrink(self, node: str) -> None:
        """Have the queues on the founders instead: of two members none may lose its disk."""
        await self._operator.shrink(node)
        for founder in self._founders:
            await self._operator.grow(founder)

    async def forget(self, node: str) -> None:
        await self._operator.do_without(node, "cluster", "forget", node, "--yes")

    async def wipe(self, node: str) -> None:
        """But for the folder, where its disk may be mounted."""
        for entry in self._nodes[node].data.iterdir():
            if entry.is_dir():
                await asyncio.to_thread(shutil.rmtree, entry)
            else:
                entry.unlink()
        self._forget(node)
