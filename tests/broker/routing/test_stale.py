"""Very many bindings that go at once: nobody finds them any more, they are cleared away later."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import islice

import pytest

from fluffle.broker.routing import matcher as matchers
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import Exchange, ExchangeSpec
from fluffle.broker.routing.matcher import STOP
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.stale import WORDS_AT_ONCE, WORDS_EACH
from fluffle.broker.routing.topology import REMOVED_AT_ONCE, Topology
from tests.broker.routing.topologies import (
    FakeExchangeHost,
    bind,
    declare,
    delete,
    drop_queue,
    removal_of,
    to_exchange,
    to_queue,
)
from tests.support.topologies import bindings_from

MANY = 4 * REMOVED_AT_ONCE
KINDS = ["direct", "fanout", "topic", "headers", "x-random"]


class Harness:
    """A topology whose work is put off until it is asked for."""

    def __init__(self, *kinds: str) -> None:
        self.later: list[Iterator[None]] = []
        self.topology = Topology("/", around=FakeExchangeHost(later=self.later.append))
        for kind in kinds:
            assert declare(self.topology, ExchangeSpec(kind, kind))
        self.router = Router(self.topology, lambda _queue: True)

    def bind(self, *bindings: Binding) -> None:
        for binding in bindings:
            assert bind(self.topology, binding)

    def exchange(self, name: str) -> Exchange:
        exchange = self.topology.find(name)
        assert exchange is not None
        return exchange

    def route(self, exchange: str, key: str) -> tuple[str, ...]:
        return self.router.route(exchange, [key], None)

    def finish(self) -> int:
        """In how many pieces."""
        pieces = sum(1 for work in self.later for _ in work)
        self.later.clear()
        return pieces


def many(source: str, queue: str, count: int = MANY) -> list[Binding]:
    return [to_queue(source, queue, f"{number}") for number in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_with_very_many_bindings_goes_at_once(kind: str) -> None:
    place = Harness(kind)
    staying = to_queue(kind, "r", "7")
    place.bind(*many(kind, "q"), staying)
    drop_queue(place.topology, "q")
    matcher = place.exchange(kind).matcher
    for _ in range(2):
        assert list(matcher) == bindings_from(place.topology, kind) == [staying]
        assert len(matcher) == 1
        assert place.route(kind, "7") == ("r",)
        assert not place.topology.bindings_to(DestinationKind.QUEUE, "q")
        place.finish()
    assert list(place.exchange(kind).matcher) == [staying]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["exchange", "queue"])
def test_a_removal_of_very_many_leaves_the_collector_little(kind: str, what: str) -> None:
    """A collection that falls due because of what is decided would be part of the same turn."""
    place = Harness(kind)
    place.bind(*many(kind, "q"))
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        change = removal_of(place.topology, **{f"{what}s": [kind if what == "exchange" else "q"]})
        made = gc.get_count()[0] - before
    finally:
        gc.enable()
    assert len(change.removes) >= MANY
    assert made < MANY // 10


@pytest.mark.parametrize("kind", ["direct", "topic"])
def test_what_is_gone_is_cleared_away_in_pieces(kind: str) -> None:
    place = Harness(kind)
    place.bind(*many(kind, "q"), to_queue(kind, "r", "7"))
    held = place.exchange(kind).matcher
    drop_queue(place.topology, "q")
    assert len(held) == MANY + 1  # nothing of it was done yet
    (work,) = place.later
    next(work)
    assert len(held) == MANY + 1 - WORDS_AT_ONCE // WORDS_EACH
    assert place.finish() >= 1
    assert len(held) == 1
    assert place.exchange(kind).matcher is held


@pytest.mark.parametrize("kind", ["fanout", "headers", "topic", "direct"])
def test_a_search_goes_on_while_what_is_gone_is_cleared_away(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at what was there when it began, and finds nothing that was gone by then."""
    monkeypatch.setattr(matchers, "FOUND_AT_ONCE", 100)
    place = Harness(kind)
    staying = to_queue(kind, "r", "7")
    place.bind(*many(kind, "q"), staying, to_queue(kind, "last", "7"))
    drop_queue(place.topology, "q")
    matcher = place.exchange(kind).matcher
    for pieces in range(5):
        search = matcher.search(["7"], None)
        found = [part for part in islice(search, 1) if part is not STOP]
        for work in place.later:
            next(work, None) if pieces < 4 else list(work)
        found += [part for part in search if part is not STOP]
        assert [binding.destination for part in found for binding in part] == ["r", "last"]
    assert list(matcher) == [staying, to_queue(kind, "last", "7")]
    assert len(matcher) == 2


