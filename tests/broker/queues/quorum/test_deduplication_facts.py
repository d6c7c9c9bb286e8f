"""A replicated queue that takes each message once, through changes of leader, by a notebook."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.encoding import (
    DATED_HOLDS,
    FIRST_VERSION,
    REMEMBERS,
    VERSION,
    decode,
    version_of,
)
from fluffle.broker.queues.quorum.errors import InvalidEntry
from fluffle.broker.queues.quorum.image import Image
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.wire import PlainValue
from tests.broker.queues.deduplication_model import ReferenceDeduplication, keyed
from tests.broker.queues.quorum.leader_harness import LeaderHarness, quorum
from tests.broker.queues.quorum.sample_facts import ORIGIN
from tests.broker.queues.quorum.session_clients import Operation, SessionClients
from tests.suite.seeds import machine_settings

KEYS: list[PlainValue] = ["a", "b", "c", "d", 1, None]
SIZE, TTL_MS = 3, 50


class Once(LeaderHarness):
    """With one edge, which publishes messages that name keys, and purges."""

    def __init__(self, **readers: int) -> None:
        spec = quorum(message_deduplication=True, cache_size=SIZE, cache_ttl=TTL_MS)
        super().__init__(spec)
        self.readers = readers
        self.edge = self.open_edge()
        self.is_touched = True
        self.settle_down()  # what each member reads is on record
        self.asked: dict[int, tuple[PlainValue, int | None] | None] = {}
        """By number: the key and the time that a message names; None: it is a purge."""
        self.contents: dict[int, bytes] = {}

    def put(self, key: PlainValue, ttl_ms: int | None = None) -> None:
        number = self.edge.next
        self.asked[number] = key, ttl_ms
        content = self.contents[number] = keyed(b"%d" % number, key, ttl_ms)
        publish = partial(published, content)
        self.ask(self.edge, Operation(publish, 1, [content]))

    def purge(self, edge: SessionClients) -> None:
        self.asked[edge.next] = None
        super().purge(edge)

    @property
    def dropped(self) -> int:
        """How many duplicates are on record."""
        facts = [fact for entry in self.log for fact in decode(entry).facts]
        return sum(fact.count for fact in facts if isinstance(fact, f.Acted))

    @property
    def known(self) -> bytes:
        """To all, who agree."""
        sieve = self.led.queue._entrance._sieve
        assert sieve is not None
        windows = [
            image.state.window or DeduplicationWindow() for image in (self.image, self.follower)
        ]
        (packed,) = {window.packed() for window in (sieve.window, *windows)}
        return packed

    def check_log(self) -> None:
        """What is in it is what the notebook says of each operation in turn; duplicates, which are
        not in it, are confirmed like all others."""
        model = ReferenceDeduplication(SIZE, TTL_MS)
        assert self.confirmed == {*self.contents.values()}
        for entry in self.log:
            batch = decode(entry)
            for fact in batch.facts:
                match fact:
                    case f.Published() | f.Acted():
                        for number in range(fact.first, fact.first + fact.count):
                            said = self.asked[number]
                            assert said is not None
                            is_taken = model.comes(*said, batch.stamp_ms)
                            assert is_taken == isinstance(fact, f.Published), said
                            if not is_taken:
                                self.confirmed.remove(self.contents[number])
                            model.turn_page()
                    case f.Answered():
                        model.taken.clear()
        now_ms = decode(self.log[-1]).stamp_ms if self.log else 0
        held = [once for once in model.taken if once.until_ms is None or now_ms < once.until_ms]
        assert len(held) <= len(self.known) // 24 <= SIZE


def published(content: bytes, led: Leadership, session: int, number: int) -> None:
    led.publish(session, number, [ORIGIN], [content])


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.harness = Once(a=VERSION, b=VERSION)

    @rule(key=st.sampled_from(KEYS), ttl_ms=st.sampled_from([None, None, 10, 200]))
    @precondition(lambda self: self.harness.edge.next < 200)
    def publish(self, key: PlainValue, ttl_ms: int | None) -> None:
        self.harness.put(key, ttl_ms)

    @rule()
    def purge(self) -> None:
        self.harness.purge(self.harness.edge)

    @rule()
    def turn(self) -> None:
        self.harness.turn()

    @rule()
    def commit(self) -> None:
        self.harness.commit()

    @rule(ms=st.sampled_from([1, 9, 10, 49, 50, 300]))
    def pass_time(self, ms: int) -> None:
        self.harness.turn()
        self.harness.now_ms += ms

    @rule(kept=st.integers(0, 3), is_elsewhere=st.booleans())
    def change_leader(self, kept: int, *, is_elsewhere: bool) -> None:
        self.harness.change_leader(kept, is_elsewhere=is_elsewhere)

    def teardown(self) -> None:
        self.harness.settle_down()
        self.harness.check_log()
        self.harness.check()


def test_against_a_notebook() -> None:
    run_state_machine_as_test(
        Machine, settings=machine_settings(examples=60, stateful_step_count=30)
    )


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_the_next_leader_knows_what_is_on_record(*, is_elsewhere: bool) -> None:
    """Also one that begins with a snapshot."""
    harness = Once(a=VERSION)
    harness.put("a")
    harness.settle_down()
    for _ in range(3):
        harness.change_leader(0, is_elsewhere=is_elsewhere)
        harness.put("a")
        harness.settle_down()
    assert harness.image.state.next_sequence == 2
    assert (harness.dropped, len(harness.confirmed)) == (3, 4)
    harness.check_log()
    harness.check()


def test_what_was_not_committed_is_not_known() -> None:
    harness = Once(a=VERSION)
    harness.put("a")
    harness.turn()
    harness.put("a")
    harness.turn()
    harness.change_leader(0, is_elsewhere=False)
    harness.settle_down()
    assert harness.image.state.next_sequence == 2
    assert len(harness.confirmed) == 2
    harness.check_log()
    harness.check()


def test_who_sends_again_what_is_under_way_hears_no_sooner() -> None:
    harness = Once(a=VERSION)
    harness.put("a")
    harness.put("a")
    harness.turn()
    assert harness.confirmed == set()
    harness.commit()
    assert len(harness.confirmed) == 2


def test_all_that_comes_in_with_an_entry_is_one_fact() -> None:
    harness = Once(a=VERSION)
    for key in KEYS:
        harness.put(key)
    harness.settle_down()
    (fact,) = [
        each
        for entry in harness.log
        for each in decode(entry).facts
        if isinstance(each, f.Remembered)
    ]
    assert (len(fact.packed) // 24, fact.kept) == (5, SIZE)


def test_while_a_member_does_not_read_it_the_leader_alone_knows() -> None:
    harness = Once(a=VERSION, b=DATED_HOLDS)
    harness.put("a")
    harness.put("a")
    harness.settle_down()
    assert harness.dropped == 1
    harness.change_leader(0, is_elsewhere=True)
    harness.put("a")
    harness.settle_down()
    assert harness.dropped == 1
    assert harness.image.state.next_sequence == 3
    assert max(version_of(entry) for entry in harness.log) < REMEMBERS
    harness.readers = {"a": VERSION, "b": VERSION}
    harness.put("b")
    harness.settle_down()
    assert len(harness.known) // 24 == 2, "what it knew alone, too"
    harness.change_leader(0, is_elsewhere=True)
    harness.put("a")
    harness.settle_down()
    assert harness.dropped == 2
    assert harness.known


def test_a_queue_that_does_not_ask_says_nothing() -> None:
    harness = LeaderHarness(quorum())
    edge = harness.open_edge()
    content = keyed(b"1", "a")
    for _ in range(2):
        harness.ask(edge, Operation(partial(published, content)))
    harness.settle_down()
    assert harness.image.state.window is None
    assert {version_of(entry) for entry in harness.log} == {FIRST_VERSION}
    assert harness.image.snapshot()[1][0] == FIRST_VERSION


def test_policies_ask_for_it_and_no_more() -> None:
    harness = LeaderHarness(quorum())
    harness.readers = {"a": VERSION}
    edge = harness.open_edge()

    def put(key: str) -> None:
        content = keyed(b"%d" % edge.next, key)
        harness.ask(edge, Operation(partial(published, content)))
        harness.settle_down()

    def come_in() -> int:
        return harness.image.state.next_sequence - 1

    put("a")
    harness.led.change_settings(1, QueueSettings(deduplicates=True, cache_size=7))
    put("a")
    put("a")
    assert come_in() == 2
    harness.led.change_settings(2, QueueSettings())
    harness.settle_down()
    assert harness.image.state.window is None
    put("a")
    harness.change_leader(0, is_elsewhere=True)
    put("a")
    assert come_in() == 4


def test_snapshots_of_older_versions_know_nothing_and_are_read() -> None:
    harness = Once()
    harness.put(None)
    harness.settle_down()
    version, taken = harness.image.version, harness.image.snapshot()[1]
    assert version < REMEMBERS
    assert Image.restored(taken).state.window is None


def test_who_reads_no_more_than_an_older_version_refuses_what_has_keys() -> None:
    harness = Once(a=VERSION)
    harness.put("a")
    harness.settle_down()
    taken = harness.image.snapshot()[1]
    assert Image.restored(taken).digest() == harness.image.digest()
    with pytest.raises(InvalidEntry, match=f"version {VERSION}"):
        Image.restored(taken, reads=DATED_HOLDS)
