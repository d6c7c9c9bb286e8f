"""Republishing of dead letters.  What RabbitMQ makes of the same is compared in `tests/compat`;
here is what no client can bring about yet, and what must be so inside."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE, REPEATED_AFTER_MS
from fluffle.broker.base.message import MessageAnnotations
from fluffle.broker.base.traffic import DISABLED, Deaths, DropReason
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.arguments import Declaration, QueueType
from fluffle.broker.queues.dead_letters import DeadMessages, PendingDeadLetter
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.publish_target import EnqueueResult, PublishReceipt
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, Outcome, SharedCredit
from fluffle.broker.queues.settings import DeadLetterStrategy, QueueSettings
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.transfer.dead_letters import DeadLetters
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.headers import DeathReason, deaths_of
from fluffle.protocol.properties import (
    Properties,
    build_content,
    decode_properties,
    encode_properties,
    raw_properties,
)
from fluffle.protocol.wire import FieldTable, to_table
from tests.broker.queues.queue_harness import FakeSink
from tests.support.definitions import VhostEditor
from tests.support.manual_clock import ManualClock
from tests.support.queue_host import FakeTurn


class Harness:
    """A virtual host whose queues dead-letter to each other by the default exchange."""

    def __init__(self) -> None:
        self.clock = ManualClock(wall_ms=7_999)
        self.deaths = Deaths()
        self.dropped = self.deaths.dropped
        self.dead_letters = DeadLetters(self._find, self.clock, self.deaths)
        maker = LocalQueues(FakeTurn(), dead_letter=self.dead_letters.publish)
        self.vhost = VirtualHost("/", maker, pick=Random(1).randrange)

    def _find(self, name: str) -> VirtualHost | None:
        return self.vhost if name == self.vhost.name else None

    def declare(self, name: str, to: str | None = None) -> Queue:
        arguments: FieldTable = {}
        if to is not None:
            arguments = to_table({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": to})
        return VhostEditor(self.vhost).declare_queue(Declaration(name, arguments=arguments), None)

    def publish(self, queue: Queue, *properties: Properties) -> None:
        contents = [build_content(encode_properties(each), b"body") for each in properties]
        origins = [self.vhost.origin("", queue.name)] * len(contents)
        queue.enqueue(origins, contents, sum(map(len, contents)))

    def die(self, queue: Queue, reason: DeathReason) -> None:
        """The next message of a queue dies for a reason."""
        delivery_batch = take(queue)
        dead = DeadMessages(reason, delivery_batch.origins[:], delivery_batch.contents[:])
        queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
        self.dead_letters.publish("/", queue.name, queue.settings, dead)


def take(queue: Queue) -> DeliveryBatch:
    """The next message, in somebody's hands."""
    anybody = Consumer("anybody", queue, FakeSink(), shared=SharedCredit())
    delivery_batch = queue.get(anybody)
    assert delivery_batch is not None
    return delivery_batch


def reject(queue: Queue) -> None:
    queue.settle(take(queue), 0, 1, Outcome.REJECTED)


def headers_of(delivery_batch: DeliveryBatch) -> FieldTable:
    headers = decode_properties(raw_properties(delivery_batch.contents[0])).headers
    assert headers is not None
    return headers


def test_a_rejected_message_is_in_the_other_queue_at_once() -> None:
    place = Harness()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    place.publish(queue, Properties())
    reject(queue)
    assert (queue.ready_count, queue.in_flight, dead.ready_count) == (0, 0, 1)
    delivery_batch = take(dead)
    [death] = deaths_of(headers_of(delivery_batch))
    assert death["time"] == ("T", 7)
    assert delivery_batch.origins[0].past is MessageAnnotations.REDIRECTED


def test_messages_that_die_together_stay_in_order_and_are_distinguished() -> None:
    place = Harness()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    kinds = [Properties(priority=1), Properties(priority=2), Properties(delivery_mode=2)]
    place.publish(queue, *kinds, *kinds)
    delivery_batches = [take(queue) for _ in range(6)]
    contents = [
        content for delivery_batch in delivery_batches for content in delivery_batch.contents
    ]
    origins = [origin for delivery_batch in delivery_batches for origin in delivery_batch.origins]
    died = DeadMessages(DeathReason.MAXLEN, origins, contents)
    place.dead_letters.publish("/", queue.name, queue.settings, died)
    seen = [decode_properties(raw_properties(take(dead).contents[0])) for _ in range(6)]
    assert [(each.priority, each.delivery_mode) for each in seen] == [
        (kind.priority, kind.delivery_mode) for kind in (*kinds, *kinds)
    ]


