"""Binding and unbinding, and what goes along with what is deleted."""

from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fluffle.broker.base.errors import AccessRefused, NotFound, PreconditionFailed
from fluffle.broker.routing import changes, matcher
from fluffle.broker.routing import topology as topologies
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.properties import Properties
from tests.broker.routing.topologies import (
    FakeExchangeHost,
    apply,
    bind,
    declare,
    delete,
    drop_queue,
    matches_of,
    names,
    removal_of,
    to_exchange,
    to_queue,
    topology,
    unbind,
)
from tests.suite.seeds import machine_settings
from tests.support.topologies import bindings_from

QUEUE, EXCHANGE = DestinationKind.QUEUE, DestinationKind.EXCHANGE


def auto_delete(name: str, type: str = "fanout") -> ExchangeSpec:
    return ExchangeSpec(name, type, auto_delete=True)


def gone(removed: list[ExchangeSpec]) -> list[str]:
    return [spec.name for spec in removed]


def test_a_binding_is_listed_from_its_source_and_from_its_destination() -> None:
    first, second = to_queue("amq.direct", "q", "a"), to_queue("amq.topic", "q", "b.#")
    made = topology(first, second)
    assert bindings_from(made, "amq.direct") == [first]
    assert list(made.bindings_to(QUEUE, "q")) == [first, second]
    assert list(made.bindings_to(EXCHANGE, "q")) == []
    assert bindings_from(made, "nope") == []


def test_binding_twice_is_binding_once() -> None:
    made = Topology("/")
    binding = to_queue("amq.direct", "q", "a")
    assert bind(made, binding)
    assert not bind(made, binding)
    assert len(list(made.bindings_to(QUEUE, "q"))) == 1


def test_a_binding_that_two_nodes_made_at_once_is_there_once() -> None:
    """Both have decided before either was applied."""
    binding = to_queue("amq.direct", "q", "a")
    made = topology(binding)
    epoch = made.epoch
    made.put_binding(binding)
    assert (list(made.bindings_to(QUEUE, "q")), made.epoch) == ([binding], epoch)
    made.remove_binding(binding)
    assert list(made.bindings_to(QUEUE, "q")) == []


def test_the_order_of_arguments_does_not_tell_bindings_apart() -> None:
    made = topology(to_queue("amq.headers", "q", "", {"a": ("I", 1), "b": ("I", 2)}))
    unbind(made, to_queue("amq.headers", "q", "", {"b": ("I", 2), "a": ("I", 1)}))
    assert list(made.bindings_to(QUEUE, "q")) == []


@pytest.mark.parametrize(
    "binding", [to_queue("", "q", "q"), to_exchange("", "x"), to_exchange("nope", "")]
)
def test_the_default_exchange_cannot_be_bound_or_unbound(binding: Binding) -> None:
    made = topology(ExchangeSpec("x"))
    for operation in (bind, unbind):
        with pytest.raises(AccessRefused) as caught:
            operation(made, binding)
        assert caught.value.explanation == "operation not permitted on the default exchange"


@pytest.mark.parametrize(
    ("binding", "missing"),
    [
        (to_queue("nope", "q"), "nope"),
        (to_exchange("nope", "x"), "nope"),
        (to_exchange("x", "nope"), "nope"),
        (to_exchange("nope1", "nope2"), "nope1"),
        # Looked for before the arguments are looked at.
        (to_exchange("amq.headers", "nope", "", {"x-match": ("I", 1)}), "nope"),
    ],
)
def test_the_first_missing_end_is_reported_source_first(binding: Binding, missing: str) -> None:
    made = topology(ExchangeSpec("x"))
    with pytest.raises(NotFound) as caught:
        bind(made, binding)
    assert caught.value.explanation == f"no exchange '{missing}' in vhost '/'"


def test_a_binding_that_the_type_refuses_leaves_no_trace() -> None:
    made = Topology("/")
    for binding in (
        to_queue("amq.topic", "q", "#.#.#"),
        to_queue("amq.headers", "q", "", {"x-match": ("S", b"most")}),
    ):
        with pytest.raises(PreconditionFailed):
            bind(made, binding)
    assert list(made.bindings_to(QUEUE, "q")) == []
    assert made.epoch == 0


