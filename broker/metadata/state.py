"""The definitions of a cluster as every node has them: names, values, revisions.

Nothing here decides: a change is applied if it still holds, or it is not, by looking at names and
numbers only, so that all nodes find the same.  After every change the state is *whole*: whatever
is there stands in what is there.  `difference` is the change from one state to another that takes
its place, when what lies between is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeVar

from fluffle.broker.metadata.change import Change, CountLimit, Fact, Key, Kind, Name

RESERVED_PREFIX = "amq."
"""Exchanges of the broker itself come and go with their virtual host, and are no facts."""


def _vhost(key: Key) -> tuple[Name, ...]:
    return ((Kind.VHOST, key[:1]),)


def _client_session(key: Key) -> tuple[Name, ...]:
    return ((Kind.CLIENT_SESSION, key[:2]),)


def _user_and_vhost(key: Key) -> tuple[Name, ...]:
    return (Kind.USER, key[:1]), (Kind.VHOST, key[1:2])


def _ends(key: Key) -> tuple[Name, ...]:
    vhost, source, kind, destination, *_ = key
    return end(Kind.EXCHANGE, vhost, source), end(Kind(str(kind)), vhost, destination)


def end(kind: Kind, vhost: str | bytes, name: str | bytes) -> Name:
    """Return the name of one end of a binding, or the virtual host in its place."""
    is_own = kind is Kind.EXCHANGE and str(name).startswith(RESERVED_PREFIX)
    return (Kind.VHOST, (vhost,)) if is_own else (kind, (vhost, name))


STANDS_IN: Mapping[Kind, Callable[[Key], tuple[Name, ...]]] = {
    Kind.PERMISSION: _user_and_vhost,
    Kind.TOPIC_PERMISSION: _user_and_vhost,
    Kind.DOOMED: _vhost,
    Kind.EXCHANGE: _vhost,
    Kind.QUEUE: _vhost,
    Kind.RETAINED: _vhost,
    Kind.CLIENT_SESSION: _vhost,
    Kind.CLIENT_PACKETS: _client_session,
    Kind.CLIENT_WILL: _vhost,
    Kind.BINDING: _ends,
}
"""The other kinds stand alone."""


def is_closed(name: Name, known: Container[Name]) -> bool:
    """True if it may only end, and nothing be put into it: a virtual host that is being deleted."""
    kind, key = name
    return kind is Kind.VHOST and (Kind.DOOMED, key) in known


def stands_in(name: Name) -> tuple[Name, ...]:
    """Return the names of what must be there."""
    kind, key = name
    ends = STANDS_IN.get(kind)
    return ends(key) if ends is not None else ()


K = TypeVar("K")

ABSENT = 0
"""The revision of every name that is not there."""


NO_GROWTH = frozenset({Kind.NODE, Kind.DOOMED, Kind.CLIENT_PACKETS, Kind.CLIENT_WILL})
"""Facts that may begin where there is little room."""


class VersionedValue(NamedTuple):
    """Value under one name, and the change that set it."""

    value: object
    revision: int


class Proposal(NamedTuple):
    """A change on its way through the log."""

    node: str
    """Where it was decided."""
    boot: int
    number: int
    """Counted by the node in this boot, from 1."""
    known_below: int
    """The node has seen what became of all its lower numbers, or does not wait for it any more."""
    change: Change
    revisions: tuple[int, ...]
    """Revision of each name that the change depends on, when it was decided."""


@dataclass(slots=True)
class ProposalOutcomes:
    """Outcomes of the proposals of one node in its newest boot."""

    boot: int
    known_below: int = 1
    """Proposals with lower numbers will not be asked for; they are not applied any more."""
    applied: dict[int, bool] = field(default_factory=dict)
    """Outcomes by number, from there on: whether the proposal was applied."""


class ProposalOutcome(Enum):
    """Outcome of one proposal to change definitions."""

    APPLIED = "applied"
    STALE = "stale"
    """Its basis has changed: nothing was applied."""
    REPEATED = "repeated"
    """Its number was used before, or is too old to check, or its node is not in the cluster: it has
    changed nothing, this time."""


class MetadataState:
    """Definitions, and which proposals they have seen."""

    def __init__(self) -> None:
        self.last_revision = ABSENT
        """Revision of the last applied change: they are counted."""
        self._known: dict[Name, VersionedValue] = {}
        self._nodes = 0
        """How many nodes are registered; proposals of others count only while there is none."""
        self._standing: Counter[Name] = Counter()
        """How many stand in each name.  No name without one."""
        self._counts: Counter[tuple[Kind, str | bytes]] = Counter()
        """How many there are of a kind by the first part of their names: of queues in a virtual
        host, for one.  None that is 0."""
        self.outcomes: dict[str, ProposalOutcomes] = {}
        """Outcomes by node."""

    # Questions

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Name]:
        return iter(self._known)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def find(self, name: Name) -> VersionedValue | None:
        return self._known.get(name)

    def values(self) -> dict[Name, VersionedValue]:
        """Return all values as they are now, in the order in which their names came: a copy, made
        in some milliseconds for a hundred thousand."""
        return self._known.copy()

    def revision(self, name: Name) -> int:
        known = self._known.get(name)
        return ABSENT if known is None else known.revision

    def revisions(self, names: Iterable[Name]) -> tuple[int, ...]:
        """Return what a change that is decided now rests on."""
        return tuple(map(self.revision, names))

    def completed(self, change: Change) -> Change:
        """Return the change with the values of what ends, which are not in the log."""
        removes = [fact._replace(value=self._value(fact.name)) for fact in change.removes]
        return change._replace(removes=tuple(removes))

    def _value(self, name: Name) -> object:
        known = self._known.get(name)
        return None if known is None else known.value

    def outcome(self, node: str, boot: int, number: int) -> ProposalOutcome | None:
        """Return the outcome of a proposal; None if it has not come, or cannot be known any
        more."""
        outcomes = self.outcomes.get(node)
        if outcomes is None or outcomes.boot != boot or number not in outcomes.applied:
            return None
        return ProposalOutcome.APPLIED if outcomes.applied[number] else ProposalOutcome.STALE

    def grows_by(self, change: Change) -> bool:
        """True if there is more to be remembered after a change.

        What nodes come to is not asked: they must always be able to say in which life they are.
        Nor is how far clients are with their messages: that is bounded for each, a change has that
        of many, and what they finish makes room.
        """
        return any(
            fact.kind not in NO_GROWTH and fact.name not in self._known for fact in change.puts
        )

    def holds(self, change: Change, revisions: tuple[int, ...]) -> bool:
        """True if a change that was decided on these revisions can be applied now."""
        unchanged = self.revisions(change.rests_on) == revisions
        return unchanged and all(map(self._has_room, change.room)) and self._stays_whole(change)

    def _has_room(self, room: CountLimit) -> bool:
        return self._counts[room.kind, room.vhost] < room.limit

    def _stays_whole(self, change: Change) -> bool:
        """True if what ends is there, and then nothing is left without what it stands in."""
        ends = {fact.name for fact in change.removes}
        begins = {fact.name for fact in change.puts}
        more: Counter[Name] = Counter()
        for name in ends:
            if name not in self._known:
                return False
            more.subtract(stands_in(name))
        for name in begins:
            wanted = stands_in(name)
            if any(is_closed(each, self._known) for each in (name, *wanted)):
                return False
            if any(each not in begins and self._ends(each, ends) for each in wanted):
                return False
            if self._ends(name, ends):
                more.update(wanted)
        return not any(self._standing[name] + more[name] for name in ends - begins)

    def _ends(self, name: Name, ends: set[Name]) -> bool:
        """True if there is nothing of that name once `ends` have ended."""
        return name in ends or name not in self._known

    # Changes

    def apply(self, proposal: Proposal) -> ProposalOutcome:
        """Apply a proposal, unless it has come before or does not hold."""
        outcomes = self._outcomes_of(proposal)
        if outcomes is None:
            return ProposalOutcome.REPEATED
        holds = self.holds(proposal.change, proposal.revisions)
        outcomes.applied[proposal.number] = holds
        if not holds:
            return ProposalOutcome.STALE
        self.last_revision += 1
        for fact in proposal.change.removes:
            self._remove(fact)
        for fact in proposal.change.puts:
            self.put(fact, self.last_revision)
        return ProposalOutcome.APPLIED

    def put(self, fact: Fact, revision: int) -> None:
        """Put a value under a name."""
        name = fact.name
        if name not in self._known:
            self._nodes += fact.kind is Kind.NODE
            self._counts[fact.kind, fact.key[0] if fact.key else ""] += 1
            for each in stands_in(name):
                self._standing[each] += 1
        self._known[name] = VersionedValue(fact.value, revision)

    def _remove(self, fact: Fact) -> None:
        name = fact.name
        if self._known.pop(name, None) is None:
            return  # named twice
        if fact.kind is Kind.NODE:
            self._nodes -= 1
            self.outcomes.pop(str(fact.key[0]), None)  # one that comes under its name counts anew
        lessen(self._counts, (fact.kind, fact.key[0] if fact.key else ""))
        for each in stands_in(name):
            lessen(self._standing, each)

    def _outcomes_of(self, proposal: Proposal) -> ProposalOutcomes | None:
        """Return where the outcome of a proposal belongs; None if it has one already, or if it is
        of an earlier boot, or of no node."""
        if self._nodes and (Kind.NODE, (proposal.node,)) not in self._known:
            return None  # it was removed
        outcomes = self.outcomes.get(proposal.node)
        if outcomes is None or outcomes.boot < proposal.boot:
            outcomes = self.outcomes[proposal.node] = ProposalOutcomes(proposal.boot)
        elif proposal.boot < outcomes.boot:
            return None
        if proposal.known_below > outcomes.known_below:
            outcomes.known_below = proposal.known_below
            for number in [each for each in outcomes.applied if each < proposal.known_below]:
                del outcomes.applied[number]
        is_known = proposal.number < outcomes.known_below or proposal.number in outcomes.applied
        return None if is_known else outcomes


def lessen(counts: Counter[K], name: K) -> None:
    """Count one less; nothing is kept that is 0."""
    counts[name] -= 1
    if not counts[name]:
        del counts[name]


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
    Kind.RETAINED,
    Kind.CLIENT_SESSION,
    Kind.CLIENT_PACKETS,
    Kind.CLIENT_WILL,
    Kind.DOOMED,
)
"""In which facts can begin, and backwards end, one by one."""

PLACE: Mapping[Kind, int] = {kind: place for place, kind in enumerate(ORDER)}

MADE_ANEW = frozenset({Kind.EXCHANGE, Kind.QUEUE, Kind.BINDING})
"""A fact of these that came later under the same name is another thing, not the same changed."""


def difference(before: MetadataState, after: MetadataState) -> Change:
    """Return what has ended and begun, in an order in which it can be done."""
    removes = sorted(ended(before, after), key=place, reverse=True)
    puts = sorted(begun(before, after), key=place)
    return Change(tuple(removes), tuple(puts))


def ended(before: MetadataState, after: MetadataState) -> Iterator[Fact]:
    for name in before:
        if after.find(name) is None or is_another(name, before, after):
            yield fact_of(before, name)


def begun(before: MetadataState, after: MetadataState) -> Iterator[Fact]:
    for name in after:
        if has_changed(name, before, after) or is_another(name, before, after):
            yield fact_of(after, name)


def has_changed(name: Name, before: MetadataState, after: MetadataState) -> bool:
    return before.revision(name) != after.revision(name)


def is_another(name: Name, before: MetadataState, after: MetadataState) -> bool:
    """True if it has ended and begun again, it or what it stands in."""
    if is_closed(name, before):
        return has_changed(name, before, after)
    parts = [each for each in (name, *stands_in(name)) if each[0] in MADE_ANEW]
    return name[0] in MADE_ANEW and any(is_made_anew(each, before, after) for each in parts)


def is_made_anew(name: Name, before: MetadataState, after: MetadataState) -> bool:
    """True if it is not what it was; a queue that has other members is."""
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


def fact_of(state: MetadataState, name: Name) -> Fact:
    known = state.find(name)
    assert known is not None
    return Fact(*name, known.value)


def place(fact: Fact) -> int:
    return PLACE[fact.kind]