def test_where_chance_leads_is_asked_for_each_and_all_are_kept_on_their_way() -> None:
    place = Harness()
    topology, queue = place.vhost.topology, place.declare("q", to="any")
    to_dice = QueueSettings(dead_letter_exchange="dice")
    topology.put_exchange(ExchangeSpec("dice", "x-random"))
    names = [f"dead {number}" for number in range(3)]
    for name in names:
        place.declare(name)
        topology.put_exchange(ExchangeSpec(name, "x-recent-history"))
        topology.put_binding(Binding("dice", name, DestinationKind.EXCHANGE, ""))
        topology.put_binding(Binding(name, name, DestinationKind.QUEUE, ""))
    place.publish(queue, *[Properties(delivery_mode=2)] * 60)
    delivery_batches = [take(queue) for _ in range(60)]
    contents = [
        content for delivery_batch in delivery_batches for content in delivery_batch.contents
    ]
    origins = [origin for delivery_batch in delivery_batches for origin in delivery_batch.origins]
    died = DeadMessages(DeathReason.MAXLEN, origins, contents)
    place.dead_letters.publish("/", "q", to_dice, died)
    counts = [place.vhost.queues[name].ready_count for name in names]
    assert sum(counts) == 60
    assert min(counts) > 8
    for name, count in zip(names, counts, strict=True):
        history = topology.require(name).history
        assert history is not None
        kept = list(history)
        assert len(kept) == min(count, 20)
        assert {(each.origin.exchange, each.persistent) for each in kept} == {("dice", True)}


def test_the_time_on_record_counts() -> None:
    place = Harness()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    content = build_content(encode_properties(Properties()), b"")
    origin = place.vhost.origin("", "q")
    died = DeadMessages(DeathReason.DELIVERY_LIMIT, [origin], [content], time_ms=3_500)
    place.dead_letters.publish("/", queue.name, queue.settings, died)
    assert deaths_of(headers_of(take(dead)))[0]["time"] == ("T", 3)


def test_what_goes_round_by_itself_is_dropped_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Harness()
    there, back = place.declare("there", to="back"), place.declare("back", to="there")
    for _ in range(2):
        place.publish(there, Properties())
        place.die(there, DeathReason.EXPIRED)
        assert back.ready_count == 1
        place.die(back, DeathReason.DELIVERY_LIMIT)
        assert there.ready_count == back.ready_count == 0
    assert caplog.messages.count("dead_letters_dropped") == 1
    assert place.dropped == {DropReason.CYCLE: 2}


def test_what_gets_through_to_nobody_for_long_does_not_fill_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = Harness()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    monkeypatch.setattr(Queue, "is_full", property(lambda queue: queue is dead))
    for _ in range(13):
        place.publish(queue, Properties())
        reject(queue)
        place.clock.advance(1_000)
    assert (dead.ready_count, queue.in_flight) == (11, 0)
    assert caplog.messages.count("dead_letters_dropped") == 1
    assert place.dropped == {DropReason.NO_ROOM: 2}
    place.clock.advance(1_000)
    place.publish(queue, Properties())
    reject(queue)
    assert dead.ready_count == 12, "it may have had room meanwhile"
    monkeypatch.undo()
    place.publish(queue, Properties())
    reject(queue)
    assert dead.ready_count == 13


