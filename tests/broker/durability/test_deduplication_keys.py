"""Deduplication keys of a durable queue through commits and crashes, compared with a model.

A crash leaves what was done by the last commit: a key is known then if its message was in that.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fluffle.broker.base.traffic import Traffic
from fluffle.broker.durability.deduplication_keys import KEYS as KEYS_KIND
from fluffle.broker.durability.local_journal import LocalJournals
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.deduplication import key_of
from fluffle.broker.queues.deduplication_window import KEY
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.publish_target import EnqueueResult, MessageResult, results_of
from fluffle.broker.queues.queue_api import DeliverySource
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.protocol.wire import PlainValue
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.layout import Table
from tests.broker.queues.deduplication_model import ReferenceDeduplication, keyed
from tests.broker.queues.queue_harness import ORIGIN
from tests.storage.support import ManualWriter
from tests.suite.seeds import machine_settings
from tests.support.queue_arguments import queue_arguments
from tests.support.queue_host import FakeTurn
from tests.support.store import open_store

SIZE = 3
SPEC = QueueSpec(
    "q", durable=True, arguments=queue_arguments(message_deduplication=True, cache_size=SIZE)
)
PRIORITIES = QueueSpec(
    "q",
    durable=True,
    arguments={**SPEC.arguments, **queue_arguments(max_priority=3)},
    max_priority=3,
)


MANY = QueueSpec(
    "q", durable=True, arguments=queue_arguments(message_deduplication=True, cache_size=100)
)


class Durable:
    """Queue of a node that ends and starts again."""

    def __init__(self, spec: QueueSpec = SPEC) -> None:
        self.spec = spec
        self.disk = MemoryDisk()
        self.time_ms = 1_000
        self.traffic, self.count = Traffic(), 0
        self.boot()
        self.definition = self.maker.define(spec, None, "/")
        self.queue = self.maker.make(self.definition, "/")
        self.commits.put("queue", b"q", b"")
        self.commit()

    def boot(self) -> None:
        self.store = open_store(self.disk, self.writer_on)
        self.commits = Commits(self.store, Turn(lambda _act: None))
        keys = self.store.catalog.items(KEYS_KIND)
        self.journals = LocalJournals(self.store.log, self.commits, {}, keys=keys)
        self.maker = LocalQueues(
            FakeTurn(),
            self.journals,
            traffic=self.traffic,
            time=self,  # type: ignore[arg-type]
        )

    def now_ms(self) -> int:
        return self.time_ms

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        """Nothing is ever due."""

    def forget(self, queue: DeliverySource) -> None:
        """Ignore the call: this clock wakes no queue."""

    @property
    def dropped(self) -> int:
        return self.traffic.duplicates[QueueType.CLASSIC]

    def writer_on(self, disk: Disk, wake: object) -> ManualWriter:
        assert callable(wake)
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def commit(self) -> None:
        self.commits.flush()
        while self.writer.step():
            pass

    def restart(self) -> None:
        """The process is killed, with what it has not written."""
        self.disk = self.disk.after_power_loss()
        self.start()

    def start(self) -> None:
        self.boot()
        queue = self.maker.reopen(self.definition, "/")
        assert isinstance(queue, Queue)
        self.queue = queue

    def put(
        self, key: PlainValue, *, persistent: bool = True, ttl_ms: int | None = None
    ) -> MessageResult:
        self.count += 1
        content = keyed(b"%d" % self.count, key, ttl_ms)
        result = self.queue.enqueue([ORIGIN], [content], len(content), persistent=persistent)
        ((_start, _stop, part),) = results_of(result, 1)
        taken = result if isinstance(result, EnqueueResult) else result.accepted
        assert taken is (EnqueueResult.RECORDED if persistent else EnqueueResult.ACCEPTED)
        return part

    @property
    def known(self) -> list[bytes]:
        """Digests, the oldest first."""
        sieve = self.queue._entrance._sieve
        assert sieve is not None
        packed = sieve.window.packed()
        return [digest for digest, _until_ms in KEY.iter_unpack(packed)]

    @property
    def keys_on_disk(self) -> int:
        group = self.journals._key_logs.group_of(self.definition.groups[0])
        if group is None:
            return 0
        sizes = [size for _index, _tag, size in self.store.log.entries(group)]
        return sum(sizes) // KEY.size


class Taken(NamedTuple):
    """A message came in, or the queue was purged: then it has no key."""

    ticket: int
    key: str | None
    persistent: bool


def digest_of(key: str) -> bytes:
    name = key_of(keyed(b"", key))
    assert name is not None
    return name.digest


DIGESTS = {digest_of(key): key for key in "abcdef"}


class Machine(RuleBasedStateMachine):
    spec = SPEC

    def __init__(self) -> None:
        super().__init__()
        self.one = Durable(self.spec)
        self.taken: list[Taken] = []

    def book(self, durable: int) -> list[str]:
        """Keys that must be known, by what has come in up to a commit."""
        book = ReferenceDeduplication(SIZE, None)
        for taken in self.taken:
            if taken.ticket > durable:
                break
            if taken.key is None:
                book.taken.clear()
            else:
                book.taken = [each for each in book.taken if each.key != taken.key]
                book.comes(taken.key, None, 0)
                book.turn_page()
        return [str(once.key) for once in book.taken]

    @rule(key=st.sampled_from("abcdef"), persistent=st.booleans() | st.just(value=True))
    def publish(self, key: str, *, persistent: bool) -> None:
        """A message that outlives the process is a duplicate only of one that does."""
        last = {taken.key: taken.persistent for taken in self.taken}
        is_known = key in self.book(self.one.commits.ticket) and (not persistent or last[key])
        assert self.one.put(key, persistent=persistent) is (
            MessageResult.DUPLICATE if is_known else MessageResult.ACCEPTED
        )
        if not is_known:
            self.taken.append(Taken(self.one.commits.ticket, key, persistent))

    @rule()
    def purge(self) -> None:
        self.one.queue.purge()
        self.taken.append(Taken(self.one.commits.ticket, None, persistent=True))

    @rule()
    def begin_commit(self) -> None:
        self.one.commits.flush()

    @rule()
    def end_commit(self) -> None:
        self.one.writer.step()

    @rule(is_done=st.booleans())
    def crash(self, *, is_done: bool) -> None:
        """Crash: durable keys stay known, unless their message did not outlive the process."""
        durable = self.one.commits.durable
        if is_done and self.one.writer.work is not None:
            self.one.writer.commit()
            durable += 1
        done = [taken for taken in self.taken if taken.ticket <= durable]
        last = {taken.key: taken.persistent for taken in done}
        purged_at = max((at for at, taken in enumerate(done) if taken.key is None), default=-1)
        lasting = {taken.key for taken in done[purged_at + 1 :] if taken.persistent}
        before = {key for key in self.book(durable) if last[key]}
        self.one.restart()
        known = [DIGESTS[digest] for digest in self.one.known]
        assert before <= {*known}, "it would come in twice"
        assert {*known} <= lasting, "its message was lost"
        assert len(known) <= SIZE
        self.taken = [Taken(0, key, persistent=True) for key in known]

    @invariant()
    def little_is_on_disk(self) -> None:
        assert self.one.keys_on_disk <= SIZE + 50


class PrioritiesMachine(Machine):
    spec = PRIORITIES


@pytest.mark.parametrize("machine", [Machine, PrioritiesMachine])
def test_against_a_notebook(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine, settings=machine_settings(examples=80, stateful_step_count=40)
    )


def test_what_is_not_known_any_more_leaves_the_disk() -> None:
    one = Durable()
    for number in range(100):
        one.put(number)
        one.commit()
    assert one.keys_on_disk == SIZE
    one.restart()
    assert one.put(99) is MessageResult.DUPLICATE
    assert one.put(96) is MessageResult.ACCEPTED


def test_whoever_lives_long_stays_known_though_others_come_again() -> None:
    one = Durable()
    one.put("long")
    for _ in range(20):
        one.put("short", ttl_ms=10)
        one.commit()
        one.time_ms += 10
    one.restart()
    assert one.put("long") is MessageResult.DUPLICATE
    assert one.put("short") is MessageResult.ACCEPTED


def test_a_queue_that_is_deleted_leaves_no_keys() -> None:
    one = Durable()
    one.put("a")
    one.commit()
    assert list(one.store.catalog.items(KEYS_KIND))
    one.maker.end(one.queue)
    one.put("b")
    one.commit()
    assert not list(one.store.catalog.items(KEYS_KIND))
    assert one.keys_on_disk == 0


def test_an_entry_that_is_damaged_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """And the next one is not."""
    one = Durable()
    for key in "ab":
        one.put(key)
        one.commit()
    one.disk = one.disk.after_power_loss()
    hot = one.disk._tables[Table.HOT]
    (damaged,) = [at for at, record in hot.items() if digest_of("a") in record]
    one.disk.flip(Table.HOT, damaged, hot[damaged].index(digest_of("a")))
    one.start()
    assert "deduplication_damaged" in caplog.text
    assert one.known == [digest_of("b")]
    one.commit()
    one.restart()
    assert one.put("b") is MessageResult.DUPLICATE
    assert one.put("a") is MessageResult.ACCEPTED


def test_a_key_that_comes_again_when_its_time_is_over_keeps_nothing_before_it() -> None:
    durable = Durable(MANY)
    for number in range(2_000):
        durable.time_ms += 10
        if number % 20 == 0:
            assert durable.put("again", ttl_ms=150) is MessageResult.ACCEPTED
        durable.put(f"{number}")
        durable.commit()
    assert durable.keys_on_disk < 2 * len(durable.known)


def test_what_ends_with_the_process_vouches_for_nothing_that_outlives_it() -> None:
    durable = Durable(MANY)
    assert durable.put("a", persistent=False) is MessageResult.ACCEPTED
    assert durable.put("a", persistent=False) is MessageResult.DUPLICATE
    assert durable.put("a") is MessageResult.ACCEPTED
    assert durable.put("a") is MessageResult.DUPLICATE
    assert durable.put("a", persistent=False) is MessageResult.DUPLICATE
    durable.commit()
    durable.restart()
    assert durable.queue.ready_count == 1
    assert durable.put("a") is MessageResult.DUPLICATE
