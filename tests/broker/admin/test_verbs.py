"""Verbs that have asked a queue which was deleted before it answered."""

from __future__ import annotations

from fluffle.broker.admin.context import DeferredRow, PendingRow, Row
from fluffle.broker.admin.verbs import certain_result
from fluffle.broker.base.errors import BrokerError, NotFound, QueueDeleted
from tests.support.read_barrier import ManualReadBarrier


def test_a_queue_that_was_deleted_again_is_asked_for_again() -> None:
    read_barrier, asked, told = ManualReadBarrier(), list[PendingRow](), list[Row | BrokerError]()

    def make() -> Row | DeferredRow:
        if len(asked) == 3:
            raise NotFound("no queue 'q' in vhost '/'")
        asked.append(PendingRow())
        return asked[-1].result

    result = certain_result(read_barrier, make)
    assert isinstance(result, DeferredRow)
    result.begin(told.append)
    for deleted in range(1, 4):
        asked[-1].answer(QueueDeleted("no queue 'q' in vhost '/'"))
        assert (len(asked), told) == (deleted, [])
        read_barrier.confirm()
    assert [type(outcome) for outcome in told] == [NotFound]
