"""Linearizability of answers about a thing: which no order of the operations explains.

Whatever was asked happened at one moment between its question and its answer, and what had no
answer at any moment after its question, or never.  So the answers that were given by then leave
some *worlds* that are possible; an answer that fits none of them is stale.  A declare is answered
whether the thing was there or not, and so is a delete: only a look can be wrong.

"Not there" is stale whichever node says it.  "There" is stale if the node that says so has known
better, or if all has been well for a while; else it is outdated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fluffle.broker.torture.checker import Breach, Findings
from fluffle.broker.torture.history import (
    Abandoned,
    Answered,
    Connected,
    Event,
    GraceOver,
    Invoked,
    Operation,
)

WITHOUT_ANSWER_MAX = 4
"""Declares and deletes of one thing; with more of them nearly every answer can be explained."""


class PossibleState(NamedTuple):
    """Possible state of a thing."""

    is_there: bool
    done: frozenset[str] = frozenset()
    """Clients whose declare or delete has happened, and has no answer yet."""
    seen: frozenset[tuple[str, bool]] = frozenset()
    """The states that clients that look may have seen since they asked."""


EITHER = frozenset({PossibleState(is_there=True), PossibleState(is_there=False)})


@dataclass(slots=True)
class ThingState:
    """The knowledge of one thing.  It may be there from before the history."""

    worlds: set[PossibleState] = field(default_factory=lambda: set(EITHER))
    writing: dict[str, bool] = field(default_factory=dict)
    """Writes under way, by client: True for a declare, False for a delete."""
    looking: set[str] = field(default_factory=set)
    without_answer: int = 0
    declared_at: int = 0
    """When a declare was under way for the last time, if none is; the number of the event."""
    deleted_at: int = 0
    """The same of a delete."""

    @property
    def is_declaring(self) -> bool:
        return any(self.writing.values())

    @property
    def is_deleting(self) -> bool:
        return not all(self.writing.values())

    @property
    def is_unknowable(self) -> bool:
        return self.without_answer > WITHOUT_ANSWER_MAX

    def look(self, client: str) -> None:
        self.looking.add(client)
        self.worlds = {
            world._replace(seen=world.seen | {(client, world.is_there)}) for world in self.worlds
        }

    def looked(self, client: str, *, found: bool, is_recent: bool) -> bool:
        """True if this can be.  It excludes worlds if it can, and if it is said to be recent."""
        fitting = [world for world in self._possible() if (client, found) in world.seen]
        self.looking.remove(client)
        self._forget_looks(client, fitting if fitting and is_recent else self.worlds)
        return bool(fitting)

    def look_abandoned(self, client: str) -> None:
        self.looking.remove(client)
        self._forget_looks(client, self.worlds)

    def _forget_looks(self, client: str, worlds: Iterable[PossibleState]) -> None:
        answers = {(client, True), (client, False)}
        self.worlds = {world._replace(seen=world.seen - answers) for world in worlds}

    def written(self, client: str) -> None:
        """Note an answer: the write has happened."""
        done = [world for world in self._possible() if client in world.done]
        self.worlds = {world._replace(done=world.done - {client}) for world in done}
        del self.writing[client]

    def write_abandoned(self, client: str) -> None:
        """Count it as one that may still happen, whatever this client asks next."""
        self.without_answer += 1
        name = f"{client} without answer {self.without_answer}"
        self.writing[name] = self.writing.pop(client)
        self.worlds = {
            world._replace(done=world.done - {client} | {name}) if client in world.done else world
            for world in self.worlds
        }

    def _possible(self) -> set[PossibleState]:
        """Return all there may be by now: any declares and deletes have happened, in any order."""
        found, new = set(self.worlds), [*self.worlds]
        while new:
            world = new.pop()
            later = {self._after(world, each) for each in self.writing.keys() - world.done}
            new += later - found
            found |= later
        return found

    def _after(self, world: PossibleState, client: str) -> PossibleState:
        is_there = self.writing[client]
        seen = world.seen | {(each, is_there) for each in self.looking}
        return PossibleState(is_there, world.done | {client}, seen)


class Absence(NamedTuple):
    """A node has said that a thing is not there: when it was asked, and when it said so."""

    requested_at: int
    answered_at: int


class LinearizabilityChecker:
    """Checker of answers that reads a history event by event."""

    def __init__(self, report: Findings) -> None:
        self._report = report
        self._now = 0
        self._things: dict[str, ThingState] = {}
        self._node_of: dict[str, str] = {}
        """The node of each client."""
        self._requested_at: dict[str, int] = {}
        """The number of the event, by client."""
        self._absences: dict[tuple[str, str], Absence] = {}
        """The last of a thing and node."""
        self._is_well = False
        """True once every node has had the time to apply everything."""

    def read(self, events: Iterable[Event]) -> None:
        for event in events:
            self._now += 1
            reader = READERS.get(type(event))
            if reader is not None:
                reader(self, event)

    def _connected(self, event: Connected) -> None:
        self._node_of[event.client] = event.node

    def _grace_over(self, _event: GraceOver) -> None:
        self._is_well = True

    def _invoked(self, event: Invoked) -> None:
        thing = self._things.setdefault(event.thing, ThingState())
        self._requested_at[event.client] = self._now
        if thing.is_unknowable:
            return
        if event.operation is Operation.LOOK:
            thing.look(event.client)
        else:
            thing.writing[event.client] = event.operation is Operation.DECLARE

    def _answered(self, event: Answered) -> None:
        thing, client = self._things[event.thing], event.client
        requested_at = self._requested_at.pop(client)
        if thing.is_unknowable:
            return
        if client in thing.writing:
            if thing.writing[client]:
                thing.declared_at = self._now
            else:
                thing.deleted_at = self._now
            thing.written(client)
        elif not thing.looked(client, found=event.found, is_recent=self._is_recent(event)):
            self._report.add(self._kind_of(event, requested_at), self._sentence(event))
        if not event.found:
            key = event.thing, self._node_of.get(client, "")
            self._absences[key] = Absence(requested_at, self._now)

    def _is_recent(self, event: Answered) -> bool:
        """True if no delete that this node may not have heard of makes its answer untrue."""
        thing = self._things[event.thing]
        if self._is_well or not event.found or not (thing.deleted_at or thing.is_deleting):
            return True
        known = self._absences.get((event.thing, self._node_of.get(event.client, "")))
        return known is not None and known.requested_at > thing.deleted_at and not thing.is_deleting

    def _kind_of(self, event: Answered, requested_at: int) -> Breach:
        """Return how an answer is wrong that is."""
        if self._is_well or not event.found:
            return Breach.STALE
        thing = self._things[event.thing]
        known = self._absences.get((event.thing, self._node_of.get(event.client, "")))
        if known is None or known.answered_at > requested_at:
            return Breach.OUTDATED
        is_new = thing.is_declaring or thing.declared_at > known.requested_at
        return Breach.OUTDATED if is_new else Breach.STALE

    def _sentence(self, event: Answered) -> str:
        where = self._node_of.get(event.client, "?")
        what = "there" if event.found else "not there"
        sentence = f"{event.client} at {where} was answered that {event.thing} is {what}"
        return f"event {self._now}: {sentence}, against what was answered before"

    def _abandoned(self, event: Abandoned) -> None:
        thing = self._things[event.thing]
        self._requested_at.pop(event.client)
        if thing.is_unknowable:
            return
        if event.client in thing.writing:
            thing.write_abandoned(event.client)
        else:
            thing.look_abandoned(event.client)
        if thing.is_unknowable:
            thing.worlds.clear()


READERS: dict[type[Event], Callable[[LinearizabilityChecker, Any], None]] = {
    Connected: LinearizabilityChecker._connected,
    GraceOver: LinearizabilityChecker._grace_over,
    Invoked: LinearizabilityChecker._invoked,
    Answered: LinearizabilityChecker._answered,
    Abandoned: LinearizabilityChecker._abandoned,
}
