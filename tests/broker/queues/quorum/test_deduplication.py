"""A replicated queue that takes each message once, through changes of leader, by a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import (
    ARRIVALS,
    DATED_HOLDS,
    FIRST_VERSION,
    REMEMBERS,
    VERSION,
    decode,
    version_of,
)
from fluffle.broker.queues.quorum.facts import ArrivalsKnown, Arrived, InvalidEntry
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.wire import PlainValue
from fluffle.raft.election import TERM_STEP
from tests.broker.queues.deduplication_model import ReferenceDeduplication, keyed
from tests.broker.queues.quorum.entry_harness import EntryHarness
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.leader_harness import PLAIN, LeaderHarness, full, quorum
from tests.broker.queues.quorum.sample_facts import ORIGIN
from tests.broker.queues.quorum.session_clients import Operation, SessionClients
from tests.suite.seeds import machine_settings

SOURCE = 7


class Target:
    """A queue to which dead letters of another come."""

    def __init__(self, spec: QueueSpec = PLAIN, reads: int = ARRIVALS) -> None:
        self.harness = EntryHarness(spec)
        self.harness.readers = {"a 1": reads}
        self.harness.is_touched = True
        self.harness.settle_down()
        self.session = self.harness.session()
        self.next = 1

    def post(
        self,
        *sequences: int,
        source: int = SOURCE,
        term: int = 1,
        below: int = 1,
        settled: Iterable[int] = (),
    ) -> list[m.Effect]:
        """Effects of posting dead letters, once all is on record."""
        self.ask(*sequences, source=source, term=term, below=below, settled=settled)
        self.harness.settle_down()
        return self.harness.take()

    def ask(
        self,
        *sequences: int,
        source: int = SOURCE,
        term: int = 1,
        below: int = 1,
        settled: Iterable[int] = (),
    ) -> None:
        dead_letter_ids = DeadLetterIds(source, term, below, [*settled], [*sequences])
        contents = [b"dead %d" % sequence for sequence in sequences]
        first, self.next = self.next, self.next + len(contents)
        self.harness.led.publish(
            self.session, first, [ORIGIN] * len(contents), contents, dead_letter_ids=dead_letter_ids
        )

    def change_leader(self, kept: int = 0) -> None:
        self.harness.change_leader(kept, is_elsewhere=True)
        self.harness.settle_down()
        self.harness.take()

    @property
    def count(self) -> int:
        return self.harness.image.state.waiting_count

    @property
    def remembered(self) -> list[int]:
        sources = self.harness.image.state.sources
        assert self.harness.follower.state.sources == sources
        arrived = sources[SOURCE].arrived if SOURCE in sources else ()
        return [number for low, high in arrived for number in range(low, high)]


def test_what_is_given_again_is_confirmed_and_not_taken_twice() -> None:
    target = Target()
    assert target.post(5, 6) == [m.Effect(target.session, m.DoneReply(1, 2))]
    assert target.post(4, 5, 6, 7) == [
        m.Effect(target.session, m.DoneReply(3, 1)), m.Effect(target.session, m.DoneReply(4, 2)),
        m.Effect(target.session, m.DoneReply(6, 1)),
    ]  # fmt: skip
    assert (target.count, target.remembered) == (4, [4, 5, 6, 7])


def test_it_is_confirmed_again_only_once_it_is_on_record() -> None:
    target = Target()
    target.ask(5)
    target.ask(5)
    target.harness.turn()
    assert target.harness.take() == []
    target.harness.settle_down()
    assert target.harness.take() == [
        m.Effect(target.session, m.DoneReply(1, 1)),
        m.Effect(target.session, m.DoneReply(2, 1)),
    ]
    assert target.count == 1


def test_what_is_done_with_there_is_forgotten() -> None:
    target = Target()
    target.post(1, 2, 3, 4, 9)
    target.post(10, below=3, settled=[4, 9, 77])
    assert target.remembered == [3, 10]
    target.post(11, below=3, settled=[4])
    said = decode(target.harness.log[-1]).facts
    assert not any(isinstance(fact, ArrivalsKnown) for fact in said), "it is no news"
    assert target.remembered == [3, 10, 11]


def test_it_is_forgotten_though_some_that_it_is_said_with_are_known() -> None:
    """An edge that asks again begins with those that it has heard nothing of."""
    target = Target()
    target.post(5, 6)
    dead_letter_ids = DeadLetterIds(SOURCE, 1, 1, [5], [6, 7])
    harness = target.harness
    harness.led.publish(
        target.session, 2, [ORIGIN] * 2, [b"6", b"7"], dead_letter_ids=dead_letter_ids
    )
    harness.settle_down()
    assert (target.count, target.remembered) == (3, [6, 7])


def test_what_is_refused_has_not_arrived_and_may_be_given_again() -> None:
    target = Target(full(2))
    target.post(1, 2, 3)
    assert target.post(3, 4) == [
        m.Effect(target.session, m.DoneReply(4, 1)),
        m.Effect(target.session, m.RejectedReply(5, 1)),
    ]
    assert target.remembered == [1, 2, 3]
    target.harness.led.queue.purge()
    assert target.post(3, 4) == [
        m.Effect(target.session, m.DoneReply(6, 1)),
        m.Effect(target.session, m.DoneReply(7, 1)),
    ]
    assert target.remembered == [1, 2, 3, 4]


def test_who_led_before_is_not_listened_to_any_more() -> None:
    """Messages under way from it may have arrived and been forgotten."""
    target = Target()
    target.post(5, 6)
    target.post(7, term=2, below=7)
    assert target.remembered == [7]
    assert target.post(5, 8) == [m.Effect(target.session, m.RejectedReply(4, 2))]
    target.change_leader()
    assert target.post(5) == [m.Effect(target.session, m.RejectedReply(6, 1))]
    assert target.count == 3


def test_a_later_leader_is_known_though_all_was_here() -> None:
    target = Target()
    target.post(5)
    target.post(5, term=2)
    assert target.post(6) == [m.Effect(target.session, m.RejectedReply(3, 1))]


@pytest.mark.parametrize("elections", [0, 7])
def test_where_a_queue_went_on_alone_its_numbers_may_be_of_other_messages(elections: int) -> None:
    """Members with message 6 were given up, and after as many elections no member knew of it."""
    target = Target()
    target.post(5, 6, term=1 + elections)
    assert target.post(6, term=1 + TERM_STEP) == [m.Effect(target.session, m.DoneReply(3, 1))]
    assert (target.count, target.remembered) == (3, [6])
    assert target.post(6, 7, term=2 + TERM_STEP)[0] == m.Effect(target.session, m.DoneReply(4, 1))
    assert (target.count, target.remembered) == (4, [6, 7]), "who leads next has the same numbers"
    assert target.post(8, term=2 + elections) == [m.Effect(target.session, m.RejectedReply(6, 1))]
    target.change_leader()
    target.post(6, 7, term=2 + TERM_STEP)
    assert (target.count, target.remembered) == (4, [6, 7])


def test_of_a_queue_that_is_gone_nothing_is_remembered_or_taken() -> None:
    target = Target()
    target.post(5)
    target.harness.deleted.add(SOURCE)
    target.post(1, source=SOURCE + 1)
    assert SOURCE not in target.harness.image.state.sources
    assert target.post(5) == [m.Effect(target.session, m.RejectedReply(3, 1))]
    target.harness.deleted.add(SOURCE + 1)
    target.change_leader()
    assert target.harness.image.state.sources == {}


def test_of_a_queue_that_is_not_known_yet_nothing_is_forgotten() -> None:
    """The former leader has heard of that queue."""
    target = Target()
    target.post(5)
    target.harness.unknown.add(SOURCE)
    target.post(1, source=SOURCE + 1)
    target.change_leader()
    assert target.remembered == [5]
    assert target.post(5) == [m.Effect(target.session, m.DoneReply(3, 1))]
    assert target.count == 2


def test_what_comes_of_one_that_is_not_known_yet_is_taken_later() -> None:
    target = Target()
    target.harness.unknown.add(SOURCE)
    assert target.post(5) == [m.Effect(target.session, m.RejectedReply(1, 1))]
    target.harness.unknown.clear()
    assert target.post(5) == [m.Effect(target.session, m.DoneReply(2, 1))]


def test_where_a_member_does_not_read_it_yet_none_of_it_is_written() -> None:
    target = Target(reads=DATED_HOLDS)
    target.post(5)
    target.post(5)
    assert target.count == 1, "whoever leads knows it all the same"
    assert target.remembered == []
    for entry in target.harness.log:
        decode(entry, DATED_HOLDS)
    target.change_leader()
    target.post(6, term=2)
    target.harness.deleted.add(SOURCE)
    target.post(1, source=SOURCE + 1)
    assert target.harness.image.state.sources == {}
    restored_image(take_snapshot(target.harness.image)[1], DATED_HOLDS)


@pytest.mark.parametrize(
    "fact", [Arrived(SOURCE, 1, [range(9, 10)]), ArrivalsKnown(SOURCE, 1, 1, [])]
)
def test_what_contradicts_it_is_unfit(fact: Arrived | ArrivalsKnown) -> None:
    target = Target()
    target.post(5, term=2)
    target.harness.led._builder.add_fact(fact)
    target.harness.is_touched = True
    with pytest.raises(InvalidEntry):
        target.harness.settle_down()


def test_what_was_not_written_before_all_read_it_may_be_gone_after() -> None:
    target = Target(reads=DATED_HOLDS)
    target.post(5)
    target.harness.readers = {"a 1": ARRIVALS}
    target.harness.is_touched = True
    target.harness.settle_down()
    target.post(6, below=6)
    assert target.remembered == [6]
    target.harness.deleted.add(SOURCE)
    target.post(1, source=SOURCE + 1)
    assert SOURCE not in target.harness.image.state.sources


def test_one_that_was_never_on_record_may_be_gone() -> None:
    target = Target(reads=DATED_HOLDS)
    target.post(5)
    target.harness.readers = {"a 1": ARRIVALS}
    target.harness.is_touched = True
    target.harness.settle_down()
    target.harness.deleted.add(SOURCE)
    target.post(1, source=SOURCE + 1)
    assert [*target.harness.image.state.sources] == [SOURCE + 1]


def test_while_it_is_about_to_be_on_record_that_all_read_it_none_is_taken() -> None:
    """The next leader would know nothing of those that came before."""
    target = Target(reads=DATED_HOLDS)
    target.harness.readers = {"a 1": ARRIVALS}
    assert target.post(5) == [m.Effect(target.session, m.RejectedReply(1, 1))]
    assert target.post(5) == [m.Effect(target.session, m.DoneReply(2, 1))]
    target.change_leader()
    target.post(5, term=2)
    assert (target.count, target.remembered) == (1, [5])


def test_what_is_here_is_confirmed_while_a_member_is_added() -> None:
    target = Target()
    target.post(5)
    target.harness.readers = {"a 1": ARRIVALS, "b 1": ARRIVALS}
    assert target.post(5, 6) == [
        m.Effect(target.session, m.DoneReply(2, 1)),
        m.Effect(target.session, m.RejectedReply(3, 1)),
    ]
    assert target.post(5, 6) == [
        m.Effect(target.session, m.DoneReply(4, 1)),
        m.Effect(target.session, m.DoneReply(5, 1)),
    ]
    assert (target.count, target.remembered) == (2, [5, 6])


def test_what_was_taken_before_a_member_is_added_is_remembered() -> None:
    """Its entry is written after that, in the version under which it was decided."""
    target = Target()
    target.ask(5)
    target.harness.readers = {"a 1": ARRIVALS, "b 1": 0}
    target.harness.settle_down()
    target.change_leader()
    target.post(5, term=2)
    assert (target.count, target.remembered) == (1, [5])


def test_a_member_that_cannot_read_what_is_remembered_does_not_take_it() -> None:
    target = Target()
    target.ask(5)
    target.harness.readers = {"a 1": ARRIVALS, "b 1": DATED_HOLDS}
    target.harness.settle_down()
    assert version_of(target.harness.log[-1]) == ARRIVALS
    older = QueueImage(reads=DATED_HOLDS)
    with pytest.raises(InvalidEntry, match="run the one that the other members run"):
        older.apply(1, target.harness.log[-1])


@pytest.mark.parametrize("version", [FIRST_VERSION, DATED_HOLDS])
def test_what_all_cannot_read_is_not_decided(version: int) -> None:
    """Messages and known keys alike are kept out of the log: some members would refuse such
    entries."""
    target = Target()
    target.post(5, 6)
    before = len(target.harness.log)
    target.harness.readers = {"a 1": ARRIVALS, "b 1": version}
    target.post(7, below=6, settled=[5])
    target.harness.deleted.add(SOURCE)
    target.change_leader()
    target.post(1, source=SOURCE + 1)
    assert max(version_of(entry) for entry in target.harness.log[before:]) == version


def test_a_member_of_which_nothing_is_heard_keeps_nobody_waiting() -> None:
    target = Target(reads=DATED_HOLDS)
    target.harness.readers = {"a 1": ARRIVALS, "b 1": 0}
    assert target.post(5) == [m.Effect(target.session, m.DoneReply(1, 1))]
    target.harness.readers = {"a 1": ARRIVALS, "b 1": ARRIVALS}
    target.post(6)
    target.harness.readers = {"a 1": ARRIVALS, "b 1": 0}
    assert target.post(7) == [m.Effect(target.session, m.DoneReply(3, 1))]
    target.harness.readers = {"a 1": 0, "b 1": ARRIVALS, "c 1": ARRIVALS}
    assert target.post(8) == [m.Effect(target.session, m.RejectedReply(4, 1))], (
        "a has said so, and is away"
    )


def test_of_a_run_that_does_not_fit_no_more_is_remembered_than_is_taken() -> None:
    """Refused messages are sent again, and accepted once there is room."""
    target = Target(full(3))
    reported = target.post(5, 6, 7, 8, 9, 10)
    assert reported == [
        m.Effect(target.session, m.DoneReply(1, 4)),
        m.Effect(target.session, m.RejectedReply(5, 2)),
    ]
    assert (target.count, target.remembered) == (4, [5, 6, 7, 8])
    target.harness.led.purge(target.session, 7)
    target.next = 8
    target.post(9, 10)
    assert (target.count, target.remembered) == (2, [5, 6, 7, 8, 9, 10])


EXAMPLES = (test_while_it_is_about_to_be_on_record_that_all_read_it_none_is_taken,)
"""Test that finds a mistake which needs a rare coincidence: see the simulator."""


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
        """Key and time of a message, by number; None: a purge."""
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
        return sum(fact.count for fact in facts if isinstance(fact, f.OperationsDone))

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
        """Check the log against the model's result for each operation; duplicates are not in it,
        and are confirmed like all others."""
        model = ReferenceDeduplication(SIZE, TTL_MS)
        assert self.confirmed == {*self.contents.values()}
        for entry in self.log:
            batch = decode(entry)
            for fact in batch.facts:
                match fact:
                    case f.Published() | f.OperationsDone():
                        for number in range(fact.first, fact.first + fact.count):
                            said = self.asked[number]
                            assert said is not None
                            is_accepted = model.comes(*said, batch.stamp_ms)
                            assert is_accepted == isinstance(fact, f.Published), said
                            if not is_accepted:
                                self.confirmed.remove(self.contents[number])
                            model.turn_page()
                    case f.OperationDoneWithAnswer():
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
    assert take_snapshot(harness.image)[1][0] == FIRST_VERSION


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
    version, taken = harness.image.version, take_snapshot(harness.image)[1]
    assert version < REMEMBERS
    assert restored_image(taken).state.window is None


def test_who_reads_no_more_than_an_older_version_refuses_what_has_keys() -> None:
    harness = Once(a=VERSION)
    harness.put("a")
    harness.settle_down()
    taken = take_snapshot(harness.image)[1]
    assert image_digest(restored_image(taken)) == image_digest(harness.image)
    with pytest.raises(InvalidEntry, match=f"version {VERSION}"):
        restored_image(taken, reads=DATED_HOLDS)
