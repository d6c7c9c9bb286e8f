"""The replicated definitions: a change is applied if it still holds, once, and nothing dangles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.config.config import ListenAddress
from fluffle.broker.durability.change_codec import decode_state, encode_state
from fluffle.broker.metadata.change import Change, CountLimit, Fact, Kind
from fluffle.broker.metadata.nodes import RegisteredNode
from fluffle.broker.metadata.state import (
    ABSENT,
    ORDER,
    STANDS_IN,
    MetadataState,
    Proposal,
    ProposalOutcome,
    difference,
)
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from tests.broker.metadata.sample_facts import VHOST, Node, binding, exchange, names, queue
from tests.broker.metadata.test_state_model import changes

APPLIED, STALE, REPEATED = ProposalOutcome.APPLIED, ProposalOutcome.STALE, ProposalOutcome.REPEATED


@pytest.fixture
def state() -> MetadataState:
    return MetadataState()


@pytest.fixture
def node(state: MetadataState) -> Node:
    """With a virtual host that has an exchange and two queues."""
    node = Node(state)
    assert state.apply(node.propose(VHOST, exchange(), queue(), queue("r"))) is APPLIED
    return node


def test_of_two_equal_declarations_one_is_decided_anew(state: MetadataState, node: Node) -> None:
    other = Node(state, "b")
    new = exchange("y")
    first, second = (each.propose(new, rests_on=names(new, VHOST)) for each in (node, other))
    assert [state.apply(first), state.apply(second)] == [APPLIED, STALE]
    assert state.revision(new.name) == 2


def test_what_came_again_under_its_name_is_another(state: MetadataState, node: Node) -> None:
    """Bound to an exchange that was deleted and declared anew: as another type, perhaps."""
    bind = node.propose(binding(), rests_on=names(exchange(), queue()))
    assert state.apply(node.propose(removes=(exchange(),))) is APPLIED
    assert state.apply(node.propose(exchange())) is APPLIED
    assert state.apply(bind) is STALE
    assert state.find(binding().name) is None


@pytest.mark.parametrize("ends", [(exchange(),), (queue(),), (queue(), exchange())])
def test_a_binding_that_came_in_between_is_not_left_dangling(
    state: MetadataState, node: Node, ends: tuple[Fact, ...]
) -> None:
    delete = node.propose(removes=ends, rests_on=names(*ends))
    assert state.apply(node.propose(binding())) is APPLIED
    assert state.apply(delete) is STALE
    assert state.apply(node.propose(removes=(*ends, binding()))) is APPLIED
    assert len(state) == 4 - len(ends)


@pytest.mark.parametrize("end", [exchange(), queue()])
def test_nothing_is_bound_to_what_has_gone(state: MetadataState, node: Node, end: Fact) -> None:
    bind = node.propose(binding())
    assert state.apply(node.propose(removes=(end,))) is APPLIED
    assert state.apply(bind) is STALE


def test_exchanges_of_the_broker_are_there_with_their_virtual_host(
    state: MetadataState, node: Node
) -> None:
    assert state.apply(node.propose(binding("amq.topic"))) is APPLIED
    everything = (exchange(), queue(), queue("r"), VHOST)
    assert state.apply(node.propose(removes=everything)) is STALE
    assert state.apply(node.propose(removes=(*everything, binding("amq.topic")))) is APPLIED
    assert state.apply(node.propose(binding("amq.topic"))) is STALE


def test_nothing_is_put_into_a_virtual_host_that_is_being_deleted(
    state: MetadataState, node: Node
) -> None:
    late = [node.propose(fact) for fact in (exchange("late"), binding("amq.topic"), VHOST)]
    mark = Fact(Kind.DOOMED, ("v",))
    assert state.apply(node.propose(mark)) is APPLIED
    assert [state.apply(each) for each in late] == [STALE] * 3
    assert state.apply(node.propose(removes=(exchange(), queue(), queue("r")))) is APPLIED
    assert state.apply(node.propose(removes=(VHOST, mark))) is APPLIED
    assert state.apply(node.propose(VHOST, exchange("late"))) is APPLIED


def test_what_is_gone_cannot_end_again(state: MetadataState, node: Node) -> None:
    first, second = (node.propose(removes=(queue(),)) for _ in range(2))
    assert [state.apply(first), state.apply(second)] == [APPLIED, STALE]


def test_a_fact_gets_another_value(state: MetadataState, node: Node) -> None:
    state.apply(node.propose(binding()))
    read = node.propose(VHOST._replace(value="mine"), rests_on=names(VHOST))
    assert (
        state.apply(node.propose(VHOST._replace(value="yours"), rests_on=names(VHOST))) is APPLIED
    )
    assert state.apply(read) is STALE
    known = state.find(VHOST.name)
    assert known is not None
    assert (known.value, known.revision) == ("yours", 3)
    assert state.apply(node.propose(removes=(VHOST,))) is STALE  # what stands in it is counted once


def test_the_last_place_is_given_once(state: MetadataState, node: Node) -> None:
    room = (CountLimit(Kind.QUEUE, "v", 3),)
    one, two = (node.propose(queue(name), room=room) for name in ("s", "t"))
    assert [state.apply(one), state.apply(two)] == [APPLIED, STALE]
    state.apply(node.propose(removes=(queue(),)))
    assert state.apply(node.propose(queue("t"), room=room)) is APPLIED


def test_who_leaves_the_last_one_to_another_meets_him(state: MetadataState, node: Node) -> None:
    """Two unbind the two bindings of an auto-delete exchange, and each sees the other's."""
    one, two = binding(key="1"), binding(key="2")
    state.apply(node.propose(one, two))
    first = node.propose(removes=(one,), rests_on=names(two))
    second = node.propose(removes=(two,), rests_on=names(one))
    assert [state.apply(first), state.apply(second)] == [APPLIED, STALE]