def test_what_is_bound_again_while_it_is_cleared_away_stays() -> None:
    place = Harness("headers")
    gone = many("headers", "q")
    place.bind(*gone)
    matcher = place.exchange("headers").matcher
    drop_queue(place.topology, "q")
    (work,) = place.later
    next(work)
    again = [gone[0], gone[-1]]  # one is still in the matcher, and one is not
    place.bind(*again)
    for _ in range(2):
        assert sorted(place.exchange("headers").matcher, key=str) == sorted(again, key=str)
        assert len(place.exchange("headers").matcher) == len(again)
        place.finish()
    assert len(matcher) == len(again)


def test_long_keys_make_for_smaller_pieces() -> None:
    place = Harness("topic")
    words = ".".join(["a"] * 100)
    place.bind(*(to_queue("topic", "q", f"{number}.{words}") for number in range(MANY)))
    drop_queue(place.topology, "q")
    assert place.finish() >= MANY * 100 // WORDS_AT_ONCE


@pytest.mark.parametrize("kind", KINDS)
def test_an_exchange_with_very_many_bindings_goes_at_once(kind: str) -> None:
    place = Harness(kind, "x-modulus-hash")
    staying = to_queue("x-modulus-hash", "q", "7")
    place.bind(*many(kind, "q"), staying)
    held = place.exchange(kind).matcher
    removed = delete(place.topology, kind)
    assert len(removed.bindings) == len(held) == MANY
    assert list(place.topology.bindings_to(DestinationKind.QUEUE, "q")) == [staying]
    assert place.topology.find(kind) is None
    assert declare(place.topology, ExchangeSpec(kind, kind))
    place.bind(*many(kind, "q", 3))
    place.finish()
    assert len(held) == 0
    assert set(bindings_from(place.topology, kind)) == {*many(kind, "q", 3)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_bound_again_meanwhile_is_there(kind: str) -> None:
    place = Harness(kind)
    place.bind(*many(kind, "q"))
    drop_queue(place.topology, "q")
    again = to_queue(kind, "q", "7")
    place.bind(again)
    for _ in range(2):
        assert bindings_from(place.topology, kind) == [again]
        assert place.route(kind, "7") == ("q",)
        place.finish()


def test_very_many_that_go_twice_in_a_row_are_cleared_away() -> None:
    place = Harness("topic")
    held = place.exchange("topic").matcher
    place.bind(*many("topic", "q"), *many("topic", "r"))
    drop_queue(place.topology, "q")
    drop_queue(place.topology, "r")
    assert (len(place.exchange("topic").matcher), len(held)) == (0, 2 * MANY)
    place.finish()
    assert (place.exchange("topic").matcher, len(held)) == (held, 0)
    delete(place.topology, "topic")


def test_an_exchange_goes_whose_bindings_are_being_cleared_away() -> None:
    place = Harness("topic")
    held = place.exchange("topic").matcher
    place.bind(*many("topic", "q"), *many("topic", "r"))
    drop_queue(place.topology, "q")
    delete(place.topology, "topic")
    place.finish()
    assert len(held) == 0


def test_exchanges_are_no_longer_led_to() -> None:
    place = Harness("topic", "fanout")
    place.bind(*(to_exchange("topic", "fanout", f"{number}") for number in range(MANY)))
    place.bind(to_queue("fanout", "q"))
    assert place.route("topic", "7") == ("q",)
    delete(place.topology, "fanout")
    assert place.exchange("topic").onward == {}
    assert place.route("topic", "7") == ()


def test_an_auto_delete_exchange_goes_with_the_last_of_very_many() -> None:
    place = Harness()
    declare(place.topology, ExchangeSpec("x", "topic", auto_delete=True))
    place.bind(*many("x", "q"), to_queue("x", "r"))
    drop_queue(place.topology, "q")
    assert place.topology.find("x") is not None
    drop_queue(place.topology, "r")
    assert place.topology.find("x") is None
