"""Republishing of dead letters, as the settings of their queue say.

At most once, as RabbitMQ does it by default: no publisher waits until the queues that get it are
sure of it, and what leads nowhere is gone, or to a queue that has had no room for long or refuses
it.  What has come back to a queue where it died before is gone too, if no client has rejected it
since (`protocol.headers.is_cycle`): it would go round for ever.  What is gone is counted, and said
now and then.

Or at least once, where those that have died come as parcels: each hears where it is safe, and where
it has not come, and the queue that keeps it tries again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, Protocol

from fluffle.broker.base.clock import Clock
from fluffle.broker.base.logs import LimitedLog
from fluffle.broker.base.message import Origin
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.base.traffic import DISABLED, Deaths, DropReason
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER, ReadBarrier
from fluffle.broker.queues.conversion_buffer import WhenSafe
from fluffle.broker.queues.dead_letters import DeadLetterIdsFor, DeadMessages, PendingDeadLetter
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.publish_target import (
    AcceptsDeadLetters,
    EnqueueFunction,
    EnqueueResult,
    PartialResult,
    PublishReceipt,
    QueueTarget,
    accepted_spans,
)
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.transfer.republish import (
    DeathHeaders,
    DelayedMessages,
    Destination,
    RepublishedMessage,
    identity_of,
)
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import (
    priority_of,
    raw_properties,
    replace_properties,
)

PATIENCE_MS = 10_000
"""A queue without a leader is full once it has been given what one burst of a client may be, too;
it is one that takes nothing after this."""
PAUSE_MS = 1_000
"""Time after which a full queue is tried again."""

logger = logging.getLogger(__name__)


class OnDeadLetterOutcome(Protocol):
    """Callback for the outcome of messages of a run, from one up to another."""

    def __call__(
        self, start: int, stop: int, *, is_accepted: bool, why: DropReason = DropReason.REFUSED
    ) -> None: ...


class RepublishKind(NamedTuple):
    """Kind of republished messages: dead letters, or delayed messages that are due."""

    stuck_event: str
    """Event logged when a message that must arrive does not."""
    deaths: Deaths
    """Counters of deaths and their outcomes."""
    drop_event: str | None = None
    """Event logged when a message is unroutable and need not arrive."""


class RepublishGroup(NamedTuple):
    """Messages that are republished together: their kind and virtual host."""

    kind: RepublishKind
    vhost: str
    ids_for: DeadLetterIdsFor
    counts: Counts


class DeadRun(NamedTuple):
    """Messages of a queue of a virtual host."""

    vhost: str
    queue: str
    settings: QueueSettings
    dead: DeadMessages


def at_once(act: Callable[[], None]) -> None:
    """Call it at once, where nothing is to be waited for."""
    act()


class DeadLetters:
    """Republisher of dead letters, for all virtual hosts of a node."""

    def __init__(
        self,
        find: Callable[[str], VirtualHost | None],
        clock: Clock,
        deaths: Deaths,
        when_safe: WhenSafe = at_once,
        read_barrier: Callable[[], ReadBarrier] = lambda: LOCAL_READ_BARRIER,
    ) -> None:
        """`deaths` counts messages that have died, arrived, and did not.
        `when_safe` calls something once all that queues here have recorded so far is on disk.
        `read_barrier`: of where anything leads, once there are messages."""
        self._find = find
        self._clock = clock
        self._deaths = deaths
        self._dead_letters = RepublishKind("dead_letters_wait", deaths)
        self._delayed = RepublishKind("delayed_messages_wait", Deaths(), "delayed_messages_dropped")
        self._read_barrier = read_barrier
        self._asking: set[Callable[[], None]] = set()
        """The senders that are to try again once more is known."""
        self._when_safe = when_safe
        self._waiting: deque[DeadRun] = deque()
        """Messages being published, with those that died because of that: a queue that drops its
        oldest may lead to another that does."""
        self._full: dict[tuple[str, str], tuple[int, int]] = {}
        """Full queues by virtual host and name: since when, and when last tried."""
        self._log = LimitedLog(logger, clock)
        self._stranded: dict[Callable[[], None], None] = {}
        """Callbacks for when messages may arrive that could not."""

    def publish(
        self, vhost_name: str, queue: str, settings: QueueSettings, dead: DeadMessages
    ) -> None:
        """Put messages of a queue into those where its dead-letter exchange leads.

        If that fails, what has died meanwhile is published all the same, before it is raised.
        """
        if dead.unwanted:
            self._deaths.died[dead.queue_type, DISABLED, dead.reason] += dead.unwanted
            return
        waiting = self._waiting
        waiting.append(DeadRun(vhost_name, queue, settings, dead))
        if len(waiting) > 1:
            return  # the call that is publishing sees to it
        errors: list[Exception] = []
        while waiting:
            try:
                self._give(*waiting[0])
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
            finally:
                waiting.popleft()
        if len(errors) > 1:
            raise ExceptionGroup("dead letters could not be published", errors)
        if errors:
            raise errors[0]

    def _give(
        self, vhost_name: str, queue: str, settings: QueueSettings, dead: DeadMessages
    ) -> None:
        kind = self._delayed if is_delayed_queue(queue) else self._dead_letters
        new = sum(not pending.tries for pending in dead.parcels or ())
        count = len(dead.origins) if dead.parcels is None else new
        vhost, exchange = self._find(vhost_name), settings.dead_letter_exchange
        strategy: str = settings.dead_letter_strategy
        is_there = vhost is not None and vhost.topology.find(exchange or "") is not None
        if dead.parcels is None and not is_there:
            strategy = DISABLED
        kind.deaths.died[dead.queue_type, strategy, dead.reason] += count
        if vhost is not None and exchange is not None:
            self._publish(vhost, queue, settings, dead, kind)
        else:
            for pending in dead.parcels or ():
                pending.lead(())
        for pending in dead.parcels or ():
            if kind.drop_event is not None and self._need_not_arrive(pending, dead.hasten):
                self._let_go(pending, kind.drop_event, vhost_name, queue)
                continue
            pending.finish()
            if pending.leads_nowhere and kind.drop_event is None:
                self._log.warn(
                    kind.stuck_event, reason=DropReason.NO_ROUTE, vhost=vhost_name, queues=queue
                )
            if pending.is_refused:
                self._stranded[dead.hasten] = None

    def _need_not_arrive(self, pending: PendingDeadLetter, hasten: Callable[[], None]) -> bool:
        """True if one leads nowhere, by all that was defined anywhere before it was first tried.

        Until that is known it is kept; `hasten` is called then."""
        if not pending.leads_nowhere:
            return False
        read_barrier = self._read_barrier()
        pending.doubt = pending.doubt or read_barrier.mark
        if read_barrier.confirmed >= pending.doubt:
            return True
        if hasten not in self._asking:
            self._asking.add(hasten)
            read_barrier.ask(partial(self._known, hasten))
        return False

    def _known(self, hasten: Callable[[], None]) -> None:
        """Try again: all is known here that was defined anywhere when it was first asked for."""
        self._asking.remove(hasten)
        hasten()

    def _let_go(self, pending: PendingDeadLetter, what: str, vhost: str, queue: str) -> None:
        self._deaths.dropped[DropReason.NO_ROUTE] += 1
        self._log.warn(what, reason=DropReason.NO_ROUTE, vhost=vhost, queues=queue)
        pending.let_go()

    def hasten(self) -> None:
        """Try at once what must arrive and could not: queues, exchanges or bindings have changed,
        or a node can be reached again."""
        stranded, self._stranded = self._stranded, {}
        for hasten in stranded:
            hasten()

    def _publish(
        self,
        vhost: VirtualHost,
        queue: str,
        settings: QueueSettings,
        dead: DeadMessages,
        kind: RepublishKind,
    ) -> None:
        exchange = settings.dead_letter_exchange
        assert exchange is not None
        time_ms = dead.time_ms if dead.time_ms is not None else self._clock.wall_ms()
        writer: DeathHeaders | DelayedMessages = DeathHeaders(
            vhost, queue, settings, dead.reason, time_ms // 1000
        )
        if kind is self._delayed:
            writer = DelayedMessages(vhost, exchange)
        is_drawn = vhost.router.needs(exchange).is_drawn
        known: dict[tuple[Origin, bytes], RepublishedMessage] = {}
        messages: list[tuple[RepublishedMessage, bytes]] = []
        parcels: Sequence[PendingDeadLetter | None] = dead.parcels or (None,) * len(dead.origins)
        for origin, content, pending in zip(dead.origins, dead.contents, parcels, strict=True):
            key = origin, raw_properties(content)
            if is_drawn or key not in known:
                known[key] = writer.write(*key)
            message, content = known[key], replace_properties(content, known[key].raw)
            if pending is None or not pending.tries:
                message.keep(content)
                for cycle in message.cycles:
                    self._drop(DropReason.CYCLE, vhost.name, ", ".join(cycle), 1)
            messages.append((message.sent_as(pending, vhost.predecessors), content))
        for (way, _priority), run in groupby(
            messages, key=lambda pair: (pair[0].way, priority_of(pair[1]))
        ):
            self._put(list(run), way, RepublishGroup(kind, vhost.name, dead.ids_for, dead.counts))

    def _put(
        self,
        messages: list[tuple[RepublishedMessage, bytes]],
        way: Destination,
        group: RepublishGroup,
    ) -> None:
        """Put a message into each of the queues, in order."""
        origins = [message.origin for message, _content in messages]
        contents = [content for _message, content in messages]
        size_bytes = sum(map(len, contents))
        parcels = [message.pending for message, _content in messages if message.pending is not None]
        for target in way.targets:
            if parcels:
                on_outcome: OnDeadLetterOutcome = partial(
                    self._on_pending_outcome, group, parcels, target
                )
                is_shut = target.is_full
            else:
                on_outcome = partial(self._on_outcome, group.vhost, target.name)
                is_shut = self._is_stuck(group.vhost, target)
            if is_shut:
                on_outcome(0, len(messages), is_accepted=False, why=DropReason.NO_ROOM)
                continue
            put: EnqueueFunction = target.enqueue
            if (parcels or group.counts is not NEW) and isinstance(target, AcceptsDeadLetters):
                ids = group.ids_for(identity_of(target), parcels) if parcels else None
                put = partial(target.enqueue_dead_letters, dead_letter_ids=ids, counts=group.counts)
            result = put(
                origins,
                contents,
                size_bytes,
                persistent=way.persistent,
                expiration_ms=way.expiration_ms,
            )
            if isinstance(result, PublishReceipt):
                result.then(on_outcome)
                continue
            taken = result.accepted if isinstance(result, PartialResult) else result
            for start, stop, is_accepted in accepted_spans(result, len(messages)):
                if is_accepted and parcels and taken is EnqueueResult.RECORDED:
                    put_on_record(parcels[start:stop], target)
                    self._when_safe(partial(on_outcome, start, stop, is_accepted=True))
                else:
                    on_outcome(start, stop, is_accepted=is_accepted)

    def _on_pending_outcome(
        self,
        group: RepublishGroup,
        parcels: list[PendingDeadLetter],
        target: QueueTarget,
        start: int,
        stop: int,
        *,
        is_accepted: bool,
        why: DropReason = DropReason.REFUSED,
    ) -> None:
        """Handle an outcome as `_on_outcome`, for messages that are kept and tried again."""
        kind = group.kind
        for pending in parcels[start:stop]:
            kind.deaths.confirmed += pending.known(identity_of(target), is_accepted=is_accepted)
        if not is_accepted:
            self._log.warn(kind.stuck_event, reason=why, vhost=group.vhost, queues=target.name)

    def _on_outcome(
        self,
        vhost: str,
        queue: str,
        start: int,
        stop: int,
        *,
        is_accepted: bool,
        why: DropReason = DropReason.REFUSED,
    ) -> None:
        """Handle the outcome of some of the messages that a queue was given."""
        if not is_accepted:
            self._drop(why, vhost, queue, stop - start)

    def _is_stuck(self, vhost: str, target: QueueTarget) -> bool:
        """True if a queue has had no room for too long."""
        key, now_ms = (vhost, target.name), self._clock.now_ms()
        if not target.is_full:
            self._full.pop(key, None)
            return False
        since_ms, last_ms = self._full.get(key, (now_ms, now_ms))
        if now_ms - last_ms > PAUSE_MS:
            since_ms = now_ms
        self._full[key] = since_ms, now_ms
        return now_ms - since_ms > PATIENCE_MS

    def _drop(self, why: DropReason, vhost: str, queues: str, count: int) -> None:
        """Count messages that are dropped; logged now and then for a queue, or for a cycle of
        queues."""
        self._deaths.dropped[why] += count
        self._log.warn("dead_letters_dropped", reason=why, vhost=vhost, queues=queues)


def put_on_record(parcels: list[PendingDeadLetter], target: QueueTarget) -> None:
    for pending in parcels:
        pending.recorded(identity_of(target))