@pytest.mark.parametrize(
    "binding",
    [
        to_queue("amq.direct", "q", "other"),
        to_queue("nope", "q"),
        to_exchange("amq.direct", "nope"),
        to_queue("amq.headers", "q", "", {"x-match": ("S", b"most")}),
        to_queue("amq.topic", "q", "#.#.#"),
    ],
)
def test_unbinding_what_is_not_there_is_no_error(binding: Binding) -> None:
    made = topology(to_queue("amq.direct", "q", "a"))
    epoch = made.epoch
    assert unbind(made, binding).bindings == []
    assert made.epoch == epoch


def test_an_auto_delete_exchange_goes_with_its_last_binding_as_source() -> None:
    made = topology(auto_delete("x"), to_queue("x", "q1"), to_queue("x", "q2"))
    assert gone(unbind(made, to_queue("x", "q1")).exchanges) == []
    assert gone(unbind(made, to_queue("x", "q1")).exchanges) == []
    assert gone(unbind(made, to_queue("x", "q2")).exchanges) == ["x"]
    assert names(made) == []


def test_an_auto_delete_exchange_that_never_was_a_source_stays() -> None:
    made = topology(ExchangeSpec("a", "fanout"), auto_delete("x"), to_exchange("a", "x"))
    unbind(made, to_exchange("a", "x"))
    assert names(made) == ["a", "x"]


def test_auto_delete_goes_up_a_chain() -> None:
    chain = [auto_delete("a"), auto_delete("b"), auto_delete("c")]
    made = topology(*chain, to_exchange("a", "b"), to_exchange("b", "c"), to_queue("c", "q"))
    removed = unbind(made, to_queue("c", "q"))
    assert gone(removed.exchanges) == ["c", "b", "a"]
    assert removed.bindings == [to_queue("c", "q"), to_exchange("b", "c"), to_exchange("a", "b")]
    assert names(made) == []


def test_auto_delete_stops_where_a_binding_is_left() -> None:
    made = topology(
        auto_delete("a"),
        auto_delete("b"),
        to_exchange("a", "b"),
        to_queue("a", "q"),
        to_queue("b", "q"),
    )
    assert gone(unbind(made, to_queue("b", "q")).exchanges) == ["b"]
    assert bindings_from(made, "a") == [to_queue("a", "q")]


def test_auto_delete_goes_around_a_loop() -> None:
    made = topology(
        auto_delete("a"),
        auto_delete("b"),
        to_exchange("a", "b"),
        to_exchange("b", "a"),
    )
    assert gone(unbind(made, to_exchange("a", "b")).exchanges) == ["a", "b"]
    assert list(made.bindings_to(EXCHANGE, "a")) == []


def test_an_auto_delete_exchange_bound_to_itself() -> None:
    made = topology(auto_delete("a"), to_exchange("a", "a"))
    assert gone(unbind(made, to_exchange("a", "a")).exchanges) == ["a"]


def test_deleting_an_exchange_takes_bindings_on_both_sides() -> None:
    made = topology(
        ExchangeSpec("a"),
        ExchangeSpec("b"),
        auto_delete("c"),
        to_exchange("a", "b", "k"),
        to_exchange("b", "c"),
        to_exchange("b", "b"),
        to_queue("b", "q"),
        to_queue("c", "q"),
    )
    removed = delete(made, "b")
    assert gone(removed.exchanges) == ["b"]
    assert set(removed.bindings) == {
        to_exchange("a", "b", "k"),
        to_exchange("b", "c"),
        to_exchange("b", "b"),
        to_queue("b", "q"),
    }
    assert len(removed.bindings) == 4
    assert bindings_from(made, "a") == list(made.bindings_to(EXCHANGE, "c")) == []
    assert list(made.bindings_to(QUEUE, "q")) == [to_queue("c", "q")]


