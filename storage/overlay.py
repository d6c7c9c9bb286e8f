"""Overlay of several logs read as one: of two entries at one index the one in the later log
counts."""

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter

from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import Log

SLICE = 1024
"""A stretch has no more entries than that, because finding it means to look at them."""

SurveyedEntry = tuple[int, int | None, int]
"""Index, tag if it is not damaged, number of the log that it is in."""


def survey(
    log: Log, numbers: Sequence[int], first: int, stop: int, *, checked_from: int
) -> Iterator[SurveyedEntry]:
    """Iterate over every entry from `first` up to `stop`, rising: see `Log.survey`."""
    surveys = [
        _of_one(log, number, first, stop, checked_from=checked_from)
        for number in reversed(numbers)
        if _touches(log.bounds(number), first, stop)
    ]
    if len(surveys) == 1:
        yield from surveys[0]
        return
    # `merge` keeps the order of its arguments for equal keys: the later log comes first.
    for _, seen in groupby(merge(*surveys, key=itemgetter(0)), itemgetter(0)):
        yield next(seen)


def stretches(
    log: Log, numbers: Sequence[int], first: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """Return which log to read for what: its number, a first index and one to stop at; rising."""
    touched = [number for number in numbers if _touches(log.bounds(number), first, stop)]
    if len(touched) == 1:
        yield touched[0], first, stop
        return
    seen = survey(log, touched, first, stop, checked_from=INDEX_END)
    for number, run in groupby(seen, itemgetter(2)):
        while indexes := [index for index, _, _ in islice(run, SLICE)]:
            yield number, indexes[0], indexes[-1] + 1


def _of_one(
    log: Log, number: int, first: int, stop: int, *, checked_from: int
) -> Iterator[SurveyedEntry]:
    found = log.survey(number, first, stop, checked_from=checked_from)
    return ((index, tag, number) for index, tag in found)


def _touches(bounds: tuple[int, int], first: int, stop: int) -> bool:
    return bounds[0] < stop and bounds[1] > first
