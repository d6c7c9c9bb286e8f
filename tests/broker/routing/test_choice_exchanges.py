"""Exchanges that give each message to one of all that is bound to them."""

from collections import Counter
from collections.abc import Sequence
from random import Random as Dice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.changes import declare_exchange
from fluffle.broker.routing.choice_exchanges import hash_of_binaries
from fluffle.broker.routing.exchange import EXCHANGE_TYPES, ExchangeSpec
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.matcher import Matcher, MatchInput
from fluffle.broker.routing.router import RouteInputs, Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import Field, FieldTable
from tests.broker.routing.topologies import (
    FakeExchangeHost,
    bind,
    declare,
    matches_of,
    to_exchange,
    to_queue,
)

ONE_OF_ALL = ("x-consistent-hash", "x-local-random", "x-modulus-hash", "x-random")


def made(kind: str, host: ExchangeHost | None = None) -> Matcher:
    return EXCHANGE_TYPES[kind].make({}, host or ExchangeHost())


def chosen(matcher: Matcher, *keys: str) -> str | None:
    found = [binding.destination for binding in matches_of(matcher, keys or ("k",), None)]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("kind", ONE_OF_ALL)
def test_it_is_an_ordered_set_of_bindings(kind: str) -> None:
    matcher = made(kind)
    bindings = [to_queue("x", f"q{number}", "1") for number in range(20)]
    assert all(matcher.add(binding) for binding in bindings)
    assert not any(matcher.add(binding) for binding in bindings)
    assert (list(matcher), len(matcher)) == (bindings, 20)
    assert chosen(matcher) in {f"q{number}" for number in range(20)}
    assert all(matcher.discard(binding) for binding in bindings[1:])
    assert not matcher.discard(bindings[1])
    assert chosen(matcher) == "q0"
    assert matcher.discard(bindings[0])
    assert (list(matcher), chosen(matcher)) == ([], None)


@given(st.lists(st.integers(0, 5), min_size=1))
def test_random_takes_the_binding_that_chance_says(picks: list[int]) -> None:
    asked: list[int] = []
    left = iter(picks)

    def pick(count: int) -> int:
        asked.append(count)
        return next(left)

    matcher = made("x-random", FakeExchangeHost(pick=pick))
    for number in range(6):
        matcher.add(to_queue("x", f"q{number}", str(number)))
    assert [chosen(matcher) for _ in picks] == [f"q{each}" for each in picks]
    assert asked == [6] * len(picks)
    assert matcher.asks is MatchInput.CHANCE


def test_random_gives_twice_as_much_to_who_is_bound_twice() -> None:
    matcher = made("x-random", FakeExchangeHost(pick=Dice(1).randrange))
    for queue, key in (("twice", "a"), ("twice", "b"), ("once", "a")):
        matcher.add(to_queue("x", queue, key))
    counts = Counter(chosen(matcher) for _ in range(3000))
    assert abs(counts["twice"] - 2000) < 100


class Node:
    """With queues here and elsewhere."""

    def __init__(self, here: Sequence[str]) -> None:
        self.here = here
        self.host = FakeExchangeHost(
            queue_type={"here": "rabbit_classic_queue", "three": "rabbit_quorum_queue"}.get,
            is_here=lambda name: name in self.here,
            pick=lambda count: count - 1,
        )


def test_local_random_chooses_among_the_queues_of_this_node() -> None:
    node = Node(["b", "c"])
    matcher = made("x-local-random", node.host)
    for queue in "abcd":
        matcher.add(to_queue("x", queue))
    assert chosen(matcher) == "c"
    node.here = ["a"]
    assert chosen(matcher) == "a"
    node.here = []
    assert chosen(matcher) is None


