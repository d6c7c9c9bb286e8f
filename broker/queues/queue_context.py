"""What a queue has of those around it: whom it asks and tells, and where its messages are kept.

Both are made once where queues are made; nothing of them is the queue's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fluffle.broker.queues.dead_letter_port import DeadLetter
from fluffle.broker.queues.dead_lettering import Bury
from fluffle.broker.queues.deduplication import SieveFrom, forgetful
from fluffle.broker.queues.delayed_ready_list import CalendarLane
from fluffle.broker.queues.delayed_retry import NO_DELAYS, Delays
from fluffle.broker.queues.delivery import Handout, deliver_all
from fluffle.broker.queues.inherited_counts import Carried
from fluffle.broker.queues.journal import Journal, Spill
from fluffle.broker.queues.queue_expiry import nobody_minds
from fluffle.broker.queues.requeue import Returns
from fluffle.broker.queues.timer_port import TIMELESS, Time

if TYPE_CHECKING:
    from fluffle.broker.queues.engine import Queue


class Ports(NamedTuple):
    """Whom queues ask and tell: several may share them."""

    touch: Callable[[Queue], None]
    """Asks for `pump` to be called before this turn of the loop ends."""
    time: Time = TIMELESS
    deliver: Callable[[list[Handout]], None] = deliver_all
    """Passes on what is handed out before too much waits."""
    dead_letter: DeadLetter | None = None
    """Republishes what has died; None where nobody does."""
    bury: Bury | None = None
    """Does all that is to be done about what has died in front; None: the queue does."""
    besides: Callable[[], int] = int
    """How many messages count for the limit of a queue that are not in it."""
    on_crash: Callable[[Queue], object] = nobody_minds
    """Told when what is next is damaged, and all that was handed out before has been delivered."""
    on_disused: Callable[[Queue], object] = nobody_minds
    """Told, from `pump`, when nobody has used a queue for as long as it is to be there without."""
    consumer_timeout_ms: int | None = None
    """How long anything may be held where nothing else says so; None: for ever."""
    sieve: SieveFrom = forgetful
    """Makes what drops messages that come again, where that is asked for."""
    touch_last: Callable[[Queue], None] | None = None
    """Called as `touch`, and the queue is pumped behind all others for which that was asked; None:
    as `touch`."""


class Stores(NamedTuple):
    """Where the messages of one queue are kept that it does not have in memory, or not as ready."""

    journal: Journal | None = None
    """Told of persistent messages; None if they end with the process."""
    spill: Spill | None = None
    """Takes others while memory is short."""
    returned: Returns | None = None
    """What came back; None: by age."""
    delays: Delays = NO_DELAYS
    """What came back and must wait."""
    calendar: CalendarLane | None = None
    """Where all that is ready waits, in a queue that is a calendar."""
    carried: Carried | None = None
    """What ready messages have brought along; None where none is asked for."""


NO_STORES = Stores()
"""All is in memory."""
