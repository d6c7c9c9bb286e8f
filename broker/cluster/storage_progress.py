"""How far the disk of each node has come: what others know of it, should it be put back.

    after a commit, within `SEND_S`    a --> b    "my disk has made commit 812 durable"
    over a link that is new            b --> a    "of yours I know of commit 812, in your life 4"

Who began its present life with less than another knows of an earlier one has lost what it had
confirmed, and must not be a part of any majority: it ends.  That is found out whichever other nodes
were there: each passes on what it knows of all.  What is known goes to disk with whatever is
written next, so that it costs no commit.

frame    [node, incarnation, life, [commit ...]]    with which its last lives began, to that one
         [node, incarnation, life, commit] ...      how far it has come in a life

Both are sent of all nodes that the sender knows, and of itself; beginnings over a link that is new,
and if there are others since.

Of each life of a node there is a row, which goes once the node has shown that it still has that,
and not for want of room: see "A disk that is put back" in docs/reliability.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.errors import NodeMustStop
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.codec import BadFrame, pack, unpack
from fluffle.broker.cluster.links.identity import Boots
from fluffle.broker.durability.node_identity import KnownPeers
from fluffle.raft.config import NodeId

BEGINNINGS_MAX = 64
"""Most of the last boots of a node that are reported, in case that another has not heard of
some."""

ROWS_KEPT = 2
"""So many lives are remembered in any case, the last ones: should the node be put back to before
its last start, it is sent to others that do not know that."""

SEND_S = 0.25
"""Time between two looks whether there is something to send."""

logger = logging.getLogger(__name__)


class DurableCommit(NamedTuple):
    """A commit that the disk of a node has made durable, and when that was."""

    incarnation: int
    """The incarnation of the node, as a member of the metadata group: see `Incarnations`."""
    life: int
    commit: int


class Beginnings(NamedTuple):
    """Commits with which the last lives of a node began, as its own disk had them."""

    incarnation: int = 0
    life: int = 0
    """The last of them."""
    commits: tuple[int, ...] = ()

    def of(self, life: int) -> int | None:
        """The last commit on the disk when that life began; None if that is not known."""
        at = life - self._first
        return self.commits[at] if 0 <= at < len(self.commits) else None

    def prove(self, row: DurableCommit) -> bool:
        """True if the next life after that one began with all of it on the disk.

        A later life proves nothing: it may have begun with commits that were made anew.
        """
        began = self.of(row.life + 1)
        return self.incarnation == row.incarnation and began is not None and began >= row.commit

    def first_after(self, row: DurableCommit) -> int | None:
        """The commit with which the first life began that is known of those after that one."""
        if self.incarnation != row.incarnation or row.life >= self.life:
            return None
        return self.of(max(row.life + 1, self._first))

    def with_other(self, other: Beginnings) -> Beginnings:
        """With what another node knows; of another incarnation it is another node."""
        last = max(self, other)
        if self.incarnation != other.incarnation:
            return last
        least: dict[int, int] = {}
        for each in (self, other):
            for life, commit in enumerate(each.commits, start=each._first):
                least[life] = min(commit, least.get(life, commit))
        commits: list[int] = []
        for life in range(last.life, last.life - BEGINNINGS_MAX, -1):
            if life not in least:
                break  # before a gap there is nothing that rows are known of
            commits.append(least[life])
        return Beginnings(last.incarnation, last.life, tuple(reversed(commits)))

    @property
    def _first(self) -> int:
        return self.life + 1 - len(self.commits)


Item: TypeAlias = tuple[NodeId, int, int, int | Sequence[int]]
"""A node, and its `DurableCommit`, or `Beginnings`."""


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

    def began(self, node: NodeId) -> Beginnings:
        """With which commits its last lives are known to have begun."""

    def has_reached(self, node: NodeId, rows: Sequence[DurableCommit], began: Beginnings) -> None:
        """Remember these in the place of those; they are on disk with the next commit.

        Invariant: for each commit that a node was ever known to have durable in its present
        incarnation, there is a row of the same life with that commit or a later one, or it was
        proved by the beginning of the next life, as the disk of that node had it.  So a node that
        lacks any of them contradicts a row, and no number of lives takes it away.
        """


class RememberedProgress:
    """How far others have come, as this node remembers it with all else of them."""

    def __init__(self, known_peers: KnownPeers) -> None:
        self._known_peers = known_peers

    @property
    def known(self) -> Collection[NodeId]:
        return self._known_peers.known.keys()

    def reached(self, node: NodeId) -> Sequence[DurableCommit]:
        known = self._known_peers.known.get(node)
        return [DurableCommit(*row) for row in known.reached] if known is not None else []

    def began(self, node: NodeId) -> Beginnings:
        known = self._known_peers.known.get(node)
        return Beginnings(*known.began) if known is not None else Beginnings()

    def has_reached(self, node: NodeId, rows: Sequence[DurableCommit], began: Beginnings) -> None:
        if node in self._known_peers.known:
            self._known_peers.has_reached(node, rows, began)


class StorageProgress:
    """How far the disk of one node has come, and what it knows of the others' disks."""

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
        """`incarnation`: as which member this node votes; 0: as none.  `send`: to the `receive` of
        another node, before all that is sent later."""
        self._incarnation = incarnation
        self._name = name
        self._lives = lives
        self.disk = disk
        self.memory = memory
        self._send = send
        self._on_put_back = on_put_back
        self._sent: dict[NodeId, tuple[bytes, bytes]] = {}
        """The last frames to each node over the link that is up: beginnings, and rows."""
        self._found: dict[NodeId, tuple[int, int]] = {}
        """Nodes whose disks were put back, with the incarnation and life in which that was said."""
        self._rows_by_witness: dict[NodeId, list[DurableCommit]] = {}
        """Durable commits of this node that each other node has witnessed last.  They stay when
        that node has left the cluster, because they stay true: this disk has had them."""

    def may_begin_as(self, incarnation: int) -> bool:
        """True if this disk has what others know of the member as which it is to begin.

        Who begins has nothing of what the member has voted for.  If that one has made a commit that
        this disk lacks the disk was put back to before it had begun, and this node ends.  What is
        known of members that had the name before says nothing of this disk.
        """
        for sender, rows in self._rows_by_witness.items():
            for row in rows:
                if row.incarnation == incarnation and not self._has(row):
                    self._on_put_back(DiskPutBack(put_back(sender, row, self._lives)))
                    return False
        return True

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        """Sends over a new link all that is known, before anything else is said there."""
        self._sent.pop(node, None)
        if is_up:
            self._sent[node] = b"", b""
            self._send_frames(node, *self._known())

    def look(self) -> None:
        """Send what is new, wherever there is a link."""
        known = self._known()
        for node in self._sent:
            self._send_frames(node, *known)

    def _send_frames(self, node: NodeId, *frames: bytes) -> None:
        """Beginnings first: rows are compared with them."""
        for payload, sent in zip(frames, self._sent[node], strict=True):
            if payload != sent:
                self._send(node, payload)
        beginnings, rows = frames
        self._sent[node] = beginnings, rows

    def _known(self) -> tuple[bytes, bytes]:
        return pack(*self._beginnings()), pack(*self._rows())

    def _rows(self) -> Iterator[Item]:
        for node in sorted(self.memory.known):
            yield from ((node, *each) for each in self.memory.reached(node) if each.incarnation)
        if ours := self._incarnation():
            yield self._name, ours, self._lives.count, self.disk.commit_number

    def _beginnings(self) -> Iterator[Item]:
        for node in sorted(self.memory.known):
            began = self.memory.began(node)
            if began.incarnation:
                yield node, *began
        if ours := self._incarnation():
            yield self._name, ours, self._lives.count, self._lives.began[-BEGINNINGS_MAX:]

    def receive(self, sender: NodeId, payload: bytes) -> None:
        """Takes what another node knows.  Raises `BadFrame`."""
        of_itself: list[DurableCommit] = []
        for node, each in unpacked(payload):
            if isinstance(each, Beginnings):
                if node != self._name:
                    self._learn_beginnings(node, each)
            elif node == self._name:
                of_itself.append(each)
            else:
                if node == sender:
                    self._compare(node, each)
                self._learn(node, each)
        if of_itself:
            self._rows_by_witness[sender] = of_itself
            if ours := self._incarnation():
                self.may_begin_as(ours)

    def _has(self, reached: DurableCommit) -> bool:
        """True if this disk has what another knows that it had."""
        if reached.life == self._lives.count:
            return reached.commit <= self.disk.commit_number
        return self._lives.has_all_of(reached.life, reached.commit)

    def _compare(self, node: NodeId, now: DurableCommit) -> None:
        """Compare what a node says of its lives with what is known of each of them."""
        began = self.memory.began(node)
        for row in self.memory.reached(node):
            if row.incarnation == now.incarnation and row.life < now.life:
                first = began.first_after(row)
                found = now.commit if first is None else min(first, now.commit)
                if found < row.commit:
                    self._find(node, row, found, now)

    def _learn_beginnings(self, node: NodeId, reported: Beginnings) -> None:
        """Remember with which commits the lives of a node have begun, and no rows of what it has
        shown by that to have still."""
        before = self.memory.began(node)
        began = before.with_other(reported)
        if began != before:
            rows = self.memory.reached(node)
            self.memory.has_reached(node, needed(rows, began), began)

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
        began, ordered = self.memory.began(node), sorted(lives.values())
        if (after := needed(ordered, began)) != rows:
            self.memory.has_reached(node, after, began)

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


def needed(rows: Sequence[DurableCommit], began: Beginnings) -> list[DurableCommit]:
    """Rows of a node, in their order, with which later ones must still be compared."""
    return [row for row in rows[:-ROWS_KEPT] if not began.prove(row)] + [*rows[-ROWS_KEPT:]]


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


def unpacked(payload: bytes) -> list[tuple[NodeId, DurableCommit | Beginnings]]:
    """Raises `BadFrame`."""
    items = unpack(payload)
    if type(items) is not list or not all(map(is_item, items)):
        raise BadFrame(f"{items!r:.40} for how far disks have come")
    return [(item[0], taken(*item[1:])) for item in items]


def taken(incarnation: int, life: int, last: int | list[int]) -> DurableCommit | Beginnings:
    if isinstance(last, int):
        return DurableCommit(incarnation, life, last)
    return Beginnings(incarnation, life, tuple(last))


def is_item(item: object) -> bool:
    if type(item) is not list or len(item) != 4:
        return False
    *place, last = item
    numbers = last if type(last) is list else [last]
    return [*map(type, place)] == [str, int, int] and all(type(each) is int for each in numbers)