@pytest.mark.parametrize(
    ("binding", "explanation"),
    [
        (to_queue("x", "here", "k"), "Non empty binding 'k' key not permitted"),
        (to_queue("x", "none", "k"), "Non empty binding 'k' key not permitted"),
        (to_queue("x", "none"), "Destination not found"),
        (to_exchange("x", "here"), "Destination not found"),
        (
            to_queue("x", "three"),
            "Queue type rabbit_quorum_queue not valid for this exchange type",
        ),
    ],
)
def test_local_random_is_bound_to_classic_queues_without_keys(
    binding: Binding, explanation: str
) -> None:
    matcher = made("x-local-random", Node([]).host)
    with pytest.raises(PreconditionFailed) as caught:
        matcher.check(binding)
    assert caught.value.explanation == explanation
    matcher.check(to_queue("x", "here"))


@given(st.permutations([to_queue("x", name, name) for name in ("b", "a", "B", "10", "é")]))
def test_a_modulus_hash_does_not_depend_on_the_order_of_binding(bindings: list[Binding]) -> None:
    """Where the keys lead is RabbitMQ's answer for these names."""
    matcher = made("x-modulus-hash")
    for binding in bindings:
        matcher.add(binding)
    in_order = ["10", "B", "a", "b", "é"]
    assert chosen(matcher, "a") == in_order[53691870 % 5]
    assert chosen(matcher, "a", "b") == in_order[3094894 % 5]


@given(st.lists(st.tuples(st.sampled_from(ONE_OF_ALL), st.booleans()), min_size=1, max_size=4))
def test_a_chain_of_them_leads_to_the_queue_at_its_end(chain: list[tuple[str, bool]]) -> None:
    """Each leads on by a binding, or has none and an alternate."""
    topology = Topology("/")
    last = len(chain) - 1
    for place, (kind, is_bound) in enumerate(chain):
        arguments: FieldTable = {}
        if not is_bound and place != last:
            arguments["alternate-exchange"] = ("S", f"x{place + 1}".encode())
        declare(topology, ExchangeSpec(f"x{place}", kind, arguments=arguments))
    for place, (kind, is_bound) in enumerate(chain):
        key = "1" if kind == "x-consistent-hash" else ""
        if place == last:
            topology.put_binding(to_queue(f"x{place}", "q", key))
        elif is_bound:
            topology.put_binding(to_exchange(f"x{place}", f"x{place + 1}", key))
    assert Router(topology, bool).route("x0", ["k"], None) == ("q",)


def test_needs_say_what_can_be_reached() -> None:
    topology = Topology("/")
    for name, kind, arguments in (
        ("fan", "fanout", {}),
        ("keys", "x-consistent-hash", {}),
        ("headers", "x-consistent-hash", {"hash-header": ("S", b"h")}),
        ("dice", "x-random", {}),
        ("recent", "x-recent-history", {}),
    ):
        declare(topology, ExchangeSpec(name, kind, arguments=arguments))  # type: ignore[arg-type]
    router = Router(topology, bool)
    bind(topology, to_queue("keys", "q", "1"))
    bind(topology, to_exchange("fan", "keys"))
    assert router.needs("fan") == RouteInputs()
    bind(topology, to_exchange("headers", "dice", "1"))
    assert router.needs("headers") == RouteInputs(property_bindings=1, is_drawn=True)
    bind(topology, to_exchange("fan", "recent"))
    assert router.needs("fan") == RouteInputs(is_kept=True)


@pytest.mark.parametrize(
    ("binaries", "expected"),
    [
        ([b""], 38220213),
        ([b"a"], 53691870),
        ([b"abc"], 63525141),
        ([b"hello world"], 100059412),
        ([b"0123456789ab"], 119280432),
        ([b"0123456789abc"], 56666097),
        ([b"k" * 255], 33764415),
        ([b"a", b"b"], 3094894),
    ],
)
def test_it_is_that_of_erlang(binaries: list[bytes], expected: int) -> None:
    assert hash_of_binaries(binaries) == expected


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
    (binding,) = matches_of(matcher, [key], properties)
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
        assert list(matches_of(matcher, [key, "other"], None)) == list(
            matches_of(matcher, [key], None)
        )


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
