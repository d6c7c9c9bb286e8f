"""Writes of a group: how its part of a `Persist` changes its head, and what is put on disk for it.

Every function changes the head at once and adds to a batch what makes that durable; the head itself
is added once, at the end.
"""

from fluffle.raft.log_store import NewSnapshot, Staged, Write
from fluffle.raft.records import GroupId, HardState, SnapshotMeta
from fluffle.storage.batch import Batch
from fluffle.storage.entry_reader import Entry
from fluffle.storage.heads import (
    EMPTY_IMAGE,
    HEAD,
    Head,
    ImageHead,
    StagedHead,
    changes_head,
    head_value,
    image_keys,
    image_values,
    owner_value,
    tag_of,
)
from fluffle.storage.layout import (
    INDEX_END,
    PART_BYTES,
    Table,
    cold_key,
    cold_value,
    cut,
    raft_key,
)
from fluffle.storage.log import Log


def write_group(batch: Batch, write: Write, head: Head, log: Log, *, token: int) -> None:
    """Write everything of a write of a group that is here, in the order of its fields."""
    group = write.group
    if write.discard_staged:
        discard(batch, group, head)
    for piece in write.staged:
        _stage(batch, group, head, piece, log)
    last = max(log.last_index(number) for number in head.logs)
    if write.truncate_from is not None:
        delete(batch, head, write.truncate_from, INDEX_END)
        last = min(last, write.truncate_from - 1)
    if write.install is not None:
        _install(batch, group, head, write.install)
        head.installed_by = token
    last = max(last, head.image.index)
    for index, entry in enumerate(write.entries, start=last + 1):
        if entry.index != index:
            raise ValueError(f"group {group} index {entry.index} does not follow {index - 1}")
        tag = tag_of(entry.term, entry.kind)
        batch.append(head.logs[-1], index, entry.payload, tag=tag)
    if write.snapshot is not None:
        _replace_image(batch, group, head, write.snapshot)
    for first, stop in write.deletes:
        if stop > head.image.index + 1:
            raise ValueError(f"group {group}: deletion up to {stop}, floor {head.image.index}")
        delete(batch, head, first, stop)
    if write.deletes or write.install is not None:
        head.deleted_by = token
    if write.hard_state is not None:
        head.hard_state = write.hard_state
    if write.new_incarnation is not None:
        head.incarnation = write.new_incarnation
    if write.quarantine is not None:
        head.quarantine = write.quarantine
    if write.is_repaired:
        head.quarantine = None
    if changes_head(write):
        batch.write(Table.RAFT, *head_value(group, head))


def create(batch: Batch, group: GroupId, incarnation: int, log: Log) -> Head:
    """Create the head of a group that is made, with a log of its own."""
    return Head(incarnation, HardState(0, None), [_new_log(batch, group, log)], 0, EMPTY_IMAGE)


def _new_log(batch: Batch, group: GroupId, log: Log) -> int:
    number = log.unused_group()
    batch.write(Table.RAFT, *owner_value(group, number))
    return number


def _give_up_log(batch: Batch, group: GroupId, number: int) -> None:
    batch.delete(number, 0, INDEX_END)
    batch.erase(Table.RAFT, owner_value(group, number)[0])


def drop(batch: Batch, group: GroupId, head: Head) -> None:
    """Drop everything of a group."""
    discard(batch, group, head)
    for number in head.logs:
        _give_up_log(batch, group, number)
    _erase_image(batch, group, head.slot, 0, head.image.size_bytes)
    batch.erase(Table.RAFT, raft_key(HEAD, group))


def drop_lost(batch: Batch, group: GroupId, logs: list[int], keys: list[bytes]) -> None:
    """Drop everything of a group that has no head: its logs and the parts of its images."""
    for number in logs:
        _give_up_log(batch, group, number)
    for key in keys:
        batch.erase(Table.RAFT, key)
    batch.erase(Table.RAFT, raft_key(HEAD, group))


def delete(batch: Batch, head: Head, first: int, stop: int) -> None:
    """Delete entries of a group, whichever log they are in."""
    for number in head.logs:
        batch.delete(number, first, stop)