def test_what_the_other_queue_refuses_is_counted_and_logged_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The queue is full, or its home is down; it refuses at once, or later and in part."""
    place = Harness()
    place.declare("dead")
    queue = place.declare("q", to="dead")
    results: list[EnqueueResult | PublishReceipt] = [EnqueueResult.REJECTED, EnqueueResult.ACCEPTED]
    results += [PublishReceipt(1), PublishReceipt(1), EnqueueResult.REJECTED]

    def die_into(result: EnqueueResult | PublishReceipt) -> None:
        place.publish(queue, Properties())
        with monkeypatch.context() as patched:
            patched.setattr(Queue, "enqueue", lambda *_args, **_options: result)
            reject(queue)
        if isinstance(result, PublishReceipt):
            result.on_outcome(0, 1, is_accepted=result is results[2])

    for result, gone in zip(results, (1, 1, 1, 2, 3), strict=True):
        die_into(result)
        assert place.dropped[DropReason.REFUSED] == gone
    assert caplog.messages.count("dead_letters_dropped") == 1
    place.clock.advance(REPEATED_AFTER_MS)
    die_into(EnqueueResult.REJECTED)
    assert caplog.messages.count("dead_letters_dropped") == 2
    fields = getattr(caplog.records[-1], FIELDS_ATTRIBUTE)
    assert fields == {"reason": "refused", "vhost": "/", "queues": "dead"}


def test_what_a_client_rejects_may_go_round() -> None:
    place = Harness()
    there, back = place.declare("there", to="back"), place.declare("back", to="there")
    place.publish(there, Properties())
    for _ in range(3):
        reject(there)
        place.die(back, DeathReason.EXPIRED)
        assert there.ready_count == 1


def test_a_queue_that_is_gone_and_a_virtual_host_that_is_take_nothing() -> None:
    place = Harness()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    place.publish(queue, Properties(), Properties())
    VhostEditor(place.vhost).delete_queue(dead)
    reject(queue)
    place.vhost.name = "another"
    reject(queue)
    assert (queue.ready_count, queue.in_flight) == (0, 0)


def test_what_died_meanwhile_does_not_suffer_for_what_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Harness()
    broken, dead = place.declare("broken"), place.declare("dead")
    first, second = place.declare("first", to="broken"), place.declare("second", to="dead")
    place.publish(first, Properties())
    place.publish(second, Properties(), Properties())
    enqueue = Queue.enqueue
    failures: list[OSError] = []

    def fail(queue: Queue, *what: Any, **how: Any) -> Any:
        if queue is not broken:
            return enqueue(queue, *what, **how)
        if not failures:
            place.die(second, DeathReason.MAXLEN)
            place.publish(first, Properties())
            place.die(first, DeathReason.MAXLEN)
            place.die(second, DeathReason.MAXLEN)
        failures.append(OSError())
        raise failures[-1]

    monkeypatch.setattr(Queue, "enqueue", fail)
    with pytest.raises(ExceptionGroup) as raised:
        place.die(first, DeathReason.MAXLEN)
    assert raised.value.exceptions == tuple(failures)
    assert len(failures) == dead.ready_count == 2
    place.publish(first, Properties())
    with pytest.raises(OSError, match=r"^$"):
        place.die(first, DeathReason.MAXLEN)
    assert place.deaths.died.total() == 5


class Safe:
    """Fake commits: what is recorded is on disk when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, act: Callable[[], None]) -> None:
        self.waiting.append(act)

    def commit(self) -> None:
        waiting, self.waiting = self.waiting, []
        for act in waiting:
            act()


class Sent:
    """A message that must arrive where a queue's dead letters go, tried as often as is wanted."""

    def __init__(self, place: Harness, queue: Queue, settings: QueueSettings | None = None) -> None:
        self.said: list[bool] = []
        self.parcel = PendingDeadLetter(lambda *, is_there: self.said.append(is_there))
        self.hasten: Callable[[], None] = lambda: None
        self._settings = settings or queue.settings
        self._place, self._queue = place, queue
        place.publish(queue, Properties(delivery_mode=2))
        delivery_batch = take(queue)
        self._message = delivery_batch.origins[:], delivery_batch.contents[:]

    def send(self) -> list[bool]:
        """Results of this try so far."""
        died = DeadMessages(
            DeathReason.REJECTED, *self._message, parcels=[self.parcel], hasten=self.hasten
        )
        self._place.dead_letters.publish("/", self._queue.name, self._settings, died)
        said, self.said = self.said, []
        return said


def test_what_must_arrive_has_when_it_is_in_a_queue_here() -> None:
    place = Harness()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    assert True in Sent(place, queue).send()
    assert dead.ready_count == 1


def test_what_is_recorded_has_arrived_once_it_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    safe, place = Safe(), Harness()
    place.dead_letters = DeadLetters(place._find, place.clock, place.deaths, safe)
    place.declare("dead")
    sent = Sent(place, place.declare("q", to="dead"))
    monkeypatch.setattr(Queue, "enqueue", lambda *_, **__: EnqueueResult.RECORDED)
    assert not sent.send()
    safe.commit()
    assert sent.said == [True]


def test_what_must_arrive_and_leads_nowhere_is_kept_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Harness()
    queue = place.declare("q", to="dead")
    for settings in (
        queue.settings,
        QueueSettings(dead_letter_exchange="none"),
        QueueSettings(),
    ):
        sent = Sent(place, queue, settings)
        assert sent.send() == [False]
        assert sent.send() == [False]
    noted = [getattr(record, FIELDS_ATTRIBUTE) for record in caplog.records]
    assert noted == [{"reason": "no_route", "vhost": "/", "queues": "q"}]
    place.declare("dead")
    sent = Sent(place, queue)
    assert True in sent.send()
    assert not place.dropped


