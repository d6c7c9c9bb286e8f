"""A node that is about to stop has others lead what it leads, with no pause for an election."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fluffle.broker.cluster.host import RaftHost
from fluffle.broker.cluster.hosted import HostedGroup
from fluffle.raft.config import NodeId
from fluffle.raft.output import Role
from fluffle.raft.refused import Refused

ROUNDS = 4
"""With another successor each, if there is one."""

LOOK_S = 0.01
LOOKS = 50
"""A round: an election timeout, after which a transfer is given up, and a bit."""


async def hand_over(host: RaftHost, name: NodeId, is_alive: Callable[[NodeId], bool]) -> int:
    """Return once others lead all that they could; how many groups still are led here."""
    for round_ in range(ROUNDS):
        asked = []
        for number, hosted in enumerate(led_here(host)):
            willing = [node for node in successors(hosted, name) if is_alive(node)]
            if willing:
                hosted.transfer(willing[(number + round_) % len(willing)], nobody_minds)
                asked.append(hosted)
        if await are_led_elsewhere(asked):
            break
    return len(led_here(host))


def led_here(host: RaftHost) -> list[HostedGroup]:
    return [hosted for hosted in host.groups.values() if hosted.status.role is Role.LEADER]


def successors(hosted: HostedGroup, name: NodeId) -> list[NodeId]:
    """Whoever else may lead a group."""
    return [voter.node for voter in hosted.status.config.voters if voter.node != name]


async def are_led_elsewhere(groups: list[HostedGroup]) -> bool:
    """Whether that has come so, within a round."""
    for _ in range(LOOKS):
        if not any(hosted.status.role is Role.LEADER for hosted in groups):
            return True
        await asyncio.sleep(LOOK_S)
    return False


def nobody_minds(_refused: Refused) -> None:
    """The next round asks another."""
