"""Segments come from disk, go there, and are wanted no more."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby

from fluffle.broker.queues.expiry_times import joined, span_of
from fluffle.broker.queues.journal import Journal, LoadedMessages, part_of_loaded
from fluffle.broker.queues.requeue import RequeuedRun
from fluffle.broker.queues.segment import Segment, SegmentLocation


def loaded(
    segment: Segment, journal: Journal, redelivered_below: int, *, is_one_of_many: bool
) -> list[Segment]:
    """What is to be in the place of a segment of a lane.  Raises `UnreadableMessages`.

    Where some is settled it becomes several.  What lies behind damage stays on disk, as a segment
    that begins with it.
    """
    found = journal.load(segment.first_sequence, segment.stop_sequence)
    count = sum(len(part.contents) for part in found)
    assert 0 < count <= segment.count, f"{segment.count} messages stored, {count} there"
    parts = [piece for part in found for piece in split_at(part, redelivered_below)]
    together = [[part] for part in parts]
    if is_one_of_many:  # messages of other lanes lie between any two of them
        by_past = groupby(parts, lambda part: part.sequences[0] < redelivered_below)
        together = [list(same) for _is_seen, same in by_past]
    is_whole = len(parts) == 1 and segment.is_whole
    again = [of_loaded(part, segment.ticket) for part in together]
    for each in again:
        each.redelivered = each.first_sequence < redelivered_below
        each.place = SegmentLocation.MEMORY if is_whole else SegmentLocation.KEPT
    if count < segment.count:
        again.append(behind(segment, found[-1], count))
    return again


def of_loaded(parts: Sequence[LoadedMessages], ticket: int) -> Segment:
    """Stretches that were read, as one segment."""
    first, *others = parts
    sequences = first.sequences
    segment = Segment(
        first.origins,
        first.contents,
        sum(sum(map(len, part.contents)) for part in parts),
        sequences[0],
        ticket=ticket,
        expiries=first.expiries,
    )
    segment.stop_sequence = sequences[-1] + 1
    if not segment.is_whole:
        segment.numbers = array("Q", sequences)
    for part in others:
        count = len(part.contents)
        segment.number(part.sequences)
        segment.expiries = joined(segment.expiries, segment.count, part.expiries, count)
        segment.origins += part.origins
        segment.contents += part.contents
        segment.count += count
        segment.stop_sequence = part.sequences[-1] + 1
    segment.earliest_ms, segment.latest_ms = span_of(segment.expiries)
    return segment


def behind(segment: Segment, last: LoadedMessages, found: int) -> Segment:
    """What is left of a segment on disk when `found` messages of it, up to `last`, were read."""
    first = last.sequences[-1] + 1
    rest = Segment([], [], segment.content_bytes, first, ticket=segment.ticket)
    rest.count = segment.count - found
    rest.stop_sequence = segment.stop_sequence
    rest.place = SegmentLocation.DISK
    rest.earliest_ms, rest.latest_ms = segment.earliest_ms, segment.latest_ms
    return rest


def split_at(part: LoadedMessages, sequence: int) -> list[LoadedMessages]:
    """A stretch as what lies before a sequence number and what does not, if there is both."""
    count = bisect_left(part.sequences, sequence)
    if not 0 < count < len(part.contents):
        return [part]
    return [
        part_of_loaded(part, 0, count),
        part_of_loaded(part, count, len(part.contents)),
    ]


def settle_all(
    journal: Journal, returned: Iterable[RequeuedRun], segments: Iterable[Segment]
) -> None:
    """Nothing of a lane is wanted any more."""
    for run in returned:
        if run.is_recorded:
            journal.settled(run.sequences[run.head :])
    for is_on_disk, together in groupby(segments, is_only_in_journal):
        if is_on_disk:  # one stretch, though they be thousands: there is nothing between them
            of_disk = list(together)
            journal.discarded(of_disk[0].first_sequence, of_disk[-1].stop_sequence)
            continue
        for segment in together:
            if segment.is_recorded:
                journal.settled(segment.sequences(segment.head, segment.count))


def is_only_in_journal(segment: Segment) -> bool:
    return segment.is_recorded and segment.place is SegmentLocation.DISK
