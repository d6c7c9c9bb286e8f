"""Ready messages of the image, in pieces that an engine reads one after the other: a leader begins
with them.

No message is read for that.  It costs per piece where all messages have one priority, and once per
entry of the log where they do not, however many priorities there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

from fluffle.broker.queues.expiry_times import NEVER_MS, NO_SPAN
from fluffle.broker.queues.journal import Stored
from fluffle.broker.queues.quorum.entries import Entries, Rows
from fluffle.broker.queues.ready_list import SEGMENT_BYTES_MAX, SEGMENT_MESSAGES_MAX


def stored(entries: Entries) -> list[Stored]:
    """All of it in order."""
    return _stored(entries, entries.span_of if entries.has_expiries else _no_span)


def undated(entries: Entries) -> list[Stored]:
    """The same, and of nothing is said when it expires: nobody looks at each message for that."""
    return _stored(entries, _any_span)


def _no_span(_start: int, _stop: int) -> tuple[int, int]:
    return NO_SPAN


def _any_span(_start: int, _stop: int) -> tuple[int, int]:
    return 0, NEVER_MS


def _stored(entries: Entries, span_of: Callable[[int, int], tuple[int, int]]) -> list[Stored]:
    rows = entries.live_rows()
    firsts, counts, ready = rows["firsts"], rows["counts"], rows["ready"]
    pieces = []
    for stretch in stretches(rows):
        at, stop = stretch.start, stretch.stop
        if count := sum(ready[at:stop]):
            behind = firsts[stop - 1] + counts[stop - 1]
            size_bytes = means_of(rows["means"], ready, at, stop)
            pieces.append(Stored(firsts[at], behind, count, size_bytes, *span_of(at, stop)))
    return pieces


def earliest_ms(entries: Entries, first: int, stop: int) -> int:
    """No message from `first` up to, not including, `stop` expires before."""
    firsts = entries.rows["firsts"]
    start = max(bisect_right(firsts, first) - 1, 0)
    end = bisect_left(firsts, stop, lo=start)
    return entries.span_of(start, end)[0] if start < end else NEVER_MS


def stored_by_level(entries: Entries) -> dict[int, list[Stored]]:
    """The same apart by priority: pieces of several priorities may lie within each other."""
    rows, is_timed = entries.live_rows(), entries.has_expiries
    pieces: dict[int, list[Stored]] = {}
    for stretch in stretches(rows):
        span = entries.span_of(stretch.start, stretch.stop) if is_timed else NO_SPAN
        for level, piece in in_stretch(entries, rows, stretch, span).items():
            pieces.setdefault(level, []).append(piece)
    return pieces


def in_stretch(
    entries: Entries, rows: Rows, stretch: range, span: tuple[int, int]
) -> dict[int, Stored]:
    """A piece for each priority."""
    pieces: dict[int, Stored] = {}
    part = slice(stretch.start, stretch.stop)
    columns = (rows[name][part] for name in ("firsts", "counts", "means"))
    alike = zip(rows["priorities"][part], rows["ready"][part], strict=True)
    for first, count, mean, one in zip(*columns, alike, strict=True):
        is_mixed = first in entries.each
        for level, ready in counts_of(entries, first) if is_mixed else (one,):
            if not ready:
                continue
            piece = pieces.get(level)
            if piece is None:
                pieces[level] = Stored(first, first + count, ready, ready * mean, *span)
            else:
                piece.stop = first + count
                piece.count += ready
                piece.content_bytes += ready * mean
    return pieces


def counts_of(entries: Entries, first: int) -> list[tuple[int, int]]:
    """How many messages of the entry that begins with that one are ready, by priority."""
    [entry] = entries.between(first, first + 1)
    own = entry.each.priorities if entry.each is not None else b""
    if not own:
        return [(entry.priority, entry.ready)]
    if entry.ready < entry.count:
        runs = entries.ready_of(entry)
        own = b"".join(own[run.start - first : run.stop - first] for run in runs)
    return [(level, own.count(level)) for level in {*own}]


def stretches(rows: Rows) -> Iterator[range]:
    """Which entries, of all that are live, make up a segment of a ready list at most."""
    firsts, ready, means = rows["firsts"], rows["ready"], rows["means"]
    at = 0
    while at < len(firsts):
        stop = bisect_left(firsts, firsts[at] + SEGMENT_MESSAGES_MAX, lo=at + 1)
        while stop - at > 1 and means_of(means, ready, at, stop) > SEGMENT_BYTES_MAX:
            stop = (at + stop) // 2
        yield range(at, stop)
        at = stop


def means_of(means: Sequence[int], ready: Sequence[int], start: int, stop: int) -> int:
    """About how many bytes the ready messages of some entries have."""
    return sum(
        mean * count for mean, count in zip(means[start:stop], ready[start:stop], strict=True)
    )
