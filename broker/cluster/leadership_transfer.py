"""Transfer of leaderships: by a node that stops, and by a node whose disk is full.

    stops                --> has others lead what it leads, with no pause for an election
    full, and leads      --> hands over, group by group, to nodes that have room
    has room again       --> says so to all, with what it has led
    leads what another   --> hands it back once that one has all of it again
    has handed over

    frame   [0]               this node has no room
            [0, 1]            it has, but an operator wants it to lead nothing
            [1, group ...]    it has, and has led these

A member takes entries of leaders elsewhere as long as logs may grow (`DiskSpace.may_grow`), then it
does without, and is fed what it lacks once there is room: see `without_entries`.

If some group has no majority of members with room, this node is needed: "A disk that is full" in
docs/reliability.md says what goes on then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

import msgpack

from fluffle.broker.base.callbacks import completion_of
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.codec import BadFrame, unpack
from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.node_monitor import AbsentNodes
from fluffle.broker.cluster.ports import FrameSender
from fluffle.broker.cluster.queues.leader_routes import LeaderRoutes
from fluffle.broker.cluster.raft_host import RaftHost
from fluffle.broker.runtime.turn import do_nothing
from fluffle.raft.config import NodeId, majority_of
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import GroupId
from fluffle.raft.output import Role
from fluffle.raft.state import ProgressState

ROUNDS = 4
"""With another successor each, if there is one."""

LOOK_S = 0.01

LOOKS = 50
"""A round: an election timeout, after which a transfer is given up, and a bit."""

REST_S = 2.0
"""Time to wait for an answer that may never come."""

logger = logging.getLogger(__name__)


class DrainReport(NamedTuple):
    """Numbers of groups that were handed over: quorum queues, and the metadata group."""

    groups: int
    """Groups that others lead now."""
    still_led_here: int
    """Groups that no other node could lead: they have no other member that is up."""


async def drain_leaderships(
    host: RaftHost, name: NodeId, is_alive: Callable[[NodeId], bool]
) -> DrainReport:
    """Return once others lead all that they could."""
    before = len(led_groups(host))
    for round_ in range(ROUNDS):
        asked = []
        for number, hosted in enumerate(led_groups(host)):
            willing = [node for node in successors(hosted, name) if is_alive(node)]
            if willing:
                hosted.transfer(willing[(number + round_) % len(willing)], ignore_refusal)
                asked.append(hosted)
        if await are_led_elsewhere(asked):
            break
    after = len(led_groups(host))
    return DrainReport(max(before - after, 0), after)


async def are_led_elsewhere(groups: list[HostedGroup]) -> bool:
    """True if that has come so, within a round."""
    for _ in range(LOOKS):
        if not any(hosted.status.role is Role.LEADER for hosted in groups):
            return True
        await asyncio.sleep(LOOK_S)
    return False


async def await_settled_sessions(routes: LeaderRoutes) -> None:
    """Wait until leaders have answered what was asked of them, if they do."""
    try:
        async with asyncio.timeout(REST_S):
            await completion_of(routes.rest)
    except TimeoutError:
        event(logger, logging.WARNING, "stop_timed_out")


class DiskFullHandover:
    """State of one node's disk and of those of the others: full disks lead no group."""

    def __init__(
        self, node: NodeId, host: RaftHost, absent: AbsentNodes, sender: FrameSender
    ) -> None:
        self._node = node
        self._host = host
        self._absent = absent
        self._sender = sender
        self.has_room = True
        """True if there is room, as it was last sent to the others."""
        self.is_aside = False
        """True if an operator wants this node to lead nothing, room or not."""
        self.on_needed: Callable[[], object] = do_nothing
        """Called when there is no room, and this node is needed from now on."""
        self.handed_over = 0
        """How often another was asked to lead a group, for lack of room here."""
        self._is_needed = False
        """True if that was called for the room that is missing now."""
        self._full: set[NodeId] = set()
        """Nodes without room."""
        self._aside: set[NodeId] = set()
        """Nodes that are to lead nothing."""
        self._lent: set[GroupId] = set()
        """Groups that this node would lead if its disk had room."""
        self._owed: dict[GroupId, NodeId] = {}
        """Groups that another node had led and may have back, with that node."""

    def look(self) -> None:
        """Check the room regularly: other programs may fill the disk, or free it."""
        space = self._host.space
        space.look()
        has_room = space.has_room
        if has_room != self.has_room:
            self.has_room = has_room
            level = logging.INFO if has_room else logging.WARNING
            event(logger, level, "disk_has_room" if has_room else "disk_full", led=len(self._lent))
            self._sender.send_all(self._said())
        elif self.is_aside or not has_room:
            # A node that has dialled anew takes it to be otherwise
            self._sender.send_all(self._said())
        if not has_room:
            self._see_whether_needed()
            self._hand_over("disk_full")
            return
        self._is_needed = False
        if self.is_aside:
            self._hand_over("maintenance")
        else:
            self._lent.clear()
            self._give_back()

    def set_aside(self) -> None:
        """Lead nothing until `take_back`; entries are taken as before."""
        self.is_aside = True
        self.look()

    def take_back(self) -> None:
        """Lead again, and have again what this node would lead."""
        self.is_aside = False
        self._sender.send_all(self._said())
        self.look()

    def is_set_aside(self, node: NodeId) -> bool:
        """True if a node has said that it is to lead nothing; or this one is."""
        return self.is_aside if node == self._node else node in self._aside

    def _see_whether_needed(self) -> None:
        host, was_needed = self._host, self._is_needed
        self._is_needed = host.space.is_needed = any(map(self._lacks, host.groups.values()))
        if self._is_needed and not was_needed:
            self.on_needed()

    def _lacks(self, hosted: HostedGroup) -> bool:
        """True if the others have no majority with room."""
        voters = [voter.node for voter in hosted.status.config.voters]
        with_room = sum(node != self._node and self._has_room(node) for node in voters)
        return with_room < majority_of(len(voters))

    def _said(self) -> bytes:
        words = [1, *self._lent]
        if self.is_aside or not self.has_room:
            words = [0, 1] if self.has_room else [0]
        said: bytes = msgpack.packb(words)
        return said

    def _has_room(self, node: NodeId) -> bool:
        """True if another node is there, and has room."""
        return self._absent.is_alive(node) and node not in self._full

    def may_lead(self, node: NodeId) -> bool:
        """True if another node is there, has room, and is not set aside."""
        return self._has_room(node) and node not in self._aside

    def _hand_over(self, why: str) -> None:
        """Hand leaderships over; if no other node has room either, this one goes on leading."""
        asked = 0
        for hosted in led_groups(self._host):
            willing = [*filter(self.may_lead, successors(hosted, self._node))]
            if willing:
                hosted.transfer(willing[hosted.group % len(willing)], ignore_refusal)
                self._lent.add(hosted.group)
                asked += 1
        if asked:
            self.handed_over += asked
            event(logger, logging.WARNING, "leadership_transferred", groups=asked, reason=why)

    def _give_back(self) -> None:
        """While it catches up the other would only keep the group from working."""
        for group, node in list(self._owed.items()):
            hosted = self._host.groups.get(group)
            if hosted is None or hosted.status.role is not Role.LEADER or not self.may_lead(node):
                del self._owed[group]
            elif has_caught_up(hosted, node):
                del self._owed[group]
                hosted.transfer(node, ignore_refusal)

    # Others

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Take a node that connects to have room until it says otherwise."""
        self._full.discard(node)
        self._aside.discard(node)
        if is_up and (self.is_aside or not self.has_room):
            self._sender.send(node, self._said())

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Handle another node's message about its room.  Raises `BadFrame`."""
        may_lead, groups = unpacked(payload)
        self._full.discard(node)
        self._aside.discard(node)
        if not may_lead and groups:
            self._aside.add(node)
            return
        if not may_lead:
            self._full.add(node)
            if not self.has_room:
                self._see_whether_needed()
            return
        self._owed.update(dict.fromkeys(groups, node))
        self._give_back()


def has_caught_up(hosted: HostedGroup, node: NodeId) -> bool:
    """True if a follower is fed as its leader's log grows."""
    flow, match = hosted.raft.progress.get(node, (ProgressState.PROBE, 0))
    return flow is ProgressState.REPLICATE and match >= hosted.status.commit


def unpacked(payload: bytes) -> tuple[bool, list[GroupId]]:
    """Raises `BadFrame`."""
    row = unpack(payload)
    if (
        type(row) is not list
        or row[:1] not in ([0], [1])
        or not all(type(each) is int for each in row)
    ):
        raise BadFrame(f"{row!r:.40} for whether there is room")
    return bool(row[0]), row[1:]


def led_groups(host: RaftHost) -> list[HostedGroup]:
    """Groups that this node leads."""
    return [hosted for hosted in host.groups.values() if hosted.status.role is Role.LEADER]


def successors(hosted: HostedGroup, name: NodeId) -> list[NodeId]:
    """Other voters, which may lead a group."""
    return [voter.node for voter in hosted.status.config.voters if voter.node != name]


def ignore_refusal(_refused: ProposalRefused) -> None:
    """The next round asks another."""
