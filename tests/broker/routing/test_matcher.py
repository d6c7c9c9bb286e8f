"""Common behaviour of all exchange types; direct and fanout."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing import matcher as matchers
from fluffle.broker.routing.bindings import (
    TUPLE_MEMBERS_MAX,
    Binding,
    Bindings,
    DestinationKind,
    with_binding,
    without_binding,
)
from fluffle.broker.routing.choice_exchanges import CLASSIC
from fluffle.broker.routing.exchange import EXCHANGE_TYPES, Exchange, ExchangeSpec
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.matcher import (
    FOUND_AT_ONCE,
    STOP,
    WORDS_AT_ONCE,
    WORDS_EACH,
    DirectMatcher,
    FanoutMatcher,
    Matcher,
)
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import REMOVED_AT_ONCE, Topology
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import Field, FieldTable
from tests.broker.routing.topologies import (
    FakeExchangeHost,
    bind,
    declare,
    delete,
    drop_queue,
    matches_of,
    removal_of,
    to_exchange,
    to_queue,
)
from tests.protocol.test_wire import FIELDS
from tests.suite.seeds import machine_settings
from tests.support.topologies import bindings_from


@pytest.fixture(params=["direct", "fanout", "headers", "topic"])
def matcher(request: pytest.FixtureRequest) -> Matcher:
    return EXCHANGE_TYPES[request.param].make({}, ExchangeHost())


def queues(found: Matcher, *keys: str) -> list[str]:
    return [binding.destination for binding in matches_of(found, keys, None)]


def test_a_matcher_is_an_ordered_set_of_bindings(matcher: Matcher) -> None:
    bindings = [to_queue("x", f"q{number}", "k") for number in range(3 * TUPLE_MEMBERS_MAX)]
    assert all(matcher.add(binding) for binding in bindings)
    assert not any(matcher.add(binding) for binding in bindings)
    assert list(matcher) == list(matches_of(matcher, ["k"], None)) == bindings

    rest = bindings[1::2]
    assert all(matcher.discard(binding) for binding in bindings[::2])
    assert not any(matcher.discard(binding) for binding in bindings[::2])
    assert list(matcher) == list(matches_of(matcher, ["k"], None)) == rest
    assert len(matcher) == len(rest)

    assert all(matcher.discard(binding) for binding in rest)
    assert (list(matcher), len(matcher)) == ([], 0)
    assert list(matches_of(matcher, ["k"], None)) == []


def test_a_queue_and_an_exchange_of_one_name_are_two_destinations(matcher: Matcher) -> None:
    assert matcher.add(to_queue("x", "same", "k"))
    assert matcher.add(to_exchange("x", "same", "k"))
    assert matcher.discard(to_queue("x", "same", "k"))
    assert [b.destination_kind for b in matcher] == [DestinationKind.EXCHANGE]


def test_direct_wants_equal_keys() -> None:
    matcher = DirectMatcher()
    for queue, key in [("q1", "a"), ("q2", "a.b"), ("q3", ""), ("q4", "a")]:
        matcher.add(to_queue("x", queue, key))
    assert queues(matcher, "a") == ["q1", "q4"]
    assert queues(matcher, "") == ["q3"]
    assert queues(matcher, "A") == []
    assert queues(matcher, "#") == []
    assert queues(matcher, "a.b", "a") == ["q2", "q1", "q4"]


def test_fanout_does_not_look_at_keys() -> None:
    matcher = FanoutMatcher()
    for queue, key in [("q1", "a"), ("q2", "")]:
        matcher.add(to_queue("x", queue, key))
    assert queues(matcher, "other", "a") == ["q1", "q2"]


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic"])
def test_very_many_that_match_are_found_with_stops_in_between(kind: str) -> None:
    matcher = EXCHANGE_TYPES[kind].make({}, ExchangeHost())
    bindings = [to_queue("x", f"q{number}", "k") for number in range(3 * FOUND_AT_ONCE)]
    for binding in bindings:
        matcher.add(binding)
    found, stops = list[Binding](), 0
    for some in matcher.search(["k"], None):
        stops += some is STOP
        found += some
        assert len(list(some)) <= FOUND_AT_ONCE
        if stops == 1:
            matcher.discard(bindings[-1])
            matcher.discard(bindings[0])
    assert found == bindings
    assert stops >= 3


def test_small_groups_are_tuples_and_large_ones_dicts() -> None:
    bindings = [to_queue("x", f"q{number}") for number in range(TUPLE_MEMBERS_MAX + 1)]
    group: Bindings = ()
    for count, binding in enumerate(bindings, 1):
        group = with_binding(group, binding)
        assert isinstance(group, tuple) == (count <= TUPLE_MEMBERS_MAX)
        assert list(group) == bindings[:count]
    for count, binding in enumerate(bindings, 1):
        group = without_binding(group, binding)
        assert list(group) == bindings[count:]
    assert group == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": ("I", 1), "b": ("I", 2)}, {"b": ("I", 2), "a": ("I", 1)}),
        ({"a": ("F", {"b": ("I", 1), "c": ("V", None)})},) * 2,
        ({"a": ("A", [("S", b"x"), ("F", {})])},) * 2,
        (
            {"a": ("F", {"b": ("I", 1), "c": ("I", 2)})},
            {"a": ("F", {"c": ("I", 2), "b": ("I", 1)})},
        ),
    ],
)
def test_equal_bindings_have_equal_hashes(one: dict[str, Field], other: dict[str, Field]) -> None:
    first = Binding("x", "q", DestinationKind.QUEUE, "k", one)
    second = Binding("x", "q", DestinationKind.QUEUE, "k", other)
    assert first == second
    assert hash(first) == hash(second)


def test_bindings_that_differ_in_arguments_alone_do_not_collide() -> None:
    """A headers exchange may have thousands of them to one queue."""
    hashes = {hash(to_queue("x", "q", "", {"n": ("I", number)})) for number in range(1000)}
    assert len(hashes) > 990


ARGUMENT_NAMES = st.sampled_from(
    ["hash-header", "hash-property", "x-recent-history-length", "x-delayed-type"]
)
OF_A_BINDING = st.sampled_from(["x-match", "rjms_erlang_selector", "h", "x-h"])
SELECTORS = (
    b"{'like',{'ident',<<\"h\">>},<<\"%\">>,'no_escape'}.",
    b"{'>',{'ident',<<\"h\">>},{'/',1,{'ident',<<\"x-h\">>}}}.",
)
WORTH_SAYING = st.sampled_from(
    [b"h", b"message_id", b"timestamp", b"any", b"all-with-x", b"fanout", b"x-random", *SELECTORS]
)
WEIGHTS = st.integers(0, 6000).map(lambda digits: "9" * digits)
KEYS_OF_BINDINGS = st.sampled_from(["", "1", "+7", "a.#", "#.#.#", "\udcff"]) | st.text() | WEIGHTS


def tables(names: st.SearchStrategy[str]) -> st.SearchStrategy[FieldTable]:
    strings = st.tuples(st.just("S"), WORTH_SAYING)
    return st.dictionaries(names, strings | FIELDS, max_size=3)


@pytest.mark.parametrize("kind", EXCHANGE_TYPES)
@machine_settings()
@given(
    arguments=tables(ARGUMENT_NAMES),
    bound=st.lists(st.tuples(KEYS_OF_BINDINGS, tables(OF_A_BINDING)), max_size=4),
    keys=st.lists(st.text(max_size=4), min_size=1, max_size=3),
    headers=st.none() | tables(st.sampled_from(["h", "x-h", "CC"])),
)
def test_what_may_be_bound_can_be_asked(
    kind: str,
    arguments: FieldTable,
    bound: list[tuple[str, FieldTable]],
    keys: list[str],
    headers: FieldTable | None,
) -> None:
    """Exchanges and bindings are refused or route any message, to some of what is bound."""
    host = FakeExchangeHost(queue_type=lambda _name: CLASSIC)
    try:
        EXCHANGE_TYPES[kind].check(arguments)
    except PreconditionFailed:
        return
    made = Exchange(ExchangeSpec("x", kind, arguments=arguments), host)
    for number, (key, table) in enumerate(bound):
        binding = to_queue("x", f"q{number}", key, table)
        try:
            made.matcher.check(binding)
        except PreconditionFailed:
            continue
        assert made.add(binding)
    assert {*matches_of(made.matcher, keys, Properties(headers=headers))} <= {*made.matcher}


MANY = 4 * REMOVED_AT_ONCE
KINDS = ["direct", "fanout", "topic", "headers", "x-random"]


class Harness:
    """A topology whose work is put off until it is asked for."""

    def __init__(self, *kinds: str) -> None:
        self.later: list[Iterator[None]] = []
        self.topology = Topology("/", host=FakeExchangeHost(later=self.later.append))
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
    """The search reads what was there when it began, and finds nothing that was gone by then."""
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
