"""Context of a queue: the functions of its node that it calls, and where its messages are kept.

Both are made once where queues are made; nothing of them is the queue's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fluffle.broker.queues.dead_letter_port import RepublishDeadLetters
from fluffle.broker.queues.dead_lettering import Bury
from fluffle.broker.queues.deduplication import FilterFactory, forgetful
from fluffle.broker.queues.delayed_ready_list import DelayedReadyList
from fluffle.broker.queues.delayed_retry import NO_DELAYS, DelayedRetries
from fluffle.broker.queues.delivery import DeliveryBatch, deliver_all
from fluffle.broker.queues.inherited_counts import InheritedCounts
from fluffle.broker.queues.journal import Journal, PageStore
from fluffle.broker.queues.queue_expiry import ignore_expiry
from fluffle.broker.queues.requeue import RequeueOrder
from fluffle.broker.queues.timer_port import STOPPED_CLOCK, QueueClock

if TYPE_CHECKING:
    from fluffle.broker.queues.engine import Queue


class QueueContext(NamedTuple):
    """Whom queues ask and tell: several may share them."""

    touch: Callable[[Queue], None]
    """Asks for `pump` to be called before this turn of the loop ends."""
    time: QueueClock = STOPPED_CLOCK
    deliver: Callable[[list[DeliveryBatch]], None] = deliver_all
    """Passes on what is handed out before too much waits."""
    dead_letter: RepublishDeadLetters | None = None
    """Republishes what has died; None where nobody does."""
    bury: Bury | None = None
    """Does all that is to be done about what has died in front; None: the queue does."""
    besides: Callable[[], int] = int
    """How many messages count for the limit of a queue that are not in it."""
    on_crash: Callable[[Queue], object] = ignore_expiry
    """Told when what is next is damaged, and all that was handed out before has been delivered."""
    on_disused: Callable[[Queue], object] = ignore_expiry
    """Told, from `pump`, when nobody has used a queue for as long as it is to be there without."""
    consumer_timeout_ms: int | None = None
    """How long anything may be held where nothing else says so; None: for ever."""
    sieve: FilterFactory = forgetful
    """Makes what drops messages that come again, where that is asked for."""
    touch_last: Callable[[Queue], None] | None = None
    """Called as `touch`, and the queue is pumped behind all others for which that was asked; None:
    as `touch`."""


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
