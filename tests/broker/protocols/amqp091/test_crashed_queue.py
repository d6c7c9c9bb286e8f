"""A queue that comes upon damage on disk: what clients and operators see of it.

Every message is a segment, and an entry, of its own; all but the first and the last are on disk
only.
"""

from __future__ import annotations

import json
import logging

import pytest

from fluffle.broker.admin.context import DeferredRow, Row
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.queues import ready_list
from fluffle.broker.queues.journal import Damage
from fluffle.protocol.methods import Basic, Channel, make
from fluffle.storage.layout import SEQUENCE, Table
from tests.broker.admin.verb_harness import VerbHarness
from tests.broker.protocols.amqp091.test_durable_order import Harness
from tests.broker.queues.queue_harness import lane_of
from tests.support.definitions import engine_of
from tests.support.store import open_store

CRASHED = "NOT_FOUND - queue 'q' in vhost '/' has crashed and failed to restart"
Q = {"name": "q", "vhost": "/"}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    """Messages m0 to m5 in q."""
    monkeypatch.setattr(ready_list, "FRONT_SEGMENTS", 1)
    monkeypatch.setattr(ready_list, "RECENT_SEGMENTS", 1)
    monkeypatch.setattr(ready_list, "SEGMENT_MESSAGES_MAX", 1)
    harness = Harness()
    for number in range(6):
        harness.fill(b"m%d" % number)
    return harness


def flip(harness: Harness, body: bytes) -> int:
    """Change a byte of a message on disk; the number of the record that it is in."""
    with harness.disk.view() as view:
        ((key, at),) = [
            (bytes(key), bytes(value).index(body))
            for key, value in view.scan(Table.HOT, b"", None)
            if body in bytes(value)
        ]
    harness.disk.flip(Table.HOT, key, at)
    number: int = SEQUENCE.unpack(key)[0]
    return number


def log_of(harness: Harness) -> int:
    """Where the messages of q are in the store."""
    journal = engine_of(harness.edge.vhost, "q").journal
    assert journal is not None
    return journal.groups[0]


def state(desk: VerbHarness) -> str:
    (row,) = (row for row in desk.rows("queues.list") if row["name"] == "q")
    return f"{row['state']}, {row['messages_ready']} ready, {row['consumers']} consumers"


def assert_refused(harness: Harness) -> None:
    """Both ways to read the queue, on channels that are closed by it."""
    for number, method in enumerate((Basic.Get, Basic.Consume), start=2):
        harness.client.open_channel(number)
        harness.send(make(method, queue="q"), channel=number)
        harness.client.expect_channel_closed(404, CRASHED, number)
        harness.send(Channel.CloseOk(), channel=number)