def test_who_refuses_what_must_arrive_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Harness()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    sent = Sent(place, queue)
    receipt = PublishReceipt(1)
    for result in (EnqueueResult.REJECTED, receipt):
        monkeypatch.setattr(Queue, "enqueue", lambda *_, result=result, **__: result)
        said = sent.send()
        assert said == ([] if result is receipt else [False])
    receipt.on_outcome(0, 1, is_accepted=False)
    assert sent.said == [False]
    receipt.on_outcome(0, 1, is_accepted=True)
    assert sent.said == [False, True]
    monkeypatch.setattr(Queue, "is_full", property(lambda _queue: True))
    assert Sent.send(sent) != [False], "it is there"
    monkeypatch.undo()
    other = Sent(place, queue)
    monkeypatch.setattr(Queue, "is_full", property(lambda _queue: True))
    assert other.send() == [False]
    assert (dead.ready_count, place.dropped) == (0, Counter())


def test_a_queue_of_the_same_name_is_another_one() -> None:
    place = Harness()
    first, queue = place.declare("first"), place.declare("q", to="any")
    place.declare("second")
    to_first, to_second = (
        Binding("amq.fanout", name, DestinationKind.QUEUE, "") for name in ("first", "second")
    )
    place.vhost.topology.put_binding(to_first)
    place.vhost.topology.put_binding(to_second)
    to_both = QueueSettings(dead_letter_exchange="amq.fanout")
    sent = Sent(place, queue, to_both)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Queue, "is_full", property(lambda queue: queue is not first))
        assert sent.send() == [False]
        assert first.ready_count == 1
    VhostEditor(place.vhost).delete_queue(first)
    again = place.declare("first")
    place.vhost.topology.put_binding(to_first)
    assert True in sent.send()
    assert again.ready_count == 1


def test_who_keeps_what_cannot_arrive_is_notified_once_that_it_may() -> None:
    place = Harness()
    queue = place.declare("q", to="dead")
    reported: list[str] = []
    sent = Sent(place, queue)
    sent.hasten = lambda: reported.append("hasten")
    place.dead_letters.hasten()
    assert not reported, "nothing waits"
    sent.send()
    sent.send()
    place.dead_letters.hasten()
    place.dead_letters.hasten()
    assert reported == ["hasten"]
    place.declare("dead")
    assert True in sent.send()
    place.dead_letters.hasten()
    assert reported == ["hasten"]


def test_deaths_and_arrivals_are_counted_once() -> None:
    place = Harness()
    queue = place.declare("q", to="dead")
    sent, kind = Sent(place, queue), (QueueType.CLASSIC, DeadLetterStrategy.AT_MOST_ONCE)
    sent.send()
    sent.send()
    place.declare("dead")
    sent.send()
    sent.send()
    assert place.deaths.died == {(*kind, DeathReason.REJECTED): 1}
    assert place.deaths.confirmed == 1
    place.publish(queue, Properties())
    reject(queue)
    assert place.deaths.died == {(*kind, DeathReason.REJECTED): 2}


def test_a_long_row_of_queues_without_room_is_gone_through() -> None:
    """Not one inside another: there are more queues than calls could stand in each other."""
    place, count = Harness(), 100
    for number in range(count):
        arguments = to_table(
            {
                "x-max-length": 0,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": f"q{number + 1}",
            }
        )
        declared = Declaration(f"q{number}", arguments=arguments)
        VhostEditor(place.vhost).declare_queue(declared, None)
    last = place.declare(f"q{count}")
    first = place.vhost.queues["q0"]
    assert isinstance(first, Queue)
    with calls_deep(count):
        place.publish(first, Properties())
    assert last.ready_count == 1
    assert place.dropped.total() == 0


@contextmanager
def calls_deep(count: int) -> Iterator[None]:
    """RecursionError for more than so many calls inside one another."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + count)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def test_what_nobody_wants_is_counted() -> None:
    """RabbitMQ does so if no exchange is named, or if it does not exist."""
    place = Harness()
    plain, astray = place.declare("plain"), place.declare("astray", to="anywhere")
    astray.settings = QueueSettings(dead_letter_exchange="there is none")
    for queue in (plain, astray):
        place.publish(queue, Properties(), Properties())
        reject(queue)
        reject(queue)
    assert unwanted(place) == {"rejected": 4}
    plain.settings = QueueSettings(max_length=1)
    place.publish(plain, *[Properties()] * 3)
    plain.pump()
    assert unwanted(place) == {"rejected": 4, "maxlen": 2}


def unwanted(place: Harness) -> dict[str, int]:
    """Dead messages without a dead letter exchange, by reason."""
    died = place.deaths.died
    assert all(strategy == DISABLED for _type, strategy, _reason in died)
    return {reason: count for (_type, _strategy, reason), count in died.items()}
