"""Counts by size."""

from fluffle.storage.histogram import Histogram


def test_a_bound_belongs_to_what_is_below_it() -> None:
    histogram = Histogram((1, 10))
    for value in (0.5, 1, 1.5, 10, 11):
        histogram.add(value)
    assert list(histogram.up_to) == [2, 4, 5]
    assert histogram.total == 24


def test_several_count_as_if_they_were_alike() -> None:
    histogram = Histogram((1, 10))
    histogram.add(6, 3)
    assert list(histogram.up_to) == [0, 3, 3]
    assert histogram.total == 6
