"""Exchanges that give each message to one of all that is bound to them."""

from collections import Counter
from collections.abc import Sequence
from random import Random as Dice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.exchange import EXCHANGE_TYPES, ExchangeSpec
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.matcher import Matcher, MatchInput
from fluffle.broker.routing.router import RouteInputs, Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.types import FieldTable
from tests.broker.routing.topologies import FakeExchangeHost, bind, declare, to_exchange, to_queue

ONE_OF_ALL = ("x-consistent-hash", "x-local-random", "x-modulus-hash", "x-random")


def made(kind: str, around: ExchangeHost | None = None) -> Matcher:
    return EXCHANGE_TYPES[kind].make({}, around or ExchangeHost())


def chosen(matcher: Matcher, *keys: str) -> str | None:
    found = [binding.destination for binding in matcher.match(keys or ("k",), None)]
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
        self.around = FakeExchangeHost(
            queue_type={"here": "rabbit_classic_queue", "three": "rabbit_quorum_queue"}.get,
            is_here=lambda name: name in self.here,
            pick=lambda count: count - 1,
        )


def test_local_random_chooses_among_the_queues_of_this_node() -> None:
    node = Node(["b", "c"])
    matcher = made("x-local-random", node.around)
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
    matcher = made("x-local-random", Node([]).around)
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
