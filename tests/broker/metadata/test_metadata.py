"""A lone node: what is decided is recorded and applied at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from fluffle.broker.base.errors import BrokerError, NotFound
from fluffle.broker.metadata.change import NOTHING, Change, Fact
from fluffle.broker.metadata.metadata import LocalMetadata
from tests.broker.metadata.sample_facts import VHOST, exchange, queue
from tests.support.fact_recorder import FactRecorder


class Node:
    """Notes what is done to it, in order."""

    def __init__(self) -> None:
        self.noted: list[object] = []
        self.facts = FactRecorder()
        self.metadata = LocalMetadata(self.apply, self.facts)

    def apply(self, change: Change) -> Iterable[Callable[[], None]]:
        self.noted.append(change)
        return [lambda: self.noted.append("told")]

    def change(self, change: Change) -> None:
        self.metadata.change(lambda: change, lambda: self.noted.append("done"), self.failed)

    def failed(self, error: BrokerError) -> None:
        raise AssertionError("nothing can come in between") from error


def transient(fact: Fact) -> Fact:
    return fact._replace(outlives=False)


def test_who_asked_hears_of_it_first() -> None:
    node = Node()
    change = Change(puts=(VHOST,))
    node.change(change)
    assert node.noted == [change, "done", "told"]


def test_what_outlives_the_process_is_recorded() -> None:
    node = Node()
    node.change(Change(puts=(VHOST, exchange(), transient(queue()))))
    assert set(node.facts.known) == {VHOST.name, exchange().name}
    node.change(Change(removes=(transient(queue()), exchange())))
    assert set(node.facts.known) == {VHOST.name}


def test_what_is_so_already_is_only_answered() -> None:
    node = Node()
    node.change(NOTHING)
    assert (node.noted, node.facts.reported) == (["done"], 0)


def test_a_refusal_is_raised_where_it_was_asked() -> None:
    node = Node()

    def refuse() -> Change:
        raise NotFound("no exchange")

    with pytest.raises(NotFound):
        node.metadata.change(refuse, lambda: node.noted.append("done"), node.failed)
    assert node.noted == []


def test_what_nobody_waits_for_is_done_and_reported() -> None:
    node = Node()
    change = Change(puts=(VHOST,))
    node.metadata.ensure(lambda: change)
    assert node.noted == [change, "told"]
