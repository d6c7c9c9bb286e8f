"""A disk with latency and failures around an image; one commit at a time, as the real one.

    submit ---> waiting ---> [a commit of all that waits] ---> durable ---> reported

A loss of power strikes anywhere on the way: what waits is gone; the commit that runs is kept as a
whole or lost as a whole; what is durable is kept, whether or not it was reported.
"""

from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

from fluffle.broker.cluster.links.identity import Boots
from fluffle.broker.cluster.storage_progress import Beginnings, DurableCommit
from fluffle.raft.config import NodeId
from fluffle.raft.log import Entry, GroupId
from fluffle.raft.log_store import LoadedGroups, Persist
from fluffle.storage.file_mark import FileMark
from tests.simulation.virtual_time import MS_US, VirtualTime
from tests.support.raft_memory import DiskImage, GroupImage


@dataclass(slots=True)
class DiskProfile:
    """How one disk behaves for a run; the faults change it as they come and go."""

    commit_us: int = 2 * MS_US
    """Mean duration of a commit."""
    reported_us: int = 50
    """Mean time from being durable to being reported."""
    tail: float = 0.02
    """Share of commits that take twenty times as long."""
    kept: float = 0.5
    """Chance that a commit under way survives a loss of power."""
    hot: float = 0.3
    """Share of entries that are in the hot window when they are to be made smaller."""


class Rewrite(NamedTuple):
    """An entry that is made smaller."""

    image: GroupImage
    """Not just which group: nobody finds in a later one what is left of an earlier."""
    group: GroupId
    entry: Entry


def file_made(number: int) -> FileMark:
    """The mark of a file, the first one or a later."""
    return FileMark(birth_ns=number, inode=number, generation=None)


class KnownProgress(NamedTuple):
    """The progress of another node."""

    rows: Sequence[DurableCommit] = ()
    began: Beginnings = Beginnings()


@dataclass(slots=True)
class DiskMarks:
    """The marks that a store has beside its groups: of its node, its file and the other nodes."""

    lives: Boots = field(default_factory=lambda: Boots(0, ()))
    commit_number: int = 0
    reached: dict[NodeId, KnownProgress] = field(default_factory=dict)
    mark: FileMark | None = None

    def copy(self) -> "DiskMarks":
        twin = copy(self)
        twin.reached = dict(self.reached)
        return twin


class Backup(NamedTuple):
    """A disk as it was."""

    boot: int
    """The boot of the process that ran then."""
    image: DiskImage
    marks: DiskMarks


