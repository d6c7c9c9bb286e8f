"""Delayed messages that lead nowhere are gone, and only where that is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE, REPEATED_AFTER_MS
from fluffle.broker.base.traffic import DropReason
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.transfer.dead_letters import DeadLetters
from tests.broker.transfer.test_dead_letters import Harness, Sent
from tests.support.definitions import VhostEditor


class Confirming:
    """The `Knowledge` of a node that others tell by hand that it knows all."""

    is_complete = False

    def __init__(self) -> None:
        self.begun = self.confirmed = 0
        self.asked: list[Callable[[], None]] = []
        """Callbacks that wait for the round under way."""
        self.next: list[Callable[[], None]] = []

    @property
    def mark(self) -> int:
        return self.begun + 1

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        assert failed is None, "it takes as long as it takes"
        self.next.append(done)
        if not self.asked:
            self._begin()

    def _begin(self) -> None:
        self.begun += 1
        self.asked, self.next = self.next, []

    def confirm(self) -> None:
        """A round ends, and the next begins if anybody has asked meanwhile."""
        asked, self.asked = self.asked, []
        self.confirmed = self.begun
        if self.next:
            self._begin()
        for done in asked:
            done()


TO_FANOUT = QueueSettings(dead_letter_exchange="amq.fanout")


class Late(Sent):
    """A message of a delayed queue: it need not arrive if it leads nowhere."""

    def __init__(self, place: Harness, name: str = "x") -> None:
        super().__init__(place, place.declare(f"amq.delayed.{name}"), TO_FANOUT)
        self.hastened = 0
        self.hasten = self._hasten

    def _hasten(self) -> None:
        self.hastened += 1


def confirmed_by_hand() -> tuple[Harness, Confirming]:
    place, others = Harness(), Confirming()
    place.dead_letters = DeadLetters(
        place._find, place.clock, place.deaths, read_barrier=lambda: others
    )
    return place, others


def test_what_is_due_is_not_let_go_of_by_old_definitions() -> None:
    place, others = confirmed_by_hand()
    place.clock.advance(3_600_000)
    first, second = Late(place, "x"), Late(place, "y")
    assert first.send() == [False]
    assert second.send() == [False], "what is under way may be too old for it"
    others.confirm()
    assert (first.hastened, second.hastened) == (1, 0)
    assert first.send() == [True]
    assert second.send() == [False]
    assert place.dropped == {DropReason.NO_ROUTE: 1}
    place.vhost.topology.put_binding(
        Binding("amq.fanout", place.declare("q").name, DestinationKind.QUEUE, "")
    )
    others.confirm()
    assert second.hastened == 1
    assert True in second.send()
    assert place.dropped == {DropReason.NO_ROUTE: 1}
    assert not others.asked


def test_what_is_let_go_of_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    place = Harness()
    for _ in range(3):
        assert Late(place).send() == [True], "nobody else defines anything"
        VhostEditor(place.vhost).delete_queue(place.vhost.queues["amq.delayed.x"])
    assert place.dropped == {DropReason.NO_ROUTE: 3}
    assert caplog.messages == ["delayed_messages_dropped"]
    (noted,) = (getattr(record, FIELDS_ATTRIBUTE) for record in caplog.records)
    assert noted == {"reason": "no_route", "vhost": "/", "queues": "amq.delayed.x"}
    place.clock.advance(REPEATED_AFTER_MS)
    Late(place).send()
    assert caplog.messages == ["delayed_messages_dropped"] * 2
