"""Any proposals, late and repeated ones too, against a dict that a child could check."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.metadata.change import Change, CountLimit, Fact, Kind, Name
from fluffle.broker.metadata.state import MetadataState, Proposal, ProposalOutcome, stands_in

Model = dict[Name, tuple[object, int]]
"""Values and revisions."""

USER, VHOST = (Kind.USER, ("u",)), (Kind.VHOST, ("v",))
EXCHANGES = [(Kind.EXCHANGE, ("v", name)) for name in ("x", "y")]
QUEUES = [(Kind.QUEUE, ("v", name)) for name in ("q", "r")]
BINDINGS: list[Name] = [
    (Kind.BINDING, ("v", source, kind, destination, "k", b""))
    for source in ("x", "y", "amq.topic")
    for kind, destination in (("queue", "q"), ("exchange", "x"), ("exchange", "amq.topic"))
]
NAMES: list[Name] = [
    USER,
    VHOST,
    *EXCHANGES,
    *QUEUES,
    *BINDINGS,
    (Kind.PERMISSION, ("u", "v")),
    (Kind.TOPIC_PERMISSION, ("u", "v", "x")),
    (Kind.POLICY, ("v", "p")),
    (Kind.DOOMED, ("v",)),
    (Kind.STARTED, ()),
]


def fact(name: Name, value: int = 0) -> Fact:
    kind, key = name
    return Fact(kind, key, value)


FACTS = st.lists(st.builds(fact, st.sampled_from(NAMES), st.integers(0, 2)), max_size=3)
ROOM = st.lists(
    st.builds(CountLimit, st.just(Kind.QUEUE), st.just("v"), st.integers(1, 2)), max_size=1
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Mostly of parts that fit: with each fact comes what it stands in, or what stands in it."""
    removes, puts = draw(FACTS), draw(FACTS)
    if draw(st.booleans()):
        wanted = [each for put in puts for each in stands_in(put.name)]
        puts += [fact(name) for name in [*wanted, *above(wanted)]]
    if draw(st.booleans()):
        gone = {each.name for each in removes}
        removes += [
            fact(name) for name in NAMES if gone & {*stands_in(name), *above(stands_in(name))}
        ]
    rests_on = draw(st.lists(st.sampled_from(NAMES), max_size=2))
    return Change(tuple(removes), tuple(puts), tuple(rests_on), tuple(draw(ROOM)))


def above(names: Iterable[Name]) -> list[Name]:
    return [each for name in names for each in stands_in(name)]


def is_whole(model: Model) -> bool:
    return all(each in model for name in model for each in stands_in(name))


def after(model: Model, proposal: Proposal, revision: int) -> Model | None:
    """Model after a proposal; None if it is stale."""
    change = proposal.change
    seen = tuple(model.get(name, (None, 0))[1] for name in change.rests_on)
    if seen != proposal.revisions or not {each.name for each in change.removes} <= model.keys():
        return None
    for room in change.room:
        if sum(name[0] is room.kind and name[1][0] == room.vhost for name in model) >= room.limit:
            return None
    changed = dict(model)
    for each in change.removes:
        changed.pop(each.name, None)
    for each in change.puts:
        changed[each.name] = each.value, revision
    is_doomed = (Kind.DOOMED, ("v",)) in model
    if is_doomed and any(VHOST in (put.name, *stands_in(put.name)) for put in change.puts):
        return None
    return changed if is_whole(changed) else None


@given(data=st.data())
def test_the_state_is_what_a_dict_would_be(data: st.DataObject) -> None:
    state, model = MetadataState(), Model()
    state.last_revision = 1
    if data.draw(st.booleans()):  # begin with everything
        for name in NAMES:
            state.put(fact(name), state.last_revision)
            model[name] = 0, state.last_revision
    sent: list[Proposal] = []
    seen: dict[int, bool] = {}
    for _ in range(15):
        if sent and data.draw(st.integers(0, 3)) == 0:
            proposal = data.draw(st.sampled_from(sent))  # late, or once more
        else:
            change = data.draw(changes())
            seen_at = state.revisions(change.rests_on)
            proposal = Proposal("a", 1, len(sent) + 1, 1, change, seen_at)
            sent.append(proposal)
            if data.draw(st.integers(0, 3)) == 0:
                continue  # it comes later, if at all
        revision = state.last_revision + 1
        expected = None if proposal.number in seen else after(model, proposal, revision)
        outcome = state.apply(proposal)
        if proposal.number in seen:
            assert outcome is ProposalOutcome.REPEATED
        else:
            assert outcome is (
                ProposalOutcome.STALE if expected is None else ProposalOutcome.APPLIED
            )
            seen[proposal.number] = expected is not None
        model = model if expected is None else expected
        assert {name: state.find(name) for name in state} == model
        assert is_whole(model)
    assert state.outcomes == {} or state.outcomes["a"].applied == seen


@given(data=st.data(), change=changes(), start=st.lists(changes(), max_size=8))
def test_the_order_within_a_change_does_not_matter(
    data: st.DataObject, change: Change, start: list[Change]
) -> None:
    def applied_last(last: Change) -> tuple[ProposalOutcome, dict[Name, object]]:
        state = MetadataState()

        def apply(number: int, change: Change) -> ProposalOutcome:
            revisions = state.revisions(change.rests_on)
            return state.apply(Proposal("a", 1, number, 1, change, revisions))

        for number, each in enumerate(start, 1):
            apply(number, each)
        return apply(len(start) + 1, last), {name: state.find(name) for name in state}

    puts = {put.name: put for put in change.puts}
    once = change._replace(puts=tuple(puts.values()))
    shuffled = once._replace(
        removes=tuple(data.draw(st.permutations(tuple(once.removes)))),
        puts=tuple(data.draw(st.permutations(once.puts))),
    )
    assert applied_last(once) == applied_last(shuffled)
