"""A member of a replicated queue, as the host of its Raft group uses it: a `Machine`.

It applies what is committed to its image, and leads while this node does.  If an entry of its own
is not taken, or nobody knows, it begins to lead anew from the image once nothing is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fluffle.broker.queues.quorum.encoding import VERSION
from fluffle.broker.queues.quorum.errors import InvalidEntry
from fluffle.broker.queues.quorum.image import Image
from fluffle.broker.queues.quorum.leader_host import LeaderHost
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.raft.config import NodeId
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import DATA, Entry, SnapshotMeta


class Member:
    """Member of one quorum queue, on one node."""

    __slots__ = (
        "_host", "_is_failing", "_is_led", "_reads", "_under_way", "image", "leadership", "reign",
    )  # fmt: skip

    def __init__(self, host: LeaderHost, *, reads: int = VERSION) -> None:
        """`host` is only used while this leads.  `reads`: the newest version of entries that it
        understands."""
        self._reads = reads
        self.image = Image(reads=reads)
        self.leadership: Leadership | None = None
        """While this node leads.  Another object is another leadership: whoever told edges of the
        one must tell them of the other."""
        self.reign = 0, 0
        """Term and number in it, from 1, of the last leadership here."""
        self._host = host
        self._is_led = False
        self._is_failing = False
        """Whether it leads again only when it is told to."""
        self._under_way = 0
        """How many proposals have no fate yet."""

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        """Raises `InvalidEntry`, a ValueError."""
        self._end()
        reads = self._reads
        self.image = Image.restored(state, reads) if meta.index else Image(reads=reads)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Raises `InvalidEntry`: the image is worth nothing then, and nobody leads with it."""
        for entry in entries:
            try:
                self._apply(entry)
            except InvalidEntry as unfit:
                self._end()
                raise InvalidEntry(f"entry {entry.index}: {unfit}") from unfit

    def _apply(self, entry: Entry) -> None:
        if entry.kind == DATA:
            self.image.apply(entry.index, entry.payload)
        else:
            self.image.pass_over(entry.index)

    def led(self, term: int) -> None:
        self._is_led = True
        if term != self.reign[0]:
            self.reign = term, 0
        if not self._is_failing:
            self._lead()

    def followed(self, term: int, leader: NodeId | None) -> None:
        self._end()  # mutant: M33 R2

    def fail(self) -> None:
        """Something is wrong with this leadership: it is thrown away.  The image is where the next
        begins, once `lead_again` is called."""
        self._is_failing = True
        if self.leadership is not None:
            self.leadership.end()
            self.ended()

    def lead_again(self) -> None:
        """If this node still leads, or once it does."""
        self._is_failing = False
        self._lead_anew()

    def snapshot(self) -> tuple[Ranges, bytes]:
        return self.image.snapshot()

    def _lead(self) -> None:
        term, before = self.reign
        self.reign = term, before + 1
        self.leadership = Leadership(self.image, self._host, self, term=term)

    def _lead_anew(self) -> None:
        """Once nothing is under way of the leadership before."""
        may_lead = self._is_led and not self._is_failing
        if may_lead and self.leadership is None and not self._under_way:
            self._lead()

    def _end(self) -> None:
        """This node does not lead."""
        self._is_led = False
        if self.leadership is not None:
            self.leadership.end()
            self.ended()

    # For the leadership

    def ended(self) -> None:
        """Maybe by itself."""
        self.leadership = None
        self._host.ended()

    def propose(self, payload: bytes, on_fate: Callable[[bool], None]) -> None:
        self._under_way += 1

        def told(is_applied: bool) -> None:  # noqa: FBT001 - see `Proposer`
            self._under_way -= 1
            on_fate(is_applied)
            self._lead_anew()

        self._host.log.propose(payload, told)