def test_deleting_a_destination_takes_auto_delete_sources_along() -> None:
    made = topology(
        auto_delete("a"),
        auto_delete("b"),
        ExchangeSpec("c"),
        to_exchange("a", "b"),
        to_exchange("b", "c"),
    )
    assert gone(delete(made, "c").exchanges) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("asked", "left"),
    [("ab", "d"), ("ba", "d"), ("aa", "bd"), ("bab", "d"), ("abcd", ""), ("dcba", "")],
)
def test_exchanges_that_go_together_are_named_once_with_what_is_between_them(
    asked: str, left: str
) -> None:
    bindings = [
        to_exchange("a", "b"),
        to_exchange("b", "a"),
        to_exchange("c", "a"),
        to_exchange("d", "c"),
        to_exchange("d", "d"),
        to_queue("a", "q"),
        to_queue("e", "q"),
    ]
    exchanges = [
        ExchangeSpec("a"),
        ExchangeSpec("b"),
        ExchangeSpec("c", auto_delete=True),
        ExchangeSpec("d", auto_delete=True),
        ExchangeSpec("e", auto_delete=True),
    ]
    made = topology(*exchanges, *bindings)
    removed = apply(made, removal_of(made, exchanges=asked, queues=("q",)))
    assert names(made) == list(left)
    staying = [binding for name in left for binding in bindings_from(made, name)]
    assert staying == ([to_exchange("d", "d")] if "d" in left else [])
    assert len(removed.bindings) + len(staying) == len(bindings)
    assert {*removed.bindings, *staying} == {*bindings}


def test_deleting_a_source_leaves_its_destinations() -> None:
    made = topology(auto_delete("a"), auto_delete("b"), to_exchange("a", "b"))
    assert gone(delete(made, "a").exchanges) == ["a"]
    assert names(made) == ["b"]


def test_a_deleted_queue_takes_its_bindings_and_auto_delete_exchanges() -> None:
    bindings = [to_queue("amq.topic", "q", f"k.{number}") for number in range(20)]
    made = topology(*bindings, auto_delete("x"), to_queue("x", "q"), to_queue("amq.topic", "other"))
    removed = drop_queue(made, "q")
    assert gone(removed.exchanges) == ["x"]
    assert set(removed.bindings) == {*bindings, to_queue("x", "q")}
    assert bindings_from(made, "amq.topic") == [to_queue("amq.topic", "other")]
    assert drop_queue(made, "q").bindings == []


def test_the_epoch_rises_when_a_route_may_have_changed() -> None:
    made = Topology("/")
    binding = to_queue("x", "q")
    for change in (
        lambda: declare(made, ExchangeSpec("x")),
        lambda: bind(made, binding),
        lambda: unbind(made, binding),
        lambda: bind(made, binding),
        lambda: drop_queue(made, "q"),
        lambda: delete(made, "x"),
    ):
        before = made.epoch
        change()
        assert made.epoch > before


def test_the_epoch_stands_when_nothing_changed() -> None:
    made = topology(ExchangeSpec("x"), to_queue("x", "q"))
    before = made.epoch
    declare(made, ExchangeSpec("x"))
    bind(made, to_queue("x", "q"))
    unbind(made, to_queue("x", "other"))
    delete(made, "nope")
    drop_queue(made, "other")
    assert made.epoch == before


EXCHANGES = st.sampled_from(["a", "b", "c", "d"])
BINDINGS = st.one_of(
    st.builds(to_exchange, EXCHANGES, EXCHANGES, st.sampled_from(["", "k", "k.#"])),
    st.builds(to_queue, EXCHANGES, st.sampled_from(["q", "r"]), st.sampled_from(["", "k", "k.#"])),
)


