"""Buffer of messages for a queue that takes none for now."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.conversion_buffer import FULL_BYTES, HELD_BYTES_MAX, ConversionBuffer
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.publish_target import (
    AcceptsDeadLetters,
    DeadLetterIds,
    EnqueueResult,
    PublishReceipt,
)
from tests.broker.queues.quorum.leader_harness import PLAIN
from tests.support.queue_host import FakeQueueHost

ORIGIN = Origin("", "q")
DEAD_LETTER_IDS = DeadLetterIds(7, 3, 1, [2], [4, 5])
BROUGHT = Counts(3, 1)


class Heir:
    """A queue that knows the numbers of dead letters."""

    def __init__(self) -> None:
        self.got: list[tuple[list[bytes], Any, DeadLetterIds | None, Counts]] = []
        self.receipt = PublishReceipt(0)

    def enqueue_dead_letters(
        self,
        _origins: list[Origin],
        contents: list[bytes],
        _size: int,
        *,
        persistent: bool,
        expiration_ms: Any = None,
        dead_letter_ids: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> PublishReceipt:
        assert persistent
        self.got.append((contents, expiration_ms, dead_letter_ids, counts))
        return self.receipt

    enqueue = enqueue_dead_letters


class Reported:
    def __init__(self, receipt: EnqueueResult | PublishReceipt) -> None:
        self.said: list[tuple[int, int, bool]] = []
        assert isinstance(receipt, PublishReceipt)
        receipt.then(
            lambda start, stop, *, is_accepted: self.said.append((start, stop, is_accepted))
        )


def held() -> tuple[ConversionBuffer, Queue]:
    queue = Queue(PLAIN, FakeQueueHost())
    return ConversionBuffer(queue, lambda act: act()), queue


def put(
    standstill: ConversionBuffer, *contents: bytes, **how: Any
) -> EnqueueResult | PublishReceipt:
    put_in = (
        standstill.enqueue_dead_letters
        if {*how} & {"dead_letter_ids", "counts"}
        else standstill.enqueue
    )
    size = sum(map(len, contents))
    return put_in([ORIGIN] * len(contents), list(contents), size, persistent=True, **how)


def test_dead_letters_keep_their_numbers_and_counts() -> None:
    standstill, _queue = held()
    successor = Heir()
    assert isinstance(standstill, AcceptsDeadLetters)
    first, second = (
        Reported(put(standstill, b"1", b"2", dead_letter_ids=DEAD_LETTER_IDS)),
        Reported(put(standstill, b"3")),
    )
    put(standstill, b"4", counts=BROUGHT)
    put(standstill, b"5", dead_letter_ids=DEAD_LETTER_IDS.part(0, 1), counts=BROUGHT)
    standstill.pass_on(cast(Any, successor))
    assert successor.got == [
        ([b"1", b"2"], None, DEAD_LETTER_IDS, NEW),
        ([b"3"], None, None, NEW),
        ([b"4"], None, None, BROUGHT),
        ([b"5"], None, DEAD_LETTER_IDS.part(0, 1), BROUGHT),
    ]
    assert (first.said, second.said) == ([], [])


def test_who_takes_them_again_knows_no_numbers() -> None:
    standstill, queue = held()
    reported = Reported(
        put(standstill, b"1", b"2", expiration_ms=[5, 0], dead_letter_ids=DEAD_LETTER_IDS)
    )
    standstill.give_back(queue)
    assert (queue.ready_count, reported.said) == (2, [(0, 2, True)])


def test_what_another_node_has_is_passed_on_by_that() -> None:
    standstill, _queue = held()
    successor, elsewhere = Heir(), put(standstill, b"1", dead_letter_ids=DEAD_LETTER_IDS.part(0, 1))
    assert isinstance(elsewhere, PublishReceipt)
    standstill.is_elsewhere(elsewhere)
    put(standstill, b"2", expiration_ms=9)
    standstill.pass_on(cast(Any, successor))
    assert successor.got == [([b"2"], 9, None, NEW)]


@pytest.mark.parametrize("how", [{}, {"dead_letter_ids": DEAD_LETTER_IDS.part(0, 1)}])
def test_no_more_is_held_than_there_is_room_for(how: dict[str, Any]) -> None:
    standstill, _queue = held()
    assert not standstill.is_full
    put(standstill, bytes(FULL_BYTES), **how)
    assert standstill.is_full
    assert (
        put(standstill, bytes(HELD_BYTES_MAX - FULL_BYTES - 256), **how) is EnqueueResult.REJECTED
    )
    assert isinstance(put(standstill, b"1", **how), PublishReceipt)
