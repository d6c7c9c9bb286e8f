"""Stores of a queue: where the messages are that it does not have in memory, or not as ready."""

from __future__ import annotations

from typing import NamedTuple

from fluffle.broker.queues.delayed_ready_list import DelayedReadyList
from fluffle.broker.queues.delayed_retry import NO_DELAYS, DelayedRetries
from fluffle.broker.queues.inherited_counts import InheritedCounts
from fluffle.broker.queues.journal import Journal, PageStore
from fluffle.broker.queues.requeue import RequeueOrder


class QueueStores(NamedTuple):
    """Where the messages of one queue are kept that it does not have in memory, or not as ready."""

    journal: Journal | None = None
    """Told of persistent messages; None if they end with the process."""
    spill: PageStore | None = None
    """Takes others while memory is short."""
    returned: RequeueOrder | None = None
    """What came back; None: by age."""
    delays: DelayedRetries = NO_DELAYS
    """What came back and must wait."""
    calendar: DelayedReadyList | None = None
    """Where all that is ready waits, in a queue that is a calendar."""
    carried: InheritedCounts | None = None
    """What ready messages have brought along; None where none is asked for."""


NO_STORES = QueueStores()
"""All is in memory."""
