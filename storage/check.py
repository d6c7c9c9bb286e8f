"""Check of a whole store: what is in it, and what is wrong.  Changes nothing.

It reads in short views, so that a node that works on the store meanwhile is not held up; what
the node changes between two views is seen as it was or as it is.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise

from fluffle.raft.log import CONFIG, DATA, NOOP
from fluffle.raft.log_store import RecoveredGroup
from fluffle.storage.disk import CommitResult, Disk, View, WriteTransaction
from fluffle.storage.entry_reader import missing_record
from fluffle.storage.errors import Corrupt, StorageError
from fluffle.storage.heads import HEAD, OWNER, Heads, kind_of, term_of
from fluffle.storage.layout import (
    SEQUENCE,
    Bytes,
    Deletion,
    Part,
    Record,
    Table,
    catalog_item,
    cold_part,
    cold_piece,
    raft_content,
    raft_place,
    sequence_number,
)
from fluffle.storage.log import GroupLogs, UpkeepTuning
from fluffle.storage.raft_log import Recovery

SLICE = 256
"""No view looks at more values before it ends."""

PREVIEW_BYTES = 32

KINDS = {NOOP: "noop", DATA: "data", CONFIG: "config"}


@dataclass(slots=True)
class Finding:
    """Value of the store, or one that is missing."""

    text: str
    """Content of the record as text; empty if unknown."""
    damage: tuple[Corrupt, ...] = ()


Describe = Callable[[str, bytes, bytes], str | None]
"""Kind, name and value of a definition, in words or None.  Raises `Corrupt`, `StorageError`."""


def inspect(disk: Disk, describe: Describe = lambda *_: None) -> Iterator[Finding]:
    """Check every value of the store in the order of tables and keys.

    `describe` knows what is in definitions.
    """
    owners = {number: group for group, number in Heads(disk).owned()}
    yield from _slices(disk, Table.CATALOG, partial(_definition, describe))
    yield from _slices(disk, Table.RAFT, _raft)
    yield from _slices(disk, Table.HOT, partial(_record, owners))
    yield from _missing_records(disk)
    yield from _slices(disk, Table.COLD, partial(_cold, owners))


def _slices(disk: Disk, table: Table, find: Callable[[Bytes, Bytes], Finding]) -> Iterator[Finding]:
    first = b"\0"
    while True:
        findings = []
        with disk.view() as view:
            for key, value in islice(view.scan(table, first, None), SLICE):
                findings.append(_checked(find, key, value))
                first = bytes(key) + b"\0"
        yield from findings
        if len(findings) < SLICE:
            return


def _missing_records(disk: Disk) -> Iterator[Finding]:
    """Gaps between hot records.  Neighbours are compared within one view: the node removes the
    oldest records meanwhile, and what follows them is then the front, not behind a gap."""
    first = b"\0"
    while True:
        with disk.view() as view:
            keys = [bytes(key) for key, _ in islice(view.scan(Table.HOT, first, None), SLICE)]
        for before, after in pairwise(key for key in keys if len(key) == SEQUENCE.size):
            missing = sequence_number(before) + 1
            if sequence_number(after) != missing:
                yield Finding("", (missing_record(missing),))
        if len(keys) < SLICE:
            return
        first = keys[-1]


def _checked(find: Callable[[Bytes, Bytes], Finding], key: Bytes, value: Bytes) -> Finding:
    try:
        return find(key, value)
    except Corrupt as damage:
        return Finding("", (damage,))


def _definition(describe: Describe, key: Bytes, value: Bytes) -> Finding:
    kind, name, content = catalog_item(key, value)
    raw = f"{name!r} {_preview(content)}"
    try:
        shown = describe(kind, name, content)
    except Corrupt as damage:
        return Finding(f"catalog {kind} {raw}", (damage,))
    return Finding(f"catalog {kind} {raw if shown is None else shown}".rstrip())


def _raft(key: Bytes, value: Bytes) -> Finding:
    kind, group, slot, part = raft_place(key)
    content = raft_content(key, value)
    if kind == HEAD:
        return Finding(f"head of Raft group {group} {content.decode(errors='replace')}")
    if kind == OWNER:
        return Finding(f"Raft group {group} owns log {part}")
    return Finding(f"image of Raft group {group} slot {slot} part {part} size {len(content)}")


def _record(owners: Mapping[int, int], key: Bytes, value: Bytes) -> Finding:
    record = Record(sequence_number(key), value)
    record.check()
    lines = [
        f"hot record {record.sequence} {record.size_bytes} bytes, top group {record.top_group}"
    ]
    damage = []
    for change in record.changes():
        if isinstance(change, Deletion):
            group, first, stop = change
            lines.append(f"  delete group {group} index {first} up to {stop}")
            continue
        try:
            content = _preview(record.piece(change))
        except Corrupt as error:
            damage.append(error)
            content = "damaged"
        lines.append(f"  append {_entry(owners, change.part)} {content}")
    return Finding("\n".join(lines), tuple(damage))


def _cold(owners: Mapping[int, int], key: Bytes, value: Bytes) -> Finding:
    part = cold_part(key, value)
    return Finding(f"cold {_entry(owners, part)} {_preview(cold_piece(part, value))}")


def _entry(owners: Mapping[int, int], part: Part) -> str:
    """Say what a part is of; `owners` says which groups are logs of Raft groups."""
    if (group := owners.get(part.group)) is None:
        return f"{part.name} tag {part.tag} size {part.size_bytes}"
    tag = f"term {term_of(part.tag)} kind {KINDS.get(kind_of(part.tag), 'unknown')}"
    return f"{part.name} of Raft group {group} {tag} size {part.size_bytes}"


def _preview(content: Bytes) -> str:
    shown = bytes(content[:PREVIEW_BYTES])
    return f"{shown!r}" + ("..." if len(content) > PREVIEW_BYTES else "")


RANGES_SHOWN = 8


class DiskSnapshot:
    """Disk as it was at one moment, for reading only."""

    room_bytes = 0
    commit_number = 0
    """Unused: a moment has no commits."""

    def __init__(self, view: View) -> None:
        self._view = view

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        yield self._view

    def look_for_room(self) -> None:
        """Do nothing: the disk is only read."""

    def commit(self, work: WriteTransaction) -> CommitResult:
        raise StorageError("what was cannot be changed")

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


def inspect_groups(disk: Disk) -> Iterator[Finding]:
    """Describe every Raft group for people: what it is and holds, and what is damaged.

    All of it is read within one view, because only together do head, entries and image make sense.
    A node that works meanwhile cannot use again what it deletes until this has ended, a few seconds
    for a million entries: its file grows by that much at the worst.
    """
    with disk.view() as view:
        moment = DiskSnapshot(view)
        heads = Heads(moment)
        if not any(heads.owned()) and not any(heads.heads()):
            return
        log = GroupLogs(moment, UpkeepTuning())
        try:
            log.recover()
        except Corrupt as damage:
            yield Finding("", (Corrupt("Raft groups", f"they are not distinguishable: {damage}"),))
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
