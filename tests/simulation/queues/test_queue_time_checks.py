"""Clocks that may be late, and those that may not."""

from __future__ import annotations

import pytest

from tests.simulation.facts import Violation
from tests.simulation.queues.queue_time_checks import SLACK_MS, QueueTimeChecks

A, B, AGAIN = ("a", 1), ("b", 1), ("a", 2)


def test_time_passes_as_the_fastest_machine_counts_it() -> None:
    queue_time_checks = QueueTimeChecks()
    queue_time_checks.look([0, 0], {A: 1_000_000})
    queue_time_checks.look([10_000, 20_000], {A: 1_020_000})
    queue_time_checks.check(1_020_000)
    with pytest.raises(Violation, match="G12"):
        queue_time_checks.check(1_020_000 + 2 * SLACK_MS)


def test_common_time_that_leaps_is_found() -> None:
    queue_time_checks = QueueTimeChecks()
    queue_time_checks.look([0], {A: 1_000_000, B: 1_000_000})
    with pytest.raises(Violation, match="G12"):
        queue_time_checks.look([100], {A: 4_600_000, B: 1_000_100})


def test_who_has_begun_may_begin_with_another() -> None:
    """All that knew the earlier one are gone, or out of its reach."""
    queue_time_checks = QueueTimeChecks()
    queue_time_checks.look([0], {A: 1_000_000})
    queue_time_checks.look([100], {})
    queue_time_checks.look([200], {AGAIN: 4_600_000})
    queue_time_checks.check(4_600_000)


def test_before_anybody_knows_the_time_nothing_is_stamped() -> None:
    queue_time_checks = QueueTimeChecks()
    queue_time_checks.look([0], {})
    with pytest.raises(Violation, match="G12"):
        queue_time_checks.check(1)
