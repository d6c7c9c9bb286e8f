"""Says what of a history no honest broker would have caused.  Pure: a list of events in, words out.

The rules:

- a message that was confirmed is received by somebody, unless its queue was cleared;
- nothing is received that was not published there, and nothing that ends with a process after it;
- what was acknowledged is not received again once a later reply on that channel has come, nor by
  the same process; before that a crash may bring it back, as redelivered;
- what somebody has received is never received again without `redelivered`, and never by another
  while it is in somebody's hands;
- messages of one publisher come to a consumer in their order, unless they are redelivered; in a
  *steady* queue, of which nothing is given back, redelivered ones do too;
- what was purged or deleted stays gone, and a queue is there exactly if it was declared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.crash.history import (
    Acked,
    Clearing,
    ClearingAsked,
    ClearingDone,
    Closing,
    Confirmed,
    DeclareAsked,
    Declared,
    Event,
    Looked,
    Message,
    Published,
    Received,
    Requeued,
    Returned,
    RunEnded,
    Strange,
    Vouched,
)


@dataclass(slots=True)
class Report:
    """What a history comes to."""

    attempted: int = 0
    confirmed: int = 0
    received: int = 0
    """Messages and queues that they were received from, each once."""
    duplicated: int = 0
    """Received again."""
    recovered: int = 0
    """Received though never confirmed: they made it to the disk before the crash."""
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    """Everything else that breaks a rule."""

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.unexpected)


@dataclass(slots=True)
class Fate:
    """What has become of one message in one queue."""

    message: Message
    queue: str
    run: int
    """That it was published in."""
    outlives: bool
    """Whether it is there after the end of the process."""
    is_confirmed: bool = False
    receipts: int = 0
    last_receipt_run: int = -1
    holder: str | None = None
    """The channel in whose hands it is."""
    acked_run: int | None = None
    is_vouched: bool = False
    may_be_cleared: bool = False
    is_cleared: bool = False

    def __str__(self) -> str:
        return f"{self.message.publisher}/{self.message.number} in {self.queue}"


class Checker:
    """Reads a history event by event."""

    def __init__(
        self,
        *,
        transient: Collection[str] = (),
        steady: Collection[str] = (),
        leaky: Collection[str] = (),
    ) -> None:
        """`transient` queues end with the process; `steady` ones never get anything back; what
        is in `leaky` ones is handed out without acknowledgement, and may be lost with a process.
        """
        self.report = Report()
        self._transient = transient
        self._steady = steady
        self._leaky = leaky
        self._run = 0
        self._fates: dict[Message, list[Fate]] = {}
        """Of each message, one a queue."""
        self._in_queue: dict[str, list[Fate]] = {}
        """Those that were not cleared."""
        self._returned: set[Message] = set()
        self._acked: dict[str, list[Fate]] = {}
        """By channel; not vouched for."""
        self._held: dict[str, list[Fate]] = {}
        """By channel; some of them have been let go since."""
        self._clearing: dict[str, list[Fate]] = {}
        """Queues that are being cleared, with what must be gone then unless it is in hands."""
        self._there: dict[str, bool | None] = {}
        """Whether a queue is; None if it may be or not."""
        self._last: dict[tuple[str, ...], int] = {}
        """The greatest number received, by consumer, queue and publisher."""

    def read(self, events: Iterable[Event]) -> Report:
        """Take events; what is known after them."""
        for event in events:
            READERS[type(event)](self, event)
        return self.report

    def finish(self) -> Report:
        """All queues have been emptied: whatever was not received is lost."""
        for fates in self._fates.values():
            for fate in fates:
                if fate.is_confirmed and fate.outlives and not fate.receipts:
                    if not (fate.may_be_cleared or fate.queue in self._leaky):
                        self.report.lost.append(f"{fate} was confirmed and is lost")
                elif fate.receipts and not fate.is_confirmed:
                    self.report.recovered += 1
        return self.report

    def _breach(self, text: str) -> None:
        self.report.unexpected.append(f"run {self._run}: {text}")

    # What publishers say and hear

    def _published(self, event: Published) -> None:
        self.report.attempted += 1
        fates = self._fates[event.message] = []
        for queue in event.queues:
            outlives = event.persistent and queue not in self._transient
            fate = Fate(event.message, queue, self._run, outlives)
            fate.may_be_cleared = queue in self._clearing
            fates.append(fate)
            self._in_queue.setdefault(queue, []).append(fate)

    def _confirmed(self, event: Confirmed) -> None:
        self.report.confirmed += 1
        fates = self._fates[event.message]
        for fate in fates:
            fate.is_confirmed = True
        if not fates and event.message not in self._returned:
            self._breach(f"{event.message} went nowhere and was confirmed without a return")

    def _got_returned(self, event: Returned) -> None:
        self._returned.add(event.message)
        if self._fates[event.message]:
            self._breach(f"{event.message} came back as unroutable")

    # What consumers say and hear

    def _received(self, event: Received) -> None:
        fate = self._fate(event.message, event.queue)
        if fate is None:
            self._breach(f"{event.message} was never published to {event.queue}")
            return
        if fate.run < self._run and not fate.outlives:
            self._breach(f"{fate} is transient and came back")
        if fate.is_vouched:
            self._breach(f"{fate} was acknowledged, that was vouched for, and it came back")
        elif fate.acked_run == self._run:
            self._breach(f"{fate} was acknowledged and came again from the same process")
        if fate.is_cleared:
            self._breach(f"{fate} was cleared away and came back")
        if fate.receipts and not event.redelivered:
            self._breach(f"{fate} came again and says that it had not been delivered")
        if fate.holder is not None:
            self._breach(f"{fate} is in the hands of {fate.holder} and came to {event.channel}")
        self._check_order(fate, event)
        if fate.receipts:
            self.report.duplicated += 1
        else:
            self.report.received += 1
        fate.receipts += 1
        fate.last_receipt_run = self._run
        fate.holder = event.channel
        self._held.setdefault(event.channel, []).append(fate)

    def _check_order(self, fate: Fate, event: Received) -> None:
        publisher, number = fate.message
        if event.queue in self._steady:
            if fate.last_receipt_run == self._run:
                self._breach(f"{fate} came twice from one process")
            key: tuple[str, ...] = (event.queue, publisher)
        elif event.redelivered:
            return
        else:
            key = (event.channel, event.queue, publisher)
        if number <= self._last.get(key, 0):
            self._breach(f"{fate} came after number {self._last[key]}")
        self._last[key] = number

    def _fate(self, message: Message, queue: str) -> Fate | None:
        return next((fate for fate in self._fates.get(message, ()) if fate.queue == queue), None)

    def _let_go(self, event: Acked | Requeued) -> Fate:
        fate = self._fate(event.message, event.queue)
        assert fate is not None, "a client settles what it has received"
        fate.holder = None
        return fate

    def _got_acked(self, event: Acked) -> None:
        fate = self._let_go(event)
        fate.acked_run = self._run
        self._acked.setdefault(event.channel, []).append(fate)

    def _got_requeued(self, event: Requeued) -> None:
        self._let_go(event)

    def _vouched(self, event: Vouched) -> None:
        for fate in self._acked.pop(event.channel, ()):
            fate.is_vouched = True

    def _closing(self, event: Closing) -> None:
        for fate in self._held.pop(event.channel, ()):
            if fate.holder == event.channel:
                fate.holder = None

    # What becomes of queues

    def _clearing_asked(self, event: ClearingAsked) -> None:
        """From now on anything in it may go, and what has been confirmed must."""
        fates = self._in_queue.get(event.queue, [])
        for fate in fates:
            fate.may_be_cleared = True
        self._clearing[event.queue] = [fate for fate in fates if fate.is_confirmed]
        if event.how is Clearing.DELETE:
            self._there[event.queue] = None

    def _clearing_done(self, event: ClearingDone) -> None:
        for fate in self._clearing.pop(event.queue):
            fate.is_cleared = event.how is Clearing.DELETE or fate.holder is None
        fates = self._in_queue.get(event.queue, [])
        self._in_queue[event.queue] = [fate for fate in fates if not fate.is_cleared]
        if event.how is Clearing.DELETE:
            self._there[event.queue] = False

    def _declare_asked(self, event: DeclareAsked) -> None:
        if not self._there.get(event.queue):
            self._there[event.queue] = None

    def _declared(self, event: Declared) -> None:
        self._there[event.queue] = True

    def _looked(self, event: Looked) -> None:
        known = self._there.get(event.queue, False)
        if known is not None and known is not event.found:
            self._breach(f"{event.queue} is {'there' if event.found else 'not there'}")
        self._there[event.queue] = event.found

    def _run_ended(self, _event: RunEnded) -> None:
        self._run += 1
        for fates in self._held.values():
            for fate in fates:
                fate.holder = None
        self._held.clear()
        self._acked.clear()
        self._clearing.clear()
        self._last.clear()
        for queue in self._transient:
            self._there[queue] = False

    def _strange(self, event: Strange) -> None:
        self._breach(event.what)


READERS: dict[type[Event], Callable[[Checker, Any], None]] = {
    Published: Checker._published,
    Confirmed: Checker._confirmed,
    Returned: Checker._got_returned,
    Received: Checker._received,
    Acked: Checker._got_acked,
    Requeued: Checker._got_requeued,
    Vouched: Checker._vouched,
    Closing: Checker._closing,
    ClearingAsked: Checker._clearing_asked,
    ClearingDone: Checker._clearing_done,
    DeclareAsked: Checker._declare_asked,
    Declared: Checker._declared,
    Looked: Checker._looked,
    RunEnded: Checker._run_ended,
    Strange: Checker._strange,
}
