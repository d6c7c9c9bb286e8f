"""What all exchange types have in common, and direct and fanout."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import PreconditionFailed
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
    DirectMatcher,
    FanoutMatcher,
    Matcher,
)
from fluffle.protocol.properties import Properties
from fluffle.protocol.types import Field, FieldTable
from tests.broker.routing.topologies import FakeExchangeHost, to_exchange, to_queue
from tests.protocol.test_wire import FIELDS
from tests.suite.seeds import machine_settings


@pytest.fixture(params=["direct", "fanout", "headers", "topic"])
def matcher(request: pytest.FixtureRequest) -> Matcher:
    return EXCHANGE_TYPES[request.param].make({}, ExchangeHost())


def queues(found: Matcher, *keys: str) -> list[str]:
    return [binding.destination for binding in found.match(keys, None)]


def test_a_matcher_is_an_ordered_set_of_bindings(matcher: Matcher) -> None:
    bindings = [to_queue("x", f"q{number}", "k") for number in range(3 * TUPLE_MEMBERS_MAX)]
    assert all(matcher.add(binding) for binding in bindings)
    assert not any(matcher.add(binding) for binding in bindings)
    assert list(matcher) == list(matcher.match(["k"], None)) == bindings

    rest = bindings[1::2]
    assert all(matcher.discard(binding) for binding in bindings[::2])
    assert not any(matcher.discard(binding) for binding in bindings[::2])
    assert list(matcher) == list(matcher.match(["k"], None)) == rest
    assert len(matcher) == len(rest)

    assert all(matcher.discard(binding) for binding in rest)
    assert (list(matcher), len(matcher)) == ([], 0)
    assert list(matcher.match(["k"], None)) == []


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
    around = FakeExchangeHost(queue_type=lambda _name: CLASSIC)
    try:
        EXCHANGE_TYPES[kind].check(arguments)
    except PreconditionFailed:
        return
    made = Exchange(ExchangeSpec("x", kind, arguments=arguments), around)
    for number, (key, table) in enumerate(bound):
        binding = to_queue("x", f"q{number}", key, table)
        try:
            made.matcher.check(binding)
        except PreconditionFailed:
            continue
        assert made.add(binding)
    assert {*made.matcher.match(keys, Properties(headers=headers))} <= {*made.matcher}