class TopologyAgainstSet(RuleBasedStateMachine):
    """A topology keeps what a set of bindings and a dict of exchanges would keep."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Iterator[None]] = []
        """Work that is put off: what is gone is taken out of matchers, a binding at a time."""
        self.topology = Topology("/", host=FakeExchangeHost(later=self.later.append))
        self.specs: dict[str, ExchangeSpec] = {}
        self.bindings: set[Binding] = set()

    def remove(self, doomed: set[Binding]) -> None:
        self.bindings -= doomed
        bereft = {b.source for b in doomed} - {b.source for b in self.bindings}
        for name in bereft:
            if name in self.specs and self.specs[name].auto_delete:
                self.remove_exchange(name)

    def remove_exchange(self, name: str) -> None:
        del self.specs[name]
        self.bindings = {b for b in self.bindings if b.source != name}
        self.remove({b for b in self.bindings if b == to_exchange(b.source, name, b.routing_key)})

    @rule(
        name=EXCHANGES,
        type=st.sampled_from(["direct", "fanout", "topic", "headers"]),
        auto_delete=st.booleans(),
    )
    def declare(self, name: str, type: str, auto_delete: bool) -> None:
        is_new = name not in self.specs
        spec = self.specs.setdefault(name, ExchangeSpec(name, type, auto_delete=auto_delete))
        assert declare(self.topology, spec) == is_new

    @rule(binding=BINDINGS)
    def bind(self, binding: Binding) -> None:
        ends = {binding.source}
        if binding.destination_kind is EXCHANGE:
            ends.add(binding.destination)
        if ends <= self.specs.keys():
            assert bind(self.topology, binding) == (binding not in self.bindings)
            self.bindings.add(binding)
        else:
            with pytest.raises(NotFound):
                bind(self.topology, binding)

    @rule(binding=BINDINGS)
    def unbind(self, binding: Binding) -> None:
        unbind(self.topology, binding)
        self.remove(self.bindings & {binding})

    @rule(name=EXCHANGES)
    def delete(self, name: str) -> None:
        delete(self.topology, name)
        if name in self.specs:
            self.remove_exchange(name)

    @rule(name=st.sampled_from(["q", "r"]))
    def drop_queue(self, name: str) -> None:
        drop_queue(self.topology, name)
        self.remove({b for b in self.bindings if b == to_queue(b.source, name, b.routing_key)})

    @rule(
        exchanges=st.lists(EXCHANGES, max_size=3),
        queues=st.lists(st.sampled_from(["q", "r"]), max_size=2, unique=True),
    )
    def drop_several(self, exchanges: list[str], queues: list[str]) -> None:
        """Together, as the queues of a connection go, with the exchanges that they belong to."""
        there = [name for name in exchanges if name in self.specs]
        apply(self.topology, removal_of(self.topology, exchanges=there, queues=queues))
        for name in there:
            if name in self.specs:
                self.remove_exchange(name)
        for name in queues:
            self.remove({b for b in self.bindings if b == to_queue(b.source, name, b.routing_key)})

    @precondition(lambda self: self.later)
    @rule()
    def go_on(self) -> None:
        if next(self.later[0], self) is self:
            del self.later[0]

    @invariant()
    def all_that_is_bound_is_found(self) -> None:
        for name, spec in self.specs.items():
            exchange = self.topology.find(name)
            assert exchange is not None
            bound = [b for b in self.bindings if b.source == name]
            assert len(exchange.matcher) == len(bound)
            found = matches_of(exchange.matcher, ["k"], Properties())
            wanted = {
                b for b in bound if spec.type in ("fanout", "headers") or b.routing_key == "k"
            }
            if spec.type == "topic":
                wanted |= {b for b in bound if b.routing_key == "k.#"}
            assert set(found) == wanted

    @invariant()
    def the_same_is_there(self) -> None:
        assert set(names(self.topology)) == set(self.specs)
        found = [b for name in self.specs for b in bindings_from(self.topology, name)]
        ends = {(b.destination_kind, b.destination) for b in self.bindings}
        inbound = [b for kind, name in ends for b in self.topology.bindings_to(kind, name)]
        assert len(found) == len(inbound) == len(self.bindings)
        assert set(found) == set(inbound) == self.bindings
        assert self.topology._inbound.keys() == ends


@pytest.fixture(autouse=True, scope="module")
def few_are_many() -> Iterator[None]:
    """Lower the limits, so that work for thousands of bindings is done for two, a binding a
    piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topologies, "REMOVED_AT_ONCE", 1)
        patch.setattr(changes, "REMOVED_AT_ONCE", 1)
        patch.setattr(matcher, "WORDS_AT_ONCE", 1)
        yield


TestTopologyAgainstSet = TopologyAgainstSet.TestCase
TestTopologyAgainstSet.settings = machine_settings()