def test_what_is_before_the_damage_is_served_and_then_the_queue_stops(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    record, desk = flip(harness, b"m3"), VerbHarness(edge=harness.edge)
    harness.client.consume(no_ack=True)
    *deliveries, cancel = harness.client.arrivals()
    assert [arrival.body for arrival in deliveries] == [b"m0", b"m1", b"m2"]
    assert isinstance(cancel.method, Basic.Cancel)
    assert cancel.method.consumer_tag == "c"
    assert state(desk) == "crashed, 3 ready, 0 consumers"
    assert desk.ask("status")["queues_crashed"] == 1
    (line,) = (line for line in caplog.records if line.levelno >= logging.WARNING)
    assert (line.getMessage(), getattr(line, FIELDS_ATTRIBUTE)) == (
        "queue_crashed",
        {
            "vhost": "/",
            "queue": "q",
            "place": f"table hot, record {record}, group {log_of(harness)} index 4 part 0",
            "reason": "the bytes do not match their checksum",
        },
    )
    assert_refused(harness)
    said = [record.getMessage() for record in caplog.records]
    assert said.count("queue_crashed") == 1


def test_get_comes_upon_it_too(harness: Harness) -> None:
    flip(harness, b"m1")
    harness.get()
    harness.send(make(Basic.Get, queue="q"))
    harness.client.arrivals()
    assert_refused(harness)


def test_other_queues_and_what_is_in_hands_are_not_concerned(harness: Harness) -> None:
    flip(harness, b"m1")
    harness.client.consume()
    (delivered, _cancel) = harness.client.arrivals()
    assert delivered.body == b"m0"
    harness.client.ack(1)
    harness.settle()
    harness.publish(b"other", queue="r")
    harness.settle()
    assert harness.client.call(make(Basic.Get, queue="r"), Basic.GetOk).message_count == 0


def test_a_crashed_queue_takes_messages_and_confirms_them_when_they_are_safe(
    harness: Harness,
) -> None:
    flip(harness, b"m1")
    harness.client.consume(no_ack=True)
    harness.settle()
    harness.client.confirm_select()
    harness.publish(b"m6")
    harness.client.expect_nothing()
    harness.commit()
    harness.client.expect(Basic.Ack)
    assert (
        VerbHarness(edge=harness.edge).ask("queues.repair", **Q, drop_damaged=True)["messages"] == 1
    )
    harness.settle()
    harness.client.consume(tag="again", no_ack=True)
    assert harness.client.bodies() == [b"m2", b"m3", b"m4", b"m5", b"m6"]


def test_repair_drops_what_is_damaged_and_nothing_else(harness: Harness) -> None:
    record, desk = flip(harness, b"m2"), VerbHarness(edge=harness.edge)
    for body in (b"m3", b"m4"):
        flip(harness, body)
    assert "has not crashed" in desk.refusal("queues.repair", **Q, drop_damaged=True)
    harness.client.consume()
    assert harness.client.names() == ["Basic.Deliver", "Basic.Deliver", "Basic.Cancel"]
    refusal = desk.refusal("queues.repair", **Q)
    assert f"1 messages of queue 'q' in vhost '/' cannot be read (table hot, record {record}" in (
        refusal
    )
    assert refusal.endswith("they can only be dropped, with --drop-damaged")
    repaired = desk.ask("queues.repair", **Q, drop_damaged=True)
    assert (repaired["messages"], state(desk)) == (3, "running, 1 ready, 0 consumers")
    harness.settle()
    harness.client.consume(tag="again")
    assert harness.client.bodies() == [b"m5"]
    harness.send(Basic.Nack(0, True, True))
    harness.settle()
    assert harness.on_disk() == [b"m0", b"m1", b"m5"], "what was in hands came back"


def test_a_turn_drops_one_batch_of_messages(harness: Harness) -> None:
    desk = VerbHarness(edge=harness.edge)
    for body in (b"m2", b"m3", b"m4"):
        flip(harness, body)
    harness.client.consume(no_ack=True)
    harness.settle()
    request = {"verb": "queues.repair", "arguments": Q | {"drop_damaged": True}}
    result = desk.dispatcher.act(json.dumps(request).encode()).result
    assert isinstance(result, DeferredRow)
    answers: list[Row | BrokerError] = []
    result.begin(answers.append)
    queue = engine_of(harness.edge.vhost, "q")
    left = [queue.ready_count]
    while not answers:
        harness.edge.scheduler.turn()
        left.append(queue.ready_count)
    assert left == [4, 3, 2, 1, 1]


def test_giving_up_what_was_acknowledged_reports_what_that_means(harness: Harness) -> None:
    desk, queue = VerbHarness(edge=harness.edge), engine_of(harness.edge.vhost, "q")
    lane_of(queue).damage = queue.damage = Damage("somewhere", "it has rotted", is_of_settled=True)
    assert desk.refusal("queues.repair", **Q) == (
        "PRECONDITION_FAILED: what was acknowledged in queue 'q' in vhost '/' cannot be read "
        "(somewhere: it has rotted); with --drop-damaged such messages come again"
    )
    assert desk.ask("queues.repair", **Q, drop_damaged=True) == {
        "messages": 0,
        "place": "somewhere",
        "reason": "it has rotted",
    }
    assert state(desk) == "running, 6 ready, 0 consumers"


def test_what_is_damaged_stays_on_disk_until_somebody_gives_it_up(harness: Harness) -> None:
    record, desk = flip(harness, b"m1"), VerbHarness(edge=harness.edge)
    key = SEQUENCE.pack(record)
    with harness.disk.view() as view:
        before = bytes(view.get(Table.HOT, key) or b"")
    harness.client.consume(no_ack=True)
    harness.settle()
    with harness.disk.view() as view:
        assert bytes(view.get(Table.HOT, key) or b"") == before
    log = open_store(harness.disk.after_power_loss()).log
    assert [first for first, _, _ in log.entries(log_of(harness))] == [2, 3, 4, 5, 6]
    assert desk.ask("queues.repair", **Q, drop_damaged=True)["messages"] == 1
    harness.settle()
    assert harness.on_disk() == [b"m2", b"m3", b"m4", b"m5"]


def test_purge_is_a_way_out_as_well(harness: Harness) -> None:
    flip(harness, b"m1")
    desk = VerbHarness(edge=harness.edge)
    harness.client.consume(no_ack=True)
    harness.client.arrivals()
    assert desk.ask("queues.purge", **Q)["messages"] == 5
    harness.settle()
    assert (state(desk), harness.on_disk()) == ("running, 0 ready, 0 consumers", [])
    harness.fill(b"m6")
    harness.client.consume(tag="again", no_ack=True)
    assert harness.client.bodies() == [b"m6"]
