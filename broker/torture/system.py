"""Port to the system under torture: where its nodes are, and what can be done to them.

The operator of a system fills in what it can do.  Faults that need something else are not chosen.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from fluffle.broker.torture.proxy import Mesh

COMMAND_TIMEOUT_S = 120.0


class NodeAddress(NamedTuple):
    """Address of a node; several addresses may lead to one."""

    node: str
    host: str
    port: int


class NodeAction(Enum):
    """Action on a node.  Each returns when it is done; a start need not be ready."""

    START = "start"
    """Nothing, if it runs."""
    STOP = "stop"
    """Stop the node in order, with a goodbye to its peers."""
    KILL = "kill"
    """Kill the process, as by SIGKILL."""
    PAUSE = "pause"
    """Stop the process, as by SIGSTOP."""
    RESUME = "resume"
    THROTTLE = "throttle"
    """The node's process gets a small part of a processor."""
    UNTHROTTLE = "unthrottle"
    """Nothing, if it was not throttled."""
    ISOLATE = "isolate"
    """No byte goes between it and the other nodes."""
    REJOIN = "rejoin"
    FILL = "fill"
    """The node's disk has no room."""
    FREE = "free"
    UNPLUG = "unplug"
    """The node's power is cut: it is gone, and what its disk had not synced may be."""
    COPY = "copy"
    """The content of its disk is kept as it is now, though it runs."""
    RESTORE = "restore"
    """The node does not run; on its disk is what was copied last."""
    OVERWRITE = "overwrite"
    """The node does not run; the files that are on its disk have the content that was copied last,
    and are the same files."""
    REFUSED = "refused"
    """With such a disk it must not serve: it has ended by itself, or is kept from its clients."""
    RENEW = "renew"
    """The node has joined with an empty disk, as operators are advised to do."""
    JOINED = "joined"
    """Started with nothing on its disk, it must become one of the nodes of the cluster."""
    GROW = "grow"
    """All replicated queues have a member there."""
    SHRINK = "shrink"
    """None of them has."""
    FORGET = "forget"
    """The node has stopped; the others have it as one of theirs no more."""
    WIPE = "wipe"
    """Nothing is left on its disk, so that it can join again."""


Doing: TypeAlias = Callable[[str], Awaitable[None]]
"""Is given the name of the node."""


class NodeActionFailed(Exception):
    """Failure of an action, with the reason."""


@dataclass(frozen=True, slots=True)
class System:
    addresses: Sequence[NodeAddress]
    """Addresses for clients, one of each node."""
    actions: Mapping[NodeAction, Doing] = field(default_factory=dict)
    mesh: Mesh | None = None
    queue_type: str = "quorum"
    spares: Sequence[NodeAddress] = ()
    """Nodes that are not there at the beginning, do not run, and have nothing on their disks."""

    @property
    def nodes(self) -> list[str]:
        return [address.node for address in self.addresses]

    @property
    def every_address(self) -> list[NodeAddress]:
        """Addresses of all nodes, with those that may come."""
        return [*self.addresses, *self.spares]


def by_command(template: str, environment: Mapping[str, str] = os.environ) -> Doing:
    """Do it with a command of the shell's words; `{node}` in it is the name of the node."""

    async def do(node: str) -> None:
        words = [word.replace("{node}", node) for word in shlex.split(template)]
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                output, _nothing = await process.communicate()
        except TimeoutError:
            process.kill()
            raise NodeActionFailed(f"{shlex.join(words)} took too long") from None
        if process.returncode:
            text = output.decode(errors="replace").strip()
            raise NodeActionFailed(f"{shlex.join(words)} ended with {process.returncode}: {text}")

    return do
