"""Read a whole store and say what is in it, and what is wrong.  Changes nothing.

It reads in short views, so that a node that works on the store meanwhile is not held up; what
the node changes between two views is seen as it was or as it is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise

from fluffle.raft.records import CONFIG, DATA, NOOP
from fluffle.storage.disk import Disk
from fluffle.storage.entry_reader import missing_record
from fluffle.storage.errors import Corrupt
from fluffle.storage.heads import HEAD, OWNER, Heads, kind_of, term_of
from fluffle.storage.layout import (
    SEQUENCE,
    Bytes,
    Part,
    Table,
    catalog_item,
    cold_part,
    cold_piece,
    raft_content,
    raft_place,
    sequence_number,
)
from fluffle.storage.record import Deletion, Record

SLICE = 256
"""No view looks at more values before it ends."""

PREVIEW_BYTES = 32

KINDS = {NOOP: "noop", DATA: "data", CONFIG: "config"}


@dataclass(slots=True)
class Finding:
    """Value of the store, or one that is missing."""

    text: str
    """What is in it; empty if it cannot be said."""
    damage: tuple[Corrupt, ...] = ()


Describe = Callable[[str, bytes, bytes], str | None]
"""Kind, name and value of a definition, in words or None.  Raises `Corrupt`, `StorageError`."""


def inspect(disk: Disk, describe: Describe = lambda *_: None) -> Iterator[Finding]:
    """Every value of the store in the order of tables and keys, each checked.

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
    """What a part is of; `owners` says which groups are logs of Raft groups."""
    if (group := owners.get(part.group)) is None:
        return f"{part.name} tag {part.tag} size {part.size_bytes}"
    tag = f"term {term_of(part.tag)} kind {KINDS.get(kind_of(part.tag), 'unknown')}"
    return f"{part.name} of Raft group {group} {tag} size {part.size_bytes}"


def _preview(content: Bytes) -> str:
    shown = bytes(content[:PREVIEW_BYTES])
    return f"{shown!r}" + ("..." if len(content) > PREVIEW_BYTES else "")
