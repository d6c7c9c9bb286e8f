"""x-expires, as the leader of a quorum queue has it: it goes by what is on record, too."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from fluffle.broker.queues.quorum.consumer_terms import Terms
from fluffle.broker.queues.quorum.encoding import decode
from fluffle.broker.queues.quorum.facts import ConsumerAttached, Detached, GetterAttached
from tests.broker.queues.quorum.leading import Bench, quorum
from tests.broker.queues.quorum.steps import change_leader, rest
from tests.broker.queues.quorum.telling import with_consumer
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES
from tests.suite.seeds import seeds

EXPIRES_MS = 1_000
SPEC = quorum(expires=EXPIRES_MS)


def pass_time(bench: Bench, by_ms: int) -> None:
    """And no entry is applied meanwhile."""
    bench.now_ms += by_ms
    bench.is_touched = True
    bench.turn()


def test_a_queue_goes_once_it_is_on_record_that_its_last_consumer_has_left() -> None:
    bench, session, consumer = with_consumer(spec=SPEC)
    bench.led.detach(session, 2, consumer)
    pass_time(bench, 0)
    pass_time(bench, 2 * EXPIRES_MS)
    assert bench.disused == 0, "for whoever leads next it is still there"
    bench.settle_down()
    assert bench.disused == 1
    pass_time(bench, EXPIRES_MS)
    assert bench.disused == 1


def test_the_time_does_not_begin_anew_with_that() -> None:
    bench, session, consumer = with_consumer(spec=SPEC)
    bench.led.detach(session, 2, consumer)
    pass_time(bench, EXPIRES_MS - 1)
    bench.settle_down()
    assert bench.disused == 0
    pass_time(bench, 1)
    assert bench.disused == 1


def test_a_queue_stays_if_the_next_leader_has_the_consumer() -> None:
    bench, session, consumer = with_consumer(spec=SPEC)
    bench.led.detach(session, 2, consumer)
    pass_time(bench, 0)
    pass_time(bench, 2 * EXPIRES_MS)
    bench.change_leader(0, is_elsewhere=True)
    pass_time(bench, 2 * EXPIRES_MS)
    bench.settle_down()
    assert bench.disused == 0
    assert bench.led.queue.consumer_count == 1


def test_whoever_comes_before_that_is_on_record_keeps_it() -> None:
    bench, session, consumer = with_consumer(spec=SPEC)
    bench.led.detach(session, 2, consumer)
    pass_time(bench, 0)
    pass_time(bench, 2 * EXPIRES_MS)
    bench.led.attach(session, 3, Terms(1, "tag"))
    bench.settle_down()
    pass_time(bench, 2 * EXPIRES_MS)
    assert bench.disused == 0


def test_a_queue_that_was_used_after_it_was_to_go_goes_by_its_log_again() -> None:
    """Its deletion may be decided long after it was said that nobody uses it."""
    bench, session, consumer = with_consumer(spec=SPEC)
    bench.led.detach(session, 2, consumer)
    bench.settle_down()
    pass_time(bench, EXPIRES_MS)
    assert (bench.disused, bench.led.is_disused) == (1, True)
    bench.led.attach(session, 3, Terms(1, "tag"))
    bench.settle_down()
    assert not bench.led.is_disused
    bench.led.detach(session, 4, max(bench.image.state.holders))
    pass_time(bench, 0)
    pass_time(bench, EXPIRES_MS)
    assert not bench.led.is_disused
    bench.settle_down()
    assert (bench.disused, bench.led.is_disused) == (2, True)
    bench.led.end()
    assert not bench.led.is_disused


class Expiring(Bench):
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
        """It goes no sooner than its log allows: it may be deleted at any time from now on."""
        if self.led.is_disused:
            assert not self.on_record
            assert self.now_ms >= self.used_ms + EXPIRES_MS

    def on_disused(self) -> None:
        super().on_disused()
        self.look()

    def leave(self) -> None:
        """All clients do."""
        for edge in self.edges:
            self.detach(edge, [*edge.consumers], None)


def use(bench: Expiring, chance: Random) -> None:
    """Something happens that counts for how long a queue is there."""
    edge = chance.choice(bench.edges)
    things: list[tuple[float, Callable[[], Any]]] = [
        (1, lambda: bench.attach(edge)),
        (3, lambda: bench.detach(edge, [*edge.consumers][:1], None)),
        (0.3, lambda: bench.get(edge, no_ack=True)),
        (4, lambda: pass_time(bench, chance.randint(0, EXPIRES_MS // 2))),
        (3, bench.turn),
        (3, bench.commit),
        (0.3, lambda: change_leader(bench, chance)),
    ]
    weights = [weight for weight, _do in things]
    chance.choices([do for _weight, do in things], weights)[0]()
    bench.look()


def whatever(seed: int) -> None:
    chance, bench = Random(seed), Expiring()
    bench.open_edge()
    bench.open_edge()
    for _ in range(200):
        use(bench, chance)
    bench.attach(bench.edges[0])
    rest(bench)
    before = bench.disused
    bench.leave()
    pass_time(bench, chance.choice((0, 2 * EXPIRES_MS)))
    rest(bench)
    for _ in range(3):
        pass_time(bench, EXPIRES_MS)
    assert bench.disused == before + 1
    assert bench.led.is_disused


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
