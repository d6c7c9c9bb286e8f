"""Facts that do not fit: each kind, for each thing that can be wrong with it."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import FactBatch, encode
from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.broker.queues.quorum.state import QueueImage
from tests.broker.queues.quorum.sample_facts import applied, busy, consumer, new

ONE, READY = [range(1, 2)], [range(8, 9)]
REJECTED, EXPIRED = f.RemovalReason.REJECTED, f.RemovalReason.EXPIRED

REFUSED: list[tuple[f.Fact, str]] = [
    (f.OperationsDone(9, 1, 1), "no session 9"),
    (f.OperationsDone(1, 10, 1), "operation 10 of a session whose next is 11"),
    (f.OperationsDone(1, 12, 1), "operation 12 of a session whose next is 11"),
    (f.OperationsDone(1, 11, 0), "operation 11"),
    (f.OperationsDone(1, 11, 2**63 - 1), "operation 11"),
    (f.OperationsRejected(9, 1, 1), "no session 9"),
    (f.OperationsRejected(1, 12, 1), "operation 12"),
    (f.OperationDoneWithAnswer(9, 1, 0), "no session 9"),
    (f.OperationDoneWithAnswer(1, 10, 0), "operation 10"),
    (f.Acknowledged(9, 1), "no session 9"),
    (f.Acknowledged(1, 12), "below 12 are known; 11 is next"),
    (f.SessionOpened(1, 1, 7, 1, "b"), "key 1, where 5 is next"),
    (f.SessionOpened(5, 1, 7, 1, "a"), "is open"),
    (f.SessionClosed(9), "no session 9"),
    (f.SessionClosed(1), "has consumers"),
    (consumer(4), "key 4, where 5 is next"),
    (consumer(5, session=2), "no session 2"),
    (f.GetterAttached(6, 1, 1), "key 6, where 5 is next"),
    (f.GetterAttached(5, 2, 1), "no session 2"),
    (f.Detached(9), "no holder 9"),
    (f.SacActive(9), "no holder 9"),
    (f.SacActive(4), "cannot be the active consumer"),
    (f.Delivered(0, [9], READY), "no holder 9"),
    (f.Delivered(0, [3], READY), "as if it acknowledged otherwise"),
    (f.Delivered(0, [2], ONE), "not all messages"),
    (f.Delivered(0, [2], [range(8, 12)]), "message 11 is in no entry"),
    (f.Delivered(1, [2], READY), "have ordinal 0, not 1"),
    (f.Delivered(0, [2], [range(5, 6)]), "have ordinal 1, not 0"),
    (f.Delivered(1, [2], [range(5, 7)]), "message 6 is not where it is taken from"),
    (f.DeliveredWithoutAck(0, [9], READY), "no holder 9"),
    (f.DeliveredWithoutAck(0, [2], READY), "as if it acknowledged otherwise"),
    (f.DeliveredWithoutAck(0, [3], ONE), "not all messages"),
    (f.DeliveredWithoutAck(1, [3], READY), "have ordinal 0, not 1"),
    (f.Settled(9, 0, ONE), "no holder 9"),
    (f.Settled(3, 0, ONE), "message 1 is not where it is taken from"),
    (f.Settled(2, 1, ONE), "have ordinal 0, not 1"),
    (f.Settled(2, 0, [range(1, 5)]), "message 4 is not where it is taken from"),
    (f.Settled(4, 0, [range(4, 5)]), "have ordinal 1, not 0"),
    (f.Settled(2, 0, READY), "message 8 is not where it is taken from"),
    (f.Requeued(9, 0, 0, f.RequeueReason.LOST, 0, ONE), "no holder 9"),
    (f.Requeued(3, 0, 0, f.RequeueReason.LOST, 0, ONE), "message 1 is not where it is taken from"),
    (f.Requeued(2, 1, 0, f.RequeueReason.LOST, 0, ONE), "have ordinal 0, not 1"),
    (f.Requeued(2, 0, 2, f.RequeueReason.LOST, 0, ONE), "delivery count 2 behind 0"),
    (f.DelayElapsed([range(5, 6)]), "message 5 is not where it is taken from"),
    (f.Dropped(EXPIRED, f.NO_HOLDER, 0, ONE), "not all messages"),
    (f.Dropped(EXPIRED, f.NO_HOLDER, 0, [range(6, 7)]), "not all messages"),
    (f.Dropped(EXPIRED, f.NO_HOLDER, 1, READY), "have ordinal 0, not 1"),
    (f.Dropped(EXPIRED, 2, 0, ONE), "held by 2 die for"),
    (f.Dropped(REJECTED, f.NO_HOLDER, 0, READY), "held by 0 die for"),
    (f.Dropped(REJECTED, 2, 1, ONE), "have ordinal 0, not 1"),
    (f.Dropped(f.RemovalReason.ACKED, 2, 0, ONE), "die for"),
    (f.DeadLettering(EXPIRED, 0, f.NO_HOLDER, 0, ONE), "not all messages"),
    (f.DeadLettering(EXPIRED, 0, 2, 0, ONE), "held by 2 die for"),
    (f.DeadLettering(REJECTED, 0, f.NO_HOLDER, 0, READY), "held by 0 die for"),
    (f.DeadLettering(REJECTED, 0, 2, 1, ONE), "have ordinal 0, not 1"),
    (f.DeadLettered([range(6, 7)]), "message 6 is not where it is taken from"),
    (f.Purged(ONE), "not all messages"),
    (f.Purged([range(11, 12)]), "message 11 is in no entry"),
    (f.Purged([range(7, 9)]), "message 8 is not where it is taken from"),
    (f.SpecChanged(0, b""), "specification 0 behind 0"),
    (f.VersionAnnounced(0, "a"), "version 0, lower than before"),
    (f.Arrived(7, 2, ONE), "queue 7 of term 2 behind 3"),
    (f.ArrivalsKnown(7, 2, 1, []), "queue 7 of term 2 behind 3"),
    (f.Remembered(b"x", 0), "keys that are none"),
    (f.Remembered(b"", 1), "1 keys are known, and there are 0"),
]


@pytest.mark.parametrize(("fact", "why"), REFUSED, ids=[f"{fact}" for fact, _ in REFUSED])
def test_a_fact_that_does_not_fit(fact: f.Fact, why: str) -> None:
    image = busy()
    applied(image, f.VersionAnnounced(1, "a"))
    applied(image, f.ArrivalsKnown(7, 3, 1, []))
    with pytest.raises(InvalidEntry, match=why):
        applied(image, fact)


def test_every_kind_is_refused_for_something() -> None:
    own_tests = {f.Published}
    never_refused = {f.SourceGone}
    """Facts that are never refused: unknown sources need not be forgotten."""
    assert {type(fact) for fact, _why in REFUSED} | own_tests == set(
        f.KINDS.values()
    ) - never_refused


def test_messages_that_nobody_published() -> None:
    with pytest.raises(InvalidEntry, match="1 messages more than publishes"):
        applied(busy(), messages=new(11, 1))


def test_a_publish_without_its_message() -> None:
    with pytest.raises(InvalidEntry, match="-1 messages more than publishes"):
        applied(busy(), f.Published(1, 11, 1))


def test_a_publish_that_was_there_before() -> None:
    with pytest.raises(InvalidEntry, match="operation 10 of a session whose next is 11"):
        applied(busy(), f.Published(1, 10, 1), messages=new(11, 1))


@pytest.mark.parametrize("first", [10, 12])
def test_messages_that_do_not_follow(first: int) -> None:
    with pytest.raises(InvalidEntry, match=f"message {first}, where 11 is next"):
        applied(busy(), f.Published(1, 11, 1), messages=new(first, 1))


def test_an_entry_that_does_not_follow() -> None:
    image = busy()
    for index in (image.state.index, image.state.index + 2):
        with pytest.raises(InvalidEntry, match=f"entry {index} behind {image.state.index}"):
            image.apply(index, encode(FactBatch(0, 0, [])))
        with pytest.raises(InvalidEntry, match=f"entry {index} behind {image.state.index}"):
            image.pass_over(index)


def test_time_that_runs_backwards() -> None:
    image = QueueImage()
    image.apply(1, encode(FactBatch(5, 0, [])))
    image.apply(2, encode(FactBatch(5, 0, [])))
    with pytest.raises(InvalidEntry, match="queue time 4 behind 5"):
        image.apply(3, encode(FactBatch(4, 0, [])))


@pytest.mark.parametrize("revision", [2, 4])
def test_an_entry_that_was_decided_by_another_specification(revision: int) -> None:
    image = QueueImage()
    applied(image, f.SpecChanged(3, b"spec"))
    with pytest.raises(InvalidEntry, match=f"decided by specification {revision}; 3 is in force"):
        image.apply(2, encode(FactBatch(0, revision, [])))


def test_a_hand_out_beside_the_active_consumer() -> None:
    image = busy()
    applied(image, consumer(5), f.SacActive(5))
    with pytest.raises(InvalidEntry, match="2 gets messages; 5 is the active consumer"):
        applied(image, f.Delivered(0, [2], READY))


def test_the_active_consumer_must_be_replaced_before_it_goes() -> None:
    image = busy()
    applied(image, f.SacActive(2))
    with pytest.raises(InvalidEntry, match="2 is detached while it is the active consumer"):
        applied(image, f.Detached(2))


@pytest.mark.parametrize("fact", [f.Detached(2), f.Delivered(0, [2], READY), f.SacActive(2)])
def test_who_is_detached(fact: f.Fact) -> None:
    with pytest.raises(InvalidEntry, match=r"detached|cannot be"):
        applied(busy_without_consumer(), fact)


def busy_without_consumer() -> QueueImage:
    image = busy()
    applied(image, f.Detached(2))
    return image


def test_a_holder_is_there_until_nothing_is_held() -> None:
    image = busy_without_consumer()
    assert 2 in image.state.holders
    applied(image, f.Settled(2, 0, [range(1, 3)]))
    applied(image, f.Requeued(2, 0, 0, f.RequeueReason.LOST, 0, [range(3, 4)]))
    assert 2 not in image.state.holders
    with pytest.raises(InvalidEntry, match="no holder 2"):
        applied(image, f.Settled(2, 0, ONE))
