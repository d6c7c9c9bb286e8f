"""The steps of a change of type, in any order with what clients do: one of the two queues is whole.

The successor is another engine's queue that says late what it has taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.metadata.metadata import Decide, LocalMetadata
from fluffle.broker.queues.arguments import Declaration, QueueSpec, QueueType, queue_spec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.publish_target import EnqueueResult, PublishReceipt
from fluffle.broker.queues.queue_api import (
    STOPPED_CLOCK,
    Consumer,
    DeliveryBatch,
    FactoryByType,
    Outcome,
    QueueCounts,
    QueueHandle,
    deliver_all,
)
from fluffle.broker.queues.queue_view import messages_from
from fluffle.broker.queues.settings import by_arguments
from fluffle.broker.transfer.conversion import begin, give_up
from fluffle.broker.transfer.converter import Converter
from fluffle.broker.transfer.mover import MoveGetter
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.suite.seeds import machine_settings
from tests.support.edge import Edge
from tests.support.queue_host import FakeQueueHost

NO_LIMIT = 1 << 30


class Heir:
    """A `QueueHandle` that has taken messages once `know` says so."""

    is_full = False
    settling = None

    def __init__(self, definition: QueueDefinition, touch: Any) -> None:
        self.definition = definition
        self.queue = Queue(definition.spec, FakeQueueHost(touch))
        self.unreported: deque[PublishReceipt] = deque()
        self.refuses = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queue, name)

    def enqueue(self, origins: list[Origin], contents: list[bytes], *size: int, **how: Any) -> Any:
        if self.refuses:
            return EnqueueResult.REJECTED
        self.queue.enqueue(origins, contents, *size, **how)
        receipt = PublishReceipt(len(contents))
        self.unreported.append(receipt)
        return receipt

    def know(self) -> None:
        receipt = self.unreported.popleft()
        receipt.on_outcome(0, receipt.count, is_accepted=True)

    def attach(self, consumer: Consumer) -> None:
        self.queue.attach(consumer)
        deliver_all(self.queue.pump())

    @property
    def queue_counts(self) -> QueueCounts:
        return self.queue.queue_counts


class Heirs:
    """A `QueueMaker`."""

    def __init__(self) -> None:
        self.count = 0
        self.now: Heir | None = None

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        del vhost
        self.count += 1
        return QueueDefinition(spec, owner=owner, id=self.count)

    def create_successor(self, definition: QueueDefinition, _vhost: str) -> Heir:
        self.now = Heir(definition, lambda _queue: None)
        return self.now

    make = reopen = create_successor

    def promote(self, successor: Heir, definition: QueueDefinition, _vhost: str) -> None:
        assert not successor.unreported, "all that was copied is safe"
        successor.definition = definition
        successor.refuses = False

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        raise AssertionError("it has no members")

    renew_settings = part = redefine

    def end(self, queue: Heir) -> None:
        assert queue is self.now
        self.now = None


class Late:
    """Fake metadata that apply changes after a while."""

    def __init__(self, metadata: LocalMetadata) -> None:
        self._metadata = metadata
        self.asked: deque[tuple[Decide, Callable[[], None]]] = deque()

    def ensure(self, decide: Decide, done: Callable[[], None]) -> None:
        self.asked.append((decide, done))

    def come_true(self) -> None:
        while self.asked:
            self._metadata.ensure(*self.asked.popleft())


class Changing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.edge = Edge()
        self.successors = Heirs()
        self.vhost = vhost = self.edge.vhost
        local = vhost.maker
        vhost.maker = FactoryByType(
            {QueueType.CLASSIC: lambda: local, QueueType.QUORUM: lambda: self.successors}  # type: ignore[dict-item, return-value]
        )
        self.converter = Converter(self.edge.services.runtime, STOPPED_CLOCK)
        catalogue = replace(self.edge.catalogue, converter=self.converter)
        self.metadata = LocalMetadata(catalogue.apply, self.edge.facts)
        self.late = Late(self.metadata)
        self.converter.open(0, self.late, [vhost])  # type: ignore[arg-type]
        self.ready: list[tuple[bytes, bool]] = []
        """Expected messages in order, and whether each is redelivered."""
        self.confirmed: set[bytes] = set()
        self.delivery_batches: list[DeliveryBatch] = []
        self.number = 0
        spec = queue_spec(Declaration("q", durable=True), "/")
        vhost.put_queue(local.define(spec, None, "/"))

    @property
    def queue(self) -> QueueHandle:
        return self.vhost.queues["q"]

    @property
    def is_classic(self) -> bool:
        return isinstance(self.queue, Queue)

    @property
    def is_changing(self) -> bool:
        return "q" in self.vhost.successors

    def run_some(self, turns: int) -> None:
        for _ in range(turns):
            self.edge.scheduler.turn()

    @rule(count=st.integers(1, 700), persistent=st.booleans())
    def publish(self, count: int, persistent: bool) -> None:
        raw = encode_properties(Properties(delivery_mode=2 if persistent else 1))
        contents = []
        for _ in range(count):
            self.number += 1
            contents.append(build_content(raw, b"%d" % self.number))
        origin = self.vhost.origin("", "q")
        inlet = self.vhost.redirects.get("q", self.queue)
        result = inlet.enqueue([origin] * count, contents, sum(map(len, contents)),
                             persistent=persistent)  # fmt: skip
        assert result is not EnqueueResult.REJECTED
        self.ready += [(content, False) for content in contents]
        if isinstance(result, PublishReceipt):
            result.then(partial(self.reported, contents))
        else:
            self.confirmed |= {*contents}

    def reported(self, contents: list[bytes], start: int, stop: int, *, is_accepted: bool) -> None:
        assert is_accepted
        self.confirmed |= {*contents[start:stop]}

    @precondition(lambda self: self.is_classic and not self.is_changing)
    @rule(count=st.integers(1, 40))
    def get(self, count: int) -> None:
        for _ in range(count):
            delivery_batch = self.queue.get(MoveGetter(self.queue))
            if delivery_batch is None:
                break
            assert isinstance(delivery_batch, DeliveryBatch)
            assert (delivery_batch.contents[0], delivery_batch.redelivered) == self.ready.pop(0)
            self.delivery_batches.append(delivery_batch)

    @precondition(lambda self: self.is_classic and self.delivery_batches)
    @rule(is_back=st.booleans())
    def settle(self, is_back: bool) -> None:
        """All of them, in order."""
        for delivery_batch in reversed(self.delivery_batches) if is_back else self.delivery_batches:
            if is_back:
                self.ready.insert(0, (delivery_batch.contents[0], True))
            outcome = Outcome.NACK_REQUEUED if is_back else Outcome.ACKED
            self.queue.settle(delivery_batch, 0, 1, outcome)
        self.delivery_batches.clear()

    @precondition(lambda self: self.is_classic and not self.is_changing)
    @rule()
    def begin(self) -> None:
        decide = partial(begin, self.vhost, "q", by_arguments, {})
        self.metadata.change(decide, lambda: None, lambda _error: None)

    @precondition(lambda self: self.is_changing)
    @rule(how=st.sampled_from(["interrupt", "refuse", "purge"]), chance=st.integers(0, 3))
    def disturb(self, how: str, chance: int) -> None:
        if chance:
            return
        successor = self.successors.now
        assert successor is not None
        if how == "interrupt":
            self.metadata.ensure(partial(give_up, self.vhost, "q", successor.definition.id))
        elif how == "refuse":
            successor.refuses = True
        else:
            self.purge()

    def purge(self) -> None:
        """Purge the queue, unless it refuses: held messages are not in it yet."""
        if self.is_classic:
            with suppress(PreconditionFailed):
                del self.ready[: self.queue.purge()]  # type: ignore[arg-type]

    @precondition(lambda self: self.late.asked)
    @rule(is_purged=st.booleans())
    def come_true(self, is_purged: bool) -> None:
        """Apply the changes; a client may purge the queue in the last moment."""
        if is_purged:
            self.purge()
        self.late.come_true()

    @rule(turns=st.integers(1, 9))
    def go_on(self, turns: int) -> None:
        self.run_some(turns)

    @rule()
    def wait(self) -> None:
        self.edge.advance(0.06)

    @precondition(lambda self: self.successors.now is not None and self.successors.now.unreported)
    @rule(count=st.integers(1, 9))
    def know(self, count: int) -> None:
        successor = self.successors.now
        assert successor is not None
        for _ in range(min(count, len(successor.unreported))):
            successor.know()

    @invariant()
    def one_of_the_two_is_whole(self) -> None:
        """Check that all expected messages are there, except held ones without a confirm."""
        queue = self.queue
        ready_view = (queue if isinstance(queue, Queue) else queue.queue).ready_view  # type: ignore[attr-defined]
        found = [(each.content, each.redelivered) for each in messages_from(ready_view.stocks, 0)]
        assert found == self.ready[: len(found)]
        assert self.confirmed.isdisjoint(content for content, _ in self.ready[len(found) :])
        assert self.is_classic or not self.delivery_batches, "who holds something can settle it"

    def teardown(self) -> None:
        """Left alone but for a purge in the last moment, it comes to an end."""
        if self.delivery_batches and self.is_classic:
            self.settle(is_back=True)
        for _ in range(400):
            self.edge.advance(0.1)
            if self.late.asked:
                self.come_true(is_purged=True)
            while self.successors.now is not None and self.successors.now.unreported:
                self.successors.now.know()
            if not self.is_changing:
                break
        assert not self.is_changing
        self.one_of_the_two_is_whole()


TestChanging = Changing.TestCase
TestChanging.settings = machine_settings(examples=60, stateful_step_count=40)
