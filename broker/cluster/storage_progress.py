"""How far the disk of each node has come: what others know of it, should it be put back.

    after a commit, within `TELL_S`    a --> b    "my disk has made commit 812 durable"
    over a link that is new            b --> a    "of yours I know of commit 812, in your life 4"

Who began its present life with less than another knows of an earlier one has lost what it had
confirmed, and must not be a part of any majority: it ends.  That is found out whichever other nodes
were there: each passes on what it knows of all.  What is known goes to disk with whatever is
written next, so that it costs no commit.

frame    [[node, incarnation, life, commit] ...]    of those that the sender knows, and of itself

Of each life of a node there is a row, since a later life may be that of a disk that was put back:
whatever others say of that, what is known of the life before stays, and the node is told.  A sender
says first over a new link with which commits its last lives have begun.  So a node that was put
back is known as that by the others, too, however much it has committed since, and after they have
started again.  And of the rows of lives that it has all of, only the last stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.codec import BadFrame, pack, unpack
from fluffle.broker.cluster.links.identity import Boots
from fluffle.broker.config.start_error import NodeMustStop
from fluffle.raft.config import NodeId

BEGINNINGS_MAX = 64
"""So many of its last lives a node speaks of, in case that another has not heard of some."""

LIVES_MAX = 8
"""So many lives of another node are remembered: the newest, and the first of those that it has not
said to have all of; of those between others know."""

TELL_S = 0.25
"""Time between two looks whether there is something to send."""

logger = logging.getLogger(__name__)


class DurableCommit(NamedTuple):
    """A commit that the disk of a node has made durable, and when that was."""

    incarnation: int
    """The incarnation of the node, as a member of the metadata group: see `Incarnations`."""
    life: int
    commit: int


Row: TypeAlias = tuple[NodeId, int, int, int]
"""A node, and what it has `DurableCommit`."""


class DiskPutBack(NodeMustStop):
    """This node must end: its disk was put back to an earlier state."""


class DurableStore(Protocol):
    """A disk: see `Disk.commit_number`."""

    @property
    def commit_number(self) -> int:
        """Never less than it has been in this life."""


class ProgressMemory(Protocol):
    """A node's memory of how far the disks of others have come."""

    @property
    def known(self) -> Iterable[NodeId]:
        """The nodes of which anything is remembered."""

    def reached(self, node: NodeId) -> Sequence[DurableCommit]:
        """How far one is known to have come in lives of one incarnation, in their order."""

    def has_reached(self, node: NodeId, rows: Sequence[DurableCommit]) -> None:
        """Remember these in the place of those; they are on disk with the next commit."""


