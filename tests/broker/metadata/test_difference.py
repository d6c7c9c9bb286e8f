"""A state that takes the place of another, as one change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.metadata.change import Change, Fact
from fluffle.broker.metadata.difference import ORDER, difference
from fluffle.broker.metadata.facts import Kind
from fluffle.broker.metadata.state import STANDS_IN, Proposal, ProposalOutcome, State
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from tests.broker.metadata.sample_facts import VHOST, Node, binding, exchange, names, queue
from tests.broker.metadata.test_state_model import changes


def applied(steps: list[Change]) -> State:
    state = State()
    for number, change in enumerate(steps, 1):
        revisions = state.revisions(change.rests_on)
        state.apply(Proposal("a", 1, number, 1, change, revisions))
    return state


def test_every_kind_has_a_place_behind_what_it_stands_in() -> None:
    assert sorted(ORDER) == sorted(Kind)
    key = ("v", "x", "queue", "q", "k", b"")
    for kind, stands_in in STANDS_IN.items():
        for end, _ in stands_in(key):
            assert ORDER.index(end) < ORDER.index(kind)


@given(st.lists(changes(), max_size=8), st.lists(changes(), max_size=8))
def test_it_leads_from_one_to_the_other_a_fact_at_a_time(
    shared: list[Change], more: list[Change]
) -> None:
    before, after = applied(shared), applied([*shared, *more])
    change = difference(before, after)
    for fact in change.removes:
        step = Proposal("b", 1, before.last_revision + 1, 1, Change(removes=(fact,)), ())
        assert before.apply(step) is ProposalOutcome.APPLIED
    for fact in change.puts:
        step = Proposal("b", 1, before.last_revision + 1, 1, Change(puts=(fact,)), ())
        assert before.apply(step) is ProposalOutcome.APPLIED
    values = [
        {name: known.value for name in state if (known := state.find(name)) is not None}
        for state in (before, after)
    ]
    assert values[0] == values[1]
    assert difference(after, after).changes_nothing


def test_what_was_made_anew_ends_first() -> None:
    """Its queue has other messages, its exchange other bindings; a user has only changed."""
    user = VHOST._replace(kind=Kind.USER, key=("u",))
    state = State()
    node = Node(state)
    state.apply(node.propose(VHOST, user, exchange(), queue(), binding()))
    before = applied([Change(puts=(VHOST, user, exchange(), queue(), binding()))])
    state.apply(node.propose(removes=(binding(), queue(), exchange())))
    state.apply(node.propose(exchange(), queue(), user._replace(value="changed")))
    change = difference(before, state)
    assert names(*change.removes) == names(binding(), queue(), exchange())
    assert names(*change.puts) == names(user, exchange(), queue())


def test_a_queue_with_other_members_goes_on_with_its_bindings() -> None:
    """It is known by its id: its end would be the end of its messages."""

    def placed(id_: int, *members: tuple[str, int]) -> Fact:
        spec = QueueSpec("q", durable=True)
        return queue()._replace(value=QueueDefinition(spec, id=id_, members=members))

    first = Change(puts=(VHOST, exchange(), placed(7, ("a", 1)), binding()))
    before = applied([first])
    grown = applied([first, Change(puts=(placed(7, ("a", 1), ("b", 2)),))])
    change = difference(before, grown)
    assert names(*change.removes) == ()
    assert names(*change.puts) == names(queue())
    another = applied([first, Change(puts=(placed(8, ("a", 1)),))])
    assert names(*difference(before, another).removes) == names(binding(), queue())


def test_a_queue_that_has_become_its_successor_ends_not() -> None:
    """Else the members of the successor on this node would, with all messages."""

    def fact(id_: int, successor: QueueDefinition | None = None) -> Fact:
        spec = QueueSpec("q", durable=True)
        return queue()._replace(value=QueueDefinition(spec, id=id_, successor=successor))

    spec = QueueSpec("q", durable=True)
    first = Change(puts=(VHOST, exchange(), fact(7, QueueDefinition(spec, id=8)), binding()))
    before = applied([first])
    changed = difference(before, applied([first, Change(puts=(fact(8),))]))
    assert (names(*changed.removes), names(*changed.puts)) == ((), names(queue()))
    another = difference(before, applied([first, Change(puts=(fact(9),))]))
    assert names(*another.removes) == names(binding(), queue())
