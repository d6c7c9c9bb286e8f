"""x-consistent-hash: even, by weight, and keys stay where they are as far as that can be."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.changes import declare_exchange
from fluffle.broker.routing.exchange import EXCHANGE_TYPES, ExchangeSpec
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.matcher import Matcher, MatchInput
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.properties import Properties
from fluffle.protocol.types import Field, FieldTable
from tests.broker.routing.topologies import to_exchange, to_queue

KEYS = [f"key {number}" for number in range(300)]


def hashing(arguments: FieldTable | None = None) -> Matcher:
    return EXCHANGE_TYPES["x-consistent-hash"].make(arguments or {}, ExchangeHost())


def bound(*bindings: Binding, arguments: FieldTable | None = None) -> Matcher:
    matcher = hashing(arguments)
    for binding in bindings:
        matcher.check(binding)
        assert matcher.add(binding)
    return matcher


def weighted(weights: dict[str, int]) -> Matcher:
    return bound(*[to_queue("x", name, str(weight)) for name, weight in weights.items()])


def way(matcher: Matcher, key: str, properties: Properties | None = None) -> str:
    (binding,) = matcher.match([key], properties)
    return binding.destination


def ways(matcher: Matcher) -> dict[str, str]:
    return {key: way(matcher, key) for key in KEYS}


WEIGHTS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.integers(1, 9), min_size=2, max_size=6
)


@given(WEIGHTS, st.randoms(use_true_random=False))
def test_ways_depend_on_the_bindings_alone(weights: dict[str, int], dice: object) -> None:
    """Neither on their order, nor on what was bound and is no more."""
    shuffled = list(weights.items())
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    other = weighted(dict(shuffled))
    other.add(to_queue("x", "gone", "5"))
    ways(other)
    other.discard(to_queue("x", "gone", "5"))
    assert ways(other) == ways(weighted(weights))


@given(WEIGHTS)
def test_a_destination_that_goes_leaves_all_other_keys_alone(weights: dict[str, int]) -> None:
    before = ways(weighted(weights))
    gone = next(iter(weights))
    after = ways(weighted({name: each for name, each in weights.items() if name != gone}))
    assert {key for key in KEYS if before[key] != after[key]} == {
        key for key in KEYS if before[key] == gone
    }


@given(WEIGHTS, st.integers(1, 20))
def test_a_weight_that_grows_only_takes(weights: dict[str, int], more: int) -> None:
    name = next(iter(weights))
    before = ways(weighted(weights))
    after = ways(weighted(weights | {name: weights[name] + more}))
    assert {after[key] for key in KEYS if before[key] != after[key]} <= {name}


@settings(max_examples=20)
@given(WEIGHTS)
def test_everybody_gets_his_part(weights: dict[str, int]) -> None:
    """Within six standard deviations, which chance does not exceed in the life of this test."""
    matcher = weighted(weights)
    count = 2000
    counts = Counter(way(matcher, f"order {number}") for number in range(count))
    for name, weight in weights.items():
        part = weight / sum(weights.values())
        assert abs(counts[name] - count * part) < 6 * (count * part * (1 - part)) ** 0.5


def test_the_weights_of_one_destination_add_up() -> None:
    two = bound(
        to_queue("x", "a", "1"),
        to_queue("x", "a", "2"),
        to_queue("x", "b", "3"),
        to_exchange("x", "b", "1"),
    )
    three = bound(to_queue("x", "a", "3"), to_queue("x", "b", "3"), to_exchange("x", "b", "1"))
    assert ways(two) == ways(three)
    assert len(two) == 4


def test_only_the_first_routing_key_counts() -> None:
    matcher = weighted({"a": 1, "b": 1, "c": 1})
    for key in KEYS[:20]:
        assert list(matcher.match([key, "other"], None)) == list(matcher.match([key], None))


def test_without_arguments_properties_are_not_asked_for() -> None:
    assert hashing().asks is MatchInput.KEYS
    assert hashing({"hash-header": ("S", b"h")}).asks is MatchInput.PROPERTIES
    assert hashing({"hash-property": ("S", b"timestamp")}).asks is MatchInput.PROPERTIES


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"hash-header": ("S", b"h")}, lambda n: Properties(headers={"h": ("S", str(n).encode())})),
        ({"hash-header": ("S", b"h")}, lambda n: Properties(headers={"h": ("l", n)})),
        ({"hash-property": ("S", b"message_id")}, lambda n: Properties(message_id=str(n))),
        ({"hash-property": ("S", b"correlation_id")}, lambda n: Properties(correlation_id=str(n))),
        ({"hash-property": ("S", b"timestamp")}, lambda n: Properties(timestamp=n)),
    ],
)
def test_what_is_named_decides_and_nothing_else(arguments: FieldTable, named: object) -> None:
    queues = [to_queue("x", f"q{number}", "1") for number in range(4)]
    matcher = bound(*queues, arguments=arguments)
    found = set()
    for number in range(60):
        properties = named(number)  # type: ignore[operator]
        first = way(matcher, "a key", properties)
        properties.app_id = "another"
        assert way(matcher, "another key", properties) == first
        found.add(first)
    assert found == {"q0", "q1", "q2", "q3"}
    without = {way(matcher, key, each) for key in KEYS for each in (None, Properties())}
    assert len(without) == 1


def explanation(arguments: FieldTable) -> str:
    with pytest.raises(PreconditionFailed) as caught:
        declare_exchange(Topology("/"), ExchangeSpec("x", "x-consistent-hash", arguments=arguments))
    return caught.value.explanation


HEADER: Field = ("S", b"h")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"hash-header": HEADER, "hash-property": ("S", b"message_id")},
            "hash-header and hash-property are mutually exclusive",
        ),
        (
            {"hash-header": HEADER, "hash-property": ("S", b"app_id")},
            "hash-header and hash-property are mutually exclusive",
        ),
        ({"hash-property": ("S", b"app_id")}, "Unsupported property: app_id"),
        ({"hash-property": ("S", b"")}, "Unsupported property: "),
        ({"hash-property": ("l", 5)}, "invalid type 'long' for arg 'hash-property'"),
        ({"hash-header": ("V", None)}, "invalid type 'void' for arg 'hash-header'"),
    ],
)
def test_arguments_that_it_cannot_have(arguments: FieldTable, expected: str) -> None:
    assert explanation(arguments) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", "The binding key must be an integer: <<>>"),
        ("one", 'The binding key must be an integer: <<"one">>'),
        ("1.0", 'The binding key must be an integer: <<"1.0">>'),
        ("١", 'The binding key must be an integer: <<"١"/utf8>>'),
        ("0", "The binding key must be greater than 0"),
        ("-7", "The binding key must be greater than 0"),
        ("+00", "The binding key must be greater than 0"),
        ("10001", "The binding key must not exceed 10000"),
        ("9" * 5000, "The binding key must not exceed 10000"),
        ("-" + "9" * 5000, "The binding key must be greater than 0"),
    ],
)
def test_weights_are_positive_integers(key: str, expected: str) -> None:
    with pytest.raises(PreconditionFailed) as caught:
        hashing().check(to_queue("x", "q", key))
    assert caught.value.explanation == expected


@pytest.mark.parametrize("key", ["1", "+7", "007", "10000", "0" * 250 + "1"])
def test_which_weights_there_can_be(key: str) -> None:
    binding = to_queue("x", "q", key)
    hashing().check(binding)
    assert way(bound(binding, to_queue("x", "r", key)), "k") in ("q", "r")