class StorageProgress:
    """How far the disk of one node has come, and what it knows of the others' disks."""

    __slots__ = (
        "_found", "_incarnation", "_lives", "_name", "_on_put_back", "_send", "_sent", "disk",
        "memory",
    )  # fmt: skip

    def __init__(
        self,
        name: NodeId,
        lives: Boots,
        disk: DurableStore,
        memory: ProgressMemory,
        *,
        incarnation: Callable[[], int],
        send: Callable[[NodeId, bytes], None],
        on_put_back: Callable[[DiskPutBack], None],
    ) -> None:
        """`incarnation`: as `Incarnations.ours`.  `send`: to the `receive` of another node, before
        all that is sent later."""
        self._incarnation = incarnation
        self._name = name
        self._lives = lives
        self.disk = disk
        self.memory = memory
        self._send = send
        self._on_put_back = on_put_back
        self._sent: dict[NodeId, bytes] = {}
        """The last frame to each node over the link that is up."""
        self._found: dict[NodeId, tuple[int, int]] = {}
        """Nodes whose disks were put back, with the incarnation and life in which that was said."""

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Sends over a new link all that is known, before anything else is said there."""
        self._sent.pop(node, None)
        if is_up:
            self._sent[node] = self._known()
            self._send(node, pack(*self._beginnings(), *self._rows()))

    def look(self) -> None:
        """Send what is new, wherever there is a link."""
        payload = self._known()
        for node, sent in self._sent.items():
            if sent != payload:
                self._sent[node] = payload
                self._send(node, payload)

    def _known(self) -> bytes:
        return pack(*self._rows())

    def _rows(self) -> Iterator[Row]:
        for node in sorted(self.memory.known):
            yield from ((node, *each) for each in self.memory.reached(node) if each.incarnation)
        if ours := self._incarnation():
            yield self._name, ours, self._lives.count, self.disk.commit_number

    def _beginnings(self) -> Iterator[Row]:
        """Those of the last lives, the present one at the end."""
        began, ours = self._lives.began[-BEGINNINGS_MAX:], self._incarnation()
        first = self._lives.count + 1 - len(began)
        return ((self._name, ours, first + at, commit) for at, commit in enumerate(began) if ours)

    def receive(self, sender: NodeId, payload: bytes) -> None:
        """Takes what another node knows.  Raises `BadFrame`."""
        of_itself: list[DurableCommit] = []
        for node, reached in unpacked(payload):
            if node == sender:
                of_itself.append(reached)
            elif node != self._name:
                self._learn(node, reached)
            elif reached.incarnation == self._incarnation() and not self._has(reached):
                self._on_put_back(DiskPutBack(put_back(sender, reached, self._lives)))
        if of_itself:
            *beginnings, now = of_itself
            self._compare(sender, beginnings, now)
            self._learn(sender, now)

    def _has(self, reached: DurableCommit) -> bool:
        """Whether this disk has what another knows that it had."""
        if reached.life == self._lives.count:
            return reached.commit <= self.disk.commit_number
        return self._lives.has_all_of(reached.life, reached.commit)

    def _compare(
        self, node: NodeId, beginnings: Sequence[DurableCommit], now: DurableCommit
    ) -> None:
        """Compare what a node says of its lives with what is known of each of them: of those that
        it still has, one need be remembered."""
        rows = self.memory.reached(node)
        if not rows or rows[0].incarnation != now.incarnation:
            return
        began = {each.life: each.commit for each in beginnings}
        needless = [row for row in rows if began.get(row.life + 1, -1) >= row.commit][:-1]
        if needless:
            self.memory.has_reached(node, [row for row in rows if row not in needless])
        for row in rows:
            later = [each.commit for each in (*beginnings, now) if each.life > row.life]
            if later and min(later) < row.commit:
                self._find(node, row, min(later), now)

    def _learn(self, node: NodeId, reached: DurableCommit) -> None:
        """Remember how far a node has come in a life; of another incarnation it is another node."""
        rows = self.memory.reached(node)
        if rows and rows[0].incarnation != reached.incarnation:
            if rows[0].incarnation > reached.incarnation:
                return
            rows = ()
        lives = {row.life: row for row in rows}
        known = lives.get(reached.life)
        if known is not None and known.commit >= reached.commit:
            return
        lives[reached.life] = reached
        ordered = sorted(lives.values())
        if len(ordered) > LIVES_MAX:
            del ordered[LIVES_MAX - 1 : -1]
        self.memory.has_reached(node, ordered)

    def _find(self, node: NodeId, known: DurableCommit, found: int, now: DurableCommit) -> None:
        """Say of a node, once in each of its lives, that its disk was put back."""
        life = now.incarnation, now.life
        if self._found.get(node) == life:
            return
        self._found[node] = life
        event(
            logger, logging.WARNING, "disk_rolled_back", node=node, known=known.commit,
            found=found, reason="its data are older than what it had acknowledged",
            advice=ADVICE,
        )  # fmt: skip


ADVICE = (
    "its disk was put back to an earlier state; stop it, run `fluffle data restored` there, have "
    "it forgotten (`fluffle cluster forget`), then start it: it joins with nothing"
)


def put_back(sender: NodeId, reached: DurableCommit, lives: Boots) -> str:
    """Explains what has happened, and what to do."""
    return (
        f"the disk of this node was put back to an earlier state: '{sender}' knows of its commit "
        f"{reached.commit}, made in start {reached.life}, and start {lives.count} began with "
        f"commit {lives.began_at}; run `fluffle data restored` with the --data-dir of this node, "
        "which says how to save its classic queues; have another node forget this one (`fluffle "
        "cluster forget`), then start it: it joins by itself (with `--cluster-admit no`, after "
        "`fluffle cluster add`); if no majority of the nodes is left that can do so, run `fluffle "
        "salvage` on the node that has most instead"
    )


def unpacked(payload: bytes) -> list[tuple[NodeId, DurableCommit]]:
    """Raises `BadFrame`."""
    rows = unpack(payload)
    if type(rows) is not list or not all(map(is_row, rows)):
        raise BadFrame(f"{rows!r:.40} for how far disks have come")
    return [(row[0], DurableCommit(*row[1:])) for row in rows]


def is_row(row: object) -> bool:
    return type(row) is list and [type(each) for each in row] == [str, int, int, int]