class SimDisk:
    """Outlives the processes of its node.  Implements `LogStore` for the one that has it open."""

    __slots__ = (
        "_chance",
        "_clockwork",
        "_commit",
        "_generation",
        "_noted",
        "_on_durable",
        "_running",
        "_running_noted",
        "_waiting",
        "boot",
        "fails_next",
        "file",
        "has_room",
        "image",
        "is_stalled",
        "marks",
        "name",
        "on_durable",
        "on_failed",
        "on_rewritten",
        "profile",
        "slowness",
    )  # fmt: skip

    def __init__(
        self,
        name: NodeId,
        clockwork: VirtualTime,
        profile: DiskProfile,
        on_durable: Callable[[NodeId, Persist], None],
    ) -> None:
        self.name = name
        self.profile = profile
        self.image = DiskImage()
        self.marks = DiskMarks()
        self.file = file_made(1)
        """The file that is there, wherever its content is from."""
        self._noted: dict[NodeId, KnownProgress] = {}
        """The progress of other nodes, for the next commit, …"""
        self._running_noted: dict[NodeId, KnownProgress] = {}
        """… and in the one that runs."""
        self.boot = 0
        """Boot epoch, raised at each start of a process."""
        self.has_room = True
        self.is_stalled = False
        """Commits that begin or run take until the stall ends."""
        self.slowness = 1
        self.fails_next = False
        """The next commit ends in an error: the process must end."""
        self.on_durable: Callable[[int], None] = _nobody
        self.on_failed: Callable[[], None] = _nothing
        self.on_rewritten: Callable[[NodeId, GroupId], None] = _nowhere
        """Likewise, of a group with an entry that is smaller now."""
        self._on_durable = on_durable
        """Called at the moment a commit becomes durable."""
        self._clockwork = clockwork
        self._chance: Random = clockwork.chance(f"disk {name}")
        self._waiting: list[Persist | Rewrite] = []
        self._running: list[Persist | Rewrite] = []
        self._commit = 0
        """How many have begun."""
        self._generation = 0
        """Plans of an earlier one are void: the power was lost since."""

    # What there is beside the groups

    def is_copy(self) -> bool:
        """True if the disk is a copy, as `begin_life` finds out."""
        mark = self.marks.mark
        return mark is not None and mark.is_other(self.file)

    def begin_life(self, nonce: bytes) -> None:
        """Begin a life, which is on disk before the node says a word."""
        marks = self.marks
        marks.lives = marks.lives.followed_by(nonce, marks.commit_number)
        marks.mark = self.file
        marks.commit_number += 1

    @property
    def commit_number(self) -> int:
        return self.marks.commit_number

    @property
    def known(self) -> Collection[NodeId]:
        return sorted({*self.marks.reached, *self._running_noted, *self._noted})

    def reached(self, node: NodeId) -> Sequence[DurableCommit]:
        return self._known_progress(node).rows

    def began(self, node: NodeId) -> Beginnings:
        return self._known_progress(node).began

    def _known_progress(self, node: NodeId) -> KnownProgress:
        for known in (self._noted, self._running_noted, self.marks.reached):
            if node in known:
                return known[node]
        return KnownProgress()

    def has_reached(self, node: NodeId, rows: Sequence[DurableCommit], began: Beginnings) -> None:
        self._noted[node] = KnownProgress([*rows], began)

    def backup(self) -> Backup:
        return Backup(self.boot, self.image.copy(), self.marks.copy())

    def put_back(self, backup: Backup, *, is_copy: bool) -> None:
        """While no process runs: as a copy of the files, or of the blocks of the whole disk."""
        self.image, self.marks = backup.image.copy(), backup.marks.copy()
        if is_copy:
            self.file = file_made(self.file.inode + 1)

    def begin_anew(self) -> None:
        """With nothing."""
        self.image, self.marks = DiskImage(), DiskMarks()
        self.file = file_made(self.file.inode + 1)

    @property
    def may_grow(self) -> bool:
        """A disk that is full is so at once."""
        return self.has_room

    @property
    def takes_entries(self) -> bool:
        return self.has_room

    def load(self) -> LoadedGroups:
        return self.image.load()

    def rewrite(self, group: GroupId, index: int, make: Callable[[bytes], bytes]) -> bool:
        """With the next commit, whatever else is in it; unless it is hot."""
        found = self.image.read(group, index, index + 1, 1)
        if not found or self._chance.random() < self.profile.hot:
            return False
        image = self.image.groups[group]
        assert index <= image.meta.index, "it may be applied again"
        self._submit(Rewrite(image, group, replace(found[0], payload=make(found[0].payload))))
        return True

    def read(self, group: GroupId, first: int, stop: int, bytes_max: int) -> list[Entry]:
        return self.image.read(group, first, stop, bytes_max)

    def read_state(self, group: GroupId, offset: int, size: int) -> bytes:
        return self.image.read_state(group, offset, size)

    def submit(self, persist: Persist) -> None:
        self._submit(persist)

    def _submit(self, item: Persist | Rewrite) -> None:
        self._waiting.append(item)
        if not self._running:
            self._begin()

    def lose_power(self) -> None:
        """Lose what is not durable, with some luck not all: the process has died, and maybe its
        machine."""
        if self._running and self._chance.random() < self.profile.kept:
            self._make_durable()
        self._waiting, self._running = [], []
        self._noted, self._running_noted = {}, {}
        self._generation += 1
        self.on_durable, self.on_failed = _nobody, _nothing

    def resume(self) -> None:
        """Run at full speed again, the running commit included."""
        self.is_stalled = False
        self.slowness = 1
        if self._running:
            self._plan_end()

    def _begin(self) -> None:
        self._running, self._waiting = self._waiting, []
        self._running_noted, self._noted = {**self._running_noted, **self._noted}, {}
        self._commit += 1
        if not self.is_stalled:
            self._plan_end()

    def _plan_end(self) -> None:
        self._clockwork.after(self._duration_us(), self._end, self._generation, self._commit)

    def _duration_us(self) -> int:
        mean = self.profile.commit_us * self.slowness
        if self._chance.random() < self.profile.tail:
            mean *= 20
        return int(mean * (0.5 + self._chance.random()))

    def _end(self, generation: int, commit: int) -> None:
        is_that_one = generation == self._generation and commit == self._commit
        if not is_that_one or self.is_stalled or not self._running:
            return
        if self.fails_next:
            self.fails_next = False
            self.on_failed()
            return
        tokens = [item.token for item in self._running if isinstance(item, Persist)]
        self._make_durable()
        if tokens:
            reported_us = int(self.profile.reported_us * 2 * self._chance.random())
            self._clockwork.after(reported_us, self._tell, generation, tokens[-1])
        if self._waiting:
            self._begin()

    def _make_durable(self) -> None:
        """An entry that is written again is there, even if it had been deleted meanwhile."""
        items, self._running = self._running, []
        self.marks.commit_number += 1
        self.marks.reached |= self._running_noted
        self._running_noted = {}
        for item in items:
            if isinstance(item, Rewrite):
                item.image.entries[item.entry.index] = item.entry
                self.on_rewritten(self.name, item.group)
            else:
                self.image.apply(item)
                self._on_durable(self.name, item)
                self._clockwork.note(item.token)

    def _tell(self, generation: int, token: int) -> None:
        if generation == self._generation:
            self.on_durable(token)


def _nobody(token: int) -> None:
    """No process has this disk open."""


def _nowhere(name: NodeId, group: GroupId) -> None:
    """Ignore the group."""


def _nothing() -> None:
    """Do nothing."""
