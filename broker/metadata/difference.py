"""From one state to another that takes its place, when what lies between is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fluffle.broker.metadata.change import Change, Fact, Name
from fluffle.broker.metadata.facts import Kind
from fluffle.broker.metadata.state import State, is_closed, stands_in

ORDER = (
    Kind.STARTED,
    Kind.NODE,
    Kind.GLOBAL_PARAMETER,
    Kind.USER,
    Kind.VHOST,
    Kind.PERMISSION,
    Kind.TOPIC_PERMISSION,
    Kind.POLICY,
    Kind.PARAMETER,
    Kind.EXCHANGE,
    Kind.QUEUE,
    Kind.BINDING,
    Kind.DOOMED,
)
"""In which facts can begin, and backwards end, one by one."""

PLACE: Mapping[Kind, int] = {kind: place for place, kind in enumerate(ORDER)}

MADE_ANEW = frozenset({Kind.EXCHANGE, Kind.QUEUE, Kind.BINDING})
"""A fact of these that came later under the same name is another thing, not the same changed."""


def difference(before: State, after: State) -> Change:
    """Return what has ended and begun, in an order in which it can be done."""
    removes = sorted(ended(before, after), key=place, reverse=True)
    puts = sorted(begun(before, after), key=place)
    return Change(tuple(removes), tuple(puts))


def ended(before: State, after: State) -> Iterator[Fact]:
    for name in before:
        if after.find(name) is None or is_another(name, before, after):
            yield fact_of(before, name)


def begun(before: State, after: State) -> Iterator[Fact]:
    for name in after:
        if has_changed(name, before, after) or is_another(name, before, after):
            yield fact_of(after, name)


def has_changed(name: Name, before: State, after: State) -> bool:
    return before.revision(name) != after.revision(name)


def is_another(name: Name, before: State, after: State) -> bool:
    """Whether it has ended and begun again, it or what it stands in."""
    if is_closed(name, before):
        return has_changed(name, before, after)
    parts = [each for each in (name, *stands_in(name)) if each[0] in MADE_ANEW]
    return name[0] in MADE_ANEW and any(is_made_anew(each, before, after) for each in parts)


def is_made_anew(name: Name, before: State, after: State) -> bool:
    """Whether it is not what it was; a queue that has other members is."""
    if not has_changed(name, before, after):
        return False
    old, new = before.find(name), after.find(name)
    if name[0] is not Kind.QUEUE or old is None or new is None:
        return True
    if id_of(getattr(old.value, "successor", None)) == id_of(new.value) != 0:
        return False  # it has had its messages, and has taken its place
    return id_of(old.value) != id_of(new.value) or not id_of(new.value)


def id_of(queue: object) -> object:
    """Return the id of a queue of a cluster, which is all that is known here of what is defined."""
    return getattr(queue, "id", 0)


def fact_of(state: State, name: Name) -> Fact:
    known = state.find(name)
    assert known is not None
    return Fact(*name, known.value)


def place(fact: Fact) -> int:
    return PLACE[fact.kind]
