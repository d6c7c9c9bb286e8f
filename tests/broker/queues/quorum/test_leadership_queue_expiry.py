"""x-expires, as the leader of a quorum queue has it: it goes by what is on record, too."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from fluffle.broker.queues.quorum.entry_codec import decode
from fluffle.broker.queues.quorum.facts import ConsumerAttached, Detached, GetterAttached
from fluffle.broker.queues.quorum.holders import Terms
from tests.broker.queues.quorum.entry_harness import with_consumer
from tests.broker.queues.quorum.leader_harness import LeaderHarness, quorum
from tests.broker.queues.quorum.random_steps import change_leader, rest
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES
from tests.suite.seeds import seeds

EXPIRES_MS = 1_000
SPEC = quorum(expires=EXPIRES_MS)


def pass_time(harness: LeaderHarness, by_ms: int) -> None:
    """And no entry is applied meanwhile."""
    harness.now_ms += by_ms
    harness.is_touched = True
    harness.turn()


def test_a_queue_goes_once_it_is_on_record_that_its_last_consumer_has_left() -> None:
    harness, session, consumer = with_consumer(spec=SPEC)
    harness.led.detach(session, 2, consumer)
    pass_time(harness, 0)
    pass_time(harness, 2 * EXPIRES_MS)
    assert harness.queue_expired == 0, "for whoever leads next it is still there"
    harness.settle_down()
    assert harness.queue_expired == 1
    pass_time(harness, EXPIRES_MS)
    assert harness.queue_expired == 1


def test_the_time_does_not_begin_anew_with_that() -> None:
    harness, session, consumer = with_consumer(spec=SPEC)
    harness.led.detach(session, 2, consumer)
    pass_time(harness, EXPIRES_MS - 1)
    harness.settle_down()
    assert harness.queue_expired == 0
    pass_time(harness, 1)
    assert harness.queue_expired == 1


def test_a_queue_stays_if_the_next_leader_has_the_consumer() -> None:
    harness, session, consumer = with_consumer(spec=SPEC)
    harness.led.detach(session, 2, consumer)
    pass_time(harness, 0)
    pass_time(harness, 2 * EXPIRES_MS)
    harness.change_leader(0, is_elsewhere=True)
    pass_time(harness, 2 * EXPIRES_MS)
    harness.settle_down()
    assert harness.queue_expired == 0
    assert harness.led.queue.consumer_count == 1


def test_whoever_comes_before_that_is_on_record_keeps_it() -> None:
    harness, session, consumer = with_consumer(spec=SPEC)
    harness.led.detach(session, 2, consumer)
    pass_time(harness, 0)
    pass_time(harness, 2 * EXPIRES_MS)
    harness.led.attach(session, 3, Terms(1, "tag"))
    harness.settle_down()
    pass_time(harness, 2 * EXPIRES_MS)
    assert harness.queue_expired == 0


def test_a_queue_that_was_used_after_it_was_to_go_goes_by_its_log_again() -> None:
    """Its deletion may be decided long after it was said that nobody uses it."""
    harness, session, consumer = with_consumer(spec=SPEC)
    harness.led.detach(session, 2, consumer)
    harness.settle_down()
    pass_time(harness, EXPIRES_MS)
    assert (harness.queue_expired, harness.led.is_queue_expired) == (1, True)
    harness.led.attach(session, 3, Terms(1, "tag"))
    harness.settle_down()
    assert not harness.led.is_queue_expired
    harness.led.detach(session, 4, max(harness.image.state.holders))
    pass_time(harness, 0)
    pass_time(harness, EXPIRES_MS)
    assert not harness.led.is_queue_expired
    harness.settle_down()
    assert (harness.queue_expired, harness.led.is_queue_expired) == (2, True)
    harness.led.end()
    assert not harness.led.is_queue_expired


class Expiring(LeaderHarness):
    """A queue that expires, and what its log says of its use."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.on_record: set[int] = set()
        """Consumers, by key."""
        self.used_ms = 0
        """No later than it was used last, by the log."""
        self._stamp_ms = 0

    def apply(self, payload: bytes) -> None:
        super().apply(payload)
        batch = decode(payload)
        for fact in batch.facts:
            if isinstance(fact, ConsumerAttached):
                self.on_record.add(fact.key)
            elif isinstance(fact, Detached) and fact.key in self.on_record:
                self.on_record.remove(fact.key)
                self.used_ms = self._stamp_ms
            elif isinstance(fact, GetterAttached):
                self.used_ms = self._stamp_ms
        self._stamp_ms = batch.stamp_ms

    def look(self) -> None:
        """Check that the queue expires no sooner than its log allows: from then on it may be
        deleted."""
        if self.led.is_queue_expired:
            assert not self.on_record
            assert self.now_ms >= self.used_ms + EXPIRES_MS

    def on_queue_expired(self) -> None:
        super().on_queue_expired()
        self.look()

    def leave(self) -> None:
        """All clients do."""
        for edge in self.edges:
            self.detach(edge, [*edge.consumers], None)


def use(harness: Expiring, chance: Random) -> None:
    """Use the queue in a way that counts for its expiry."""
    edge = chance.choice(harness.edges)
    things: list[tuple[float, Callable[[], Any]]] = [
        (1, lambda: harness.attach(edge)),
        (3, lambda: harness.detach(edge, [*edge.consumers][:1], None)),
        (0.3, lambda: harness.get(edge, no_ack=True)),
        (4, lambda: pass_time(harness, chance.randint(0, EXPIRES_MS // 2))),
        (3, harness.turn),
        (3, harness.commit),
        (0.3, lambda: change_leader(harness, chance)),
    ]
    weights = [weight for weight, _do in things]
    chance.choices([do for _weight, do in things], weights)[0]()
    harness.look()


def whatever(seed: int) -> None:
    chance, harness = Random(seed), Expiring()
    harness.open_edge()
    harness.open_edge()
    for _ in range(200):
        use(harness, chance)
    harness.attach(harness.edges[0])
    rest(harness)
    before = harness.queue_expired
    harness.leave()
    pass_time(harness, chance.choice((0, 2 * EXPIRES_MS)))
    rest(harness)
    for _ in range(3):
        pass_time(harness, EXPIRES_MS)
    assert harness.queue_expired == before + 1
    assert harness.led.is_queue_expired


@seeds(15)
def test_whatever_happens_a_queue_goes_when_its_log_allows_it(seed: int) -> None:
    whatever(seed)


@FAMILIES["unused"].each()
def test_a_leader_that_is_too_quick_is_found(mutant: Mutant) -> None:
    """The model is tested."""
    with mutant.in_place():
        assert any(disappoints(seed) for seed in range(30)), mutant.mistake


def disappoints(seed: int) -> bool:
    try:
        whatever(seed)
    except AssertionError:
        return True
    return False
