"""Report for people on the Raft groups of a store, group by group.  Changes nothing.

All of it is read within one view, because only together do head, entries and image make sense.  A
node that works meanwhile cannot use again what it deletes until this has ended, a few seconds for
a million entries: its file grows by that much at the worst.
"""

import contextlib
from collections.abc import Iterator

from fluffle.raft.log_store import RecoveredGroup
from fluffle.storage.check import Finding
from fluffle.storage.disk import CommitResult, Disk, View, WriteTransaction
from fluffle.storage.errors import Corrupt, StorageError
from fluffle.storage.heads import Heads
from fluffle.storage.log import Log
from fluffle.storage.mover import UpkeepTuning
from fluffle.storage.recovery import Recovery

RANGES_SHOWN = 8


class DiskSnapshot:
    """A disk as it was at one moment."""

    __slots__ = ("_view",)

    room_bytes = 0
    commit_number = 0
    """Unused: a moment has no commits."""

    def __init__(self, view: View) -> None:
        self._view = view

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        yield self._view

    def look_for_room(self) -> None:
        """It is only read."""

    def commit(self, work: WriteTransaction) -> CommitResult:
        raise StorageError("what was cannot be changed")

    def close(self) -> None:
        """Nothing to let go of."""


def inspect_groups(disk: Disk) -> Iterator[Finding]:
    """Every Raft group: what it is and holds, and what is damaged."""
    with disk.view() as view:
        moment = DiskSnapshot(view)
        heads = Heads(moment)
        if not any(heads.owned()) and not any(heads.heads()):
            return
        log = Log(moment, UpkeepTuning())
        try:
            log.recover()
        except Corrupt as damage:
            yield Finding("", (Corrupt("Raft groups", f"they cannot be told apart: {damage}"),))
            return
        recovering = Recovery(log, heads)
        loaded = recovering.load()
        for group in loaded.lost:
            yield Finding("", (Corrupt(f"Raft group {group}", "its head is damaged or missing"),))
        for found in loaded.groups:
            index = recovering.damaged.get(found.group)
            what = f"what is at index {index} is damaged or missing"
            finding = Finding(_text(found, recovering.heads[found.group].logs))
            if index is not None:
                finding.damage = (Corrupt(f"Raft group {found.group}", what),)
            yield finding


def _text(found: RecoveredGroup, logs: list[int]) -> str:
    floor, live = found.snapshot.index, found.snapshot.live
    term, vote = found.hard_state
    voted = f", voted for {vote.node} incarnation {vote.incarnation}" if vote else ""
    lines = [
        f"Raft group {found.group} incarnation {found.incarnation} term {term}{voted}",
        f"  logs {', '.join(map(str, logs))}",
        f"  snapshot at index {floor} term {found.snapshot.term}, "
        f"{found.snapshot.state_bytes} bytes; {len(live)} live{_shown(list(live))}",
        f"  {found.snapshot.config.encode().decode()}",
        f"  entries {floor + 1} up to {found.last_index + 1}, terms from{_shown(found.terms)}",
    ]
    lines += [f"  index {e.index} {e.payload.decode(errors='replace')}" for e in found.configs]
    if (staged := found.staged) is not None:
        lines.append(
            f"  staged: snapshot at index {staged.meta.index}, entries through "
            f"{staged.entries_through}, {staged.state_bytes} of {staged.meta.state_bytes} bytes"
        )
    if (quarantine := found.quarantine) is not None:
        needs = ", needs a snapshot" if quarantine.needs_snapshot else ""
        lines.append(
            f"  in quarantine since term {quarantine.term}: "
            f"{quarantine.first} through {quarantine.last}{needs}"
        )
    return "\n".join(lines)


def _shown(pairs: list[tuple[int, int]]) -> str:
    rest = " ..." if len(pairs) > RANGES_SHOWN else ""
    return "".join(f" {first}-{second}" for first, second in pairs[:RANGES_SHOWN]) + rest