# Applied once


def test_a_proposal_counts_once_even_if_everything_is_as_it_was(
    state: MetadataState, node: Node
) -> None:
    declare = node.propose(exchange("y"), rests_on=names(exchange("y")))
    assert state.apply(declare) is APPLIED
    assert state.apply(node.propose(removes=(exchange("y"),))) is APPLIED
    assert state.revision(exchange("y").name) == ABSENT
    assert state.apply(declare) is REPEATED
    assert state.find(exchange("y").name) is None


def test_what_did_not_hold_does_not_hold_later(state: MetadataState, node: Node) -> None:
    bind = node.propose(binding("y"))
    assert state.apply(bind) is STALE
    state.apply(node.propose(exchange("y")))
    assert state.apply(bind) is REPEATED


def test_outcomes_are_kept_until_they_are_known(state: MetadataState, node: Node) -> None:
    proposals = [node.propose(queue(str(number))) for number in range(3)]
    for proposal in reversed(proposals):  # in any order
        state.apply(proposal)
    numbers = [proposal.number for proposal in proposals]
    assert [state.outcome("a", 1, number) for number in numbers] == [APPLIED] * 3
    node.known_below = numbers[2]
    assert state.apply(node.propose(removes=(queue("0"),))) is APPLIED
    assert [state.outcome("a", 1, number) for number in numbers] == [None, None, APPLIED]
    assert state.apply(proposals[0]) is REPEATED
    assert state.outcome("b", 1, 1) is None


def test_nothing_of_an_earlier_boot_counts(state: MetadataState, node: Node) -> None:
    late = node.propose(queue("late"))
    again = Node(state, boot=2)
    assert state.apply(again.propose(queue("now"))) is APPLIED
    assert state.apply(late) is REPEATED
    assert state.outcome("a", 1, 1) is None
    assert state.outcomes["a"].boot == 2


def member(name: str, boot: int = 0) -> Fact:
    return Fact(Kind.NODE, (name,), RegisteredNode(ListenAddress("h", 1), boot))


def test_only_nodes_of_the_cluster_change_anything(state: MetadataState, node: Node) -> None:
    """The rule applies as soon as the nodes are known; until then their names must be declared."""
    stranger = Node(state, "b")
    assert state.apply(node.propose(member("a"))) is APPLIED
    assert state.apply(stranger.propose(exchange("y"))) is REPEATED
    assert state.apply(node.propose(member("b"))) is APPLIED
    assert state.apply(stranger.propose(exchange("y"))) is APPLIED


def test_who_comes_under_the_name_of_a_removed_node_counts_anew(
    state: MetadataState, node: Node
) -> None:
    """With a new disk its boots and numbers begin at 1 again, and its proposals are its own."""
    assert state.apply(node.propose(member("a"), member("b"))) is APPLIED
    former = Node(state, "b", boot=5)
    assert state.apply(former.propose(exchange("y"))) is APPLIED
    late = former.propose(exchange("late"))
    assert state.apply(node.propose(removes=(member("b"),))) is APPLIED
    assert state.apply(late) is REPEATED
    assert state.outcome("b", 5, 1) is None
    assert state.apply(node.propose(member("b"))) is APPLIED
    assert state.apply(Node(state, "b", boot=1).propose(exchange("z"))) is APPLIED
    assert state.outcome("b", 1, 1) is APPLIED


def test_a_state_that_was_read_back_knows_whose_proposals_count(state: MetadataState) -> None:
    node = Node(state)
    assert state.apply(node.propose(member("a"))) is APPLIED
    again = decode_state(b"".join(encode_state(state)), MetadataState())
    assert again.apply(Node(again, "b").propose(member("c"))) is REPEATED
    assert again.apply(node.propose(removes=(member("a"),))) is APPLIED
    assert again.apply(Node(again, "b").propose(member("c"))) is APPLIED


def applied(steps: list[Change]) -> MetadataState:
    state = MetadataState()
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
    state = MetadataState()
    node = Node(state)
    state.apply(node.propose(VHOST, user, exchange(), queue(), binding()))
    before = applied([Change(puts=(VHOST, user, exchange(), queue(), binding()))])
    state.apply(node.propose(removes=(binding(), queue(), exchange())))
    state.apply(node.propose(exchange(), queue(), user._replace(value="changed")))
    change = difference(before, state)
    assert names(*change.removes) == names(binding(), queue(), exchange())
    assert names(*change.puts) == names(user, exchange(), queue())


def test_a_queue_with_other_members_goes_on_with_its_bindings() -> None:
    """The queue is identified by its id: deleting it would delete its messages."""

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


def test_what_clients_are_in_the_midst_of_may_begin_where_there_is_little_room(
    state: MetadataState, node: Node
) -> None:
    del node
    page = Fact(Kind.CLIENT_PACKETS, ("/", "c", "in", "0"), {1: None})
    assert not state.grows_by(Change(puts=(page,)))
    assert state.grows_by(Change(puts=(page, queue("new"))))
    assert not state.grows_by(Change(puts=(page, queue("r"))))