def rewrite(batch: Batch, number: int, entry: Entry, payload: bytes) -> None:
    """Give a cold entry of a log another payload, which is no longer than the one before."""
    parts = cut(number, entry.index, entry.tag, payload)
    for part, piece in parts:
        key = cold_key(number, entry.index, part.number)
        batch.write(Table.COLD, key, cold_value(part, piece))
    before = max(1, -(-len(entry.payload) // PART_BYTES))
    for part_number in range(len(parts), before):
        batch.erase(Table.COLD, cold_key(number, entry.index, part_number))


def retire_logs(batch: Batch, group: GroupId, head: Head, log: Log) -> None:
    """Give up logs that are empty and will not be appended to.

    Nothing may be under way that was submitted when one of them was the last.
    """
    for number in head.logs[:-1]:
        first, stop = log.bounds(number)
        if first == stop:
            head.logs.remove(number)
            _give_up_log(batch, group, number)


# Snapshots


def _replace_image(batch: Batch, group: GroupId, head: Head, snapshot: NewSnapshot) -> None:
    """Replace the former snapshot by this node's own, in the same slot."""
    live = snapshot.meta.live.to_bytes()
    image = ImageHead.of(snapshot.meta, len(live))
    for key, value in image_values(group, head.slot, live + snapshot.state):
        batch.write(Table.RAFT, key, value)
    _erase_image(batch, group, head.slot, image.size_bytes, head.image.size_bytes)
    head.image = image


def _install(batch: Batch, group: GroupId, head: Head, meta: SnapshotMeta) -> None:
    """Make what was staged the group's snapshot, or, at index 0, have none."""
    _erase_image(batch, group, head.slot, 0, head.image.size_bytes)
    if meta.index == 0:
        discard(batch, group, head)
        head.image = ImageHead.of(meta, 0)
        return
    staged, head.staged = head.staged, None
    if staged is None or staged.image.identity != meta.identity:
        raise ValueError(f"group {group}: the snapshot at {meta.index} was not staged")
    if staged.image_bytes != staged.image.size_bytes:
        raise ValueError(f"group {group}: not all of the snapshot at {meta.index} was staged")
    head.slot = 1 - head.slot
    head.image = staged.image
    if staged.log:
        head.logs = [*head.logs, staged.log]


def _stage(batch: Batch, group: GroupId, head: Head, piece: Staged, log: Log) -> None:
    """Stage a piece of a leader's snapshot: its entries into a log, its bytes behind those
    before."""
    staged, content = head.staged, piece.state
    if (
        staged is None
        or staged.image.identity != piece.meta.identity
        or staged.state_bytes != piece.offset
    ):
        if piece.offset:
            raise ValueError(f"group {group}: a piece at {piece.offset} does not follow")
        staged = _begin_staged(batch, group, head, piece)
        content = piece.meta.live.to_bytes() + content
    if piece.entries and not staged.log:
        staged.log = _new_log(batch, group, log)
    for entry in piece.entries:
        tag = tag_of(entry.term, entry.kind)
        batch.append(staged.log, entry.index, entry.payload, tag=tag)
    staged.entries_through = piece.entries_through
    bytes_with_tail = staged.tail + content
    start = staged.image_bytes - len(staged.tail)
    for key, value in image_values(group, 1 - head.slot, bytes_with_tail, start):
        batch.write(Table.RAFT, key, value)
    staged.image_bytes += len(content)
    staged.tail = bytes_with_tail[len(bytes_with_tail) // PART_BYTES * PART_BYTES :]


def _begin_staged(batch: Batch, group: GroupId, head: Head, piece: Staged) -> StagedHead:
    """Begin another staged snapshot: of what was staged before only the entries stay."""
    log = 0
    if head.staged is not None:
        log = head.staged.log
        _erase_image(batch, group, 1 - head.slot, 0, head.staged.image_bytes)
    live_bytes = len(piece.meta.live.to_bytes())
    head.staged = StagedHead(ImageHead.of(piece.meta, live_bytes), 0, log, 0)
    return head.staged


def discard(batch: Batch, group: GroupId, head: Head) -> None:
    """Discard what is staged."""
    staged, head.staged = head.staged, None
    if staged is not None:
        _erase_image(batch, group, 1 - head.slot, 0, staged.image_bytes)
        if staged.log:
            _give_up_log(batch, group, staged.log)


def _erase_image(batch: Batch, group: GroupId, slot: int, first: int, stop: int) -> None:
    """Erase the parts that an image of `stop` bytes has and one of `first` has not."""
    for key in image_keys(group, slot, first, stop):
        batch.erase(Table.RAFT, key)
