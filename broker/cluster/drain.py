"""Leadership drain: a node moves its leaderships to others before it stops.

It has them lead what it leads, with no pause for an election.  Once its clients are gone it says
what they have done: acknowledgements may have been put off, and nobody else knows of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from fluffle.broker.base.coroutines import completion_of
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.queues.session_router import LeaderRoutes
from fluffle.broker.cluster.raft_host import RaftHost
from fluffle.raft.config import NodeId
from fluffle.raft.group import ProposalRefused
from fluffle.raft.output import Role

logger = logging.getLogger(__name__)

ROUNDS = 4
"""With another successor each, if there is one."""

LOOK_S = 0.01
LOOKS = 50
"""A round: an election timeout, after which a transfer is given up, and a bit."""

REST_S = 2.0
"""So long an answer is waited for that may never come."""


class DrainReport(NamedTuple):
    """Numbers of groups that were handed over: quorum queues, and the metadata group."""

    groups: int
    """Others lead them now."""
    still_led_here: int
    """Nobody else could: they have no other member that is there."""


async def drain_leaderships(
    host: RaftHost, name: NodeId, is_alive: Callable[[NodeId], bool]
) -> DrainReport:
    """Return once others lead all that they could."""
    before = len(led_here(host))
    for round_ in range(ROUNDS):
        asked = []
        for number, hosted in enumerate(led_here(host)):
            willing = [node for node in successors(hosted, name) if is_alive(node)]
            if willing:
                hosted.transfer(willing[(number + round_) % len(willing)], ignore_refusal)
                asked.append(hosted)
        if await are_led_elsewhere(asked):
            break
    after = len(led_here(host))
    return DrainReport(max(before - after, 0), after)


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


def ignore_refusal(_refused: ProposalRefused) -> None:
    """The next round asks another."""


async def await_settled_sessions(lines: LeaderRoutes) -> None:
    """Wait until leaders have answered what was asked of them, if they do."""
    try:
        async with asyncio.timeout(REST_S):
            await completion_of(lines.rest)
    except TimeoutError:
        event(logger, logging.WARNING, "stop_timed_out")
