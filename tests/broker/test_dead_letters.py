"""What has died is published again.  What RabbitMQ makes of the same is compared in `tests/compat`;
here is what no client can bring about yet, and what must be so inside."""

from __future__ import annotations

import pytest

from fluffle.broker.clock import ManualClock
from fluffle.broker.dead_letters import DeadLetters
from fluffle.broker.local_queues import LocalQueues
from fluffle.broker.message import Past
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.consumers import Consumer, SharedCredit
from fluffle.broker.queues.dead import DeadMessages
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import Handout, Outcome
from fluffle.broker.vhost import VirtualHost
from fluffle.protocol.deaths import DeathReason, deaths_of
from fluffle.protocol.properties import (
    Properties,
    build_content,
    decode_properties,
    encode_properties,
    raw_properties,
)
from fluffle.protocol.types import FieldTable
from fluffle.protocol.wire import to_table
from tests.broker.queues.make import FakeSink
from tests.support.definitions import VhostEditor


class Place:
    """A virtual host whose queues dead-letter to each other by the default exchange."""

    def __init__(self) -> None:
        self.clock = ManualClock(wall_ms=7_999)
        self.dead_letters = DeadLetters(self._find, self.clock)
        maker = LocalQueues(lambda _queue: None, dead_letter=self.dead_letters.publish)
        self.vhost = VirtualHost("/", maker)

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
        handout = take(queue)
        dead = DeadMessages(reason, handout.origins[:], handout.contents[:])
        queue.settle(handout, 0, 1, Outcome.ACKED)
        self.dead_letters.publish("/", queue.spec, dead)


def take(queue: Queue) -> Handout:
    """The next message, in somebody's hands."""
    anybody = Consumer("anybody", queue, FakeSink(), shared=SharedCredit())
    handout = queue.get(anybody)
    assert handout is not None
    return handout


def reject(queue: Queue) -> None:
    queue.settle(take(queue), 0, 1, Outcome.REJECTED)


def headers_of(handout: Handout) -> FieldTable:
    headers = decode_properties(raw_properties(handout.contents[0])).headers
    assert headers is not None
    return headers


def test_a_rejected_message_is_in_the_other_queue_at_once() -> None:
    place = Place()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    place.publish(queue, Properties())
    reject(queue)
    assert (queue.ready_count, queue.in_flight, dead.ready_count) == (0, 0, 1)
    handout = take(dead)
    [death] = deaths_of(headers_of(handout))
    assert death["time"] == ("T", 7)
    assert handout.origins[0].past is Past.REDIRECTED


def test_messages_that_die_together_stay_in_order_and_are_told_apart() -> None:
    place = Place()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    kinds = [Properties(priority=1), Properties(priority=2), Properties(delivery_mode=2)]
    place.publish(queue, *kinds, *kinds)
    handouts = [take(queue) for _ in range(6)]
    contents = [content for handout in handouts for content in handout.contents]
    origins = [origin for handout in handouts for origin in handout.origins]
    died = DeadMessages(DeathReason.MAXLEN, origins, contents)
    place.dead_letters.publish("/", queue.spec, died)
    seen = [decode_properties(raw_properties(take(dead).contents[0])) for _ in range(6)]
    assert [(each.priority, each.delivery_mode) for each in seen] == [
        (kind.priority, kind.delivery_mode) for kind in (*kinds, *kinds)
    ]


def test_the_time_on_record_counts() -> None:
    place = Place()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    content = build_content(encode_properties(Properties()), b"")
    origin = place.vhost.origin("", "q")
    died = DeadMessages(DeathReason.DELIVERY_LIMIT, [origin], [content], time_ms=3_500)
    place.dead_letters.publish("/", queue.spec, died)
    assert deaths_of(headers_of(take(dead)))[0]["time"] == ("T", 3)


def test_what_goes_round_by_itself_is_dropped_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Place()
    there, back = place.declare("there", to="back"), place.declare("back", to="there")
    for _ in range(2):
        place.publish(there, Properties())
        place.die(there, DeathReason.EXPIRED)
        assert back.ready_count == 1
        place.die(back, DeathReason.DELIVERY_LIMIT)
        assert there.ready_count == back.ready_count == 0
    assert caplog.messages.count("dead_letter_cycle") == 1


def test_what_gets_through_to_nobody_for_long_does_not_fill_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    monkeypatch.setattr(Queue, "is_full", property(lambda queue: queue is dead))
    for _ in range(13):
        place.publish(queue, Properties())
        reject(queue)
        place.clock.advance(1_000)
    assert (dead.ready_count, queue.in_flight) == (11, 0)
    assert caplog.messages.count("dead_letters_dropped") == 1
    place.clock.advance(1_000)
    place.publish(queue, Properties())
    reject(queue)
    assert dead.ready_count == 12, "it may have had room meanwhile"
    monkeypatch.undo()
    place.publish(queue, Properties())
    reject(queue)
    assert dead.ready_count == 13


def test_what_a_client_rejects_may_go_round() -> None:
    place = Place()
    there, back = place.declare("there", to="back"), place.declare("back", to="there")
    place.publish(there, Properties())
    for _ in range(3):
        reject(there)
        place.die(back, DeathReason.EXPIRED)
        assert there.ready_count == 1


def test_a_queue_that_is_gone_and_a_virtual_host_that_is_take_nothing() -> None:
    place = Place()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    place.publish(queue, Properties(), Properties())
    VhostEditor(place.vhost).delete_queue(dead)
    reject(queue)
    place.vhost.name = "another"
    reject(queue)
    assert (queue.ready_count, queue.in_flight) == (0, 0)
