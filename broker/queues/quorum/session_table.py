"""The sessions of a led queue: which of their operations are done, and with what outcome.

The next number of a session here counts what is under way; the image's counts what is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.quorum.effect_buffer import EffectBuffer
from fluffle.broker.queues.quorum.effects import Answer, Done, Effect, Expected, NotTaken
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder
from fluffle.broker.queues.quorum.facts import (
    Acknowledged,
    Acted,
    Answered,
    Key,
    OperationsRefused,
    Published,
    SessionClosed,
    SessionId,
    SessionOpened,
)
from fluffle.broker.queues.quorum.state import State
from fluffle.raft.ranges import Ranges

NONE = Ranges()


class SessionTable:
    """All sessions of one queue."""

    __slots__ = (
        "_again",
        "_builder",
        "_effects",
        "_keys",
        "_next",
        "_state",
        "_too_soon",
        "_touch",
    )

    def __init__(
        self, state: State, builder: EntryBuilder, gate: EffectBuffer, touch: Callable[[], None]
    ) -> None:
        self._state = state
        self._builder = builder
        self._effects = gate
        self._touch = touch
        sessions = state.sessions.items()
        self._next = {key: session.next for key, session in sessions} or EMPTY_DICT
        self._again: dict[Key, Ranges] = EMPTY_DICT
        """Operations that were asked for again, and will be answered: once for all times."""
        self._too_soon: dict[Key, None] = EMPTY_DICT
        """Sessions that will be told what is expected of them."""
        self._keys = {session.id: key for key, session in sessions} or EMPTY_DICT

    def key_of(self, session_id: SessionId) -> Key | None:
        """None for one that is not open: an edge that goes on with it has lost it."""
        return self._keys.get(session_id)

    def ids(self) -> list[SessionId]:
        """Of all that are open."""
        return list(self._keys)

    def open(self, session_id: SessionId) -> Key:
        """The key of a session, which is opened if it is not open."""
        key = self._keys.get(session_id)
        if key is None:
            if self._keys is EMPTY_DICT:
                self._keys, self._next = {}, {}
            key = self._keys[session_id] = self._builder.take_key()
            self._next[key] = 1
            node, boot, nonce, counter = session_id
            self._builder.say(SessionOpened(key, boot, nonce, counter, node))
            self._touch()
        return key

    def close(self, session: Key) -> None:
        """It has no consumers any more, and nothing will come of it."""
        del self._next[session]
        self._again.pop(session, None)
        self._too_soon.pop(session, None)
        left = {session_id: key for session_id, key in self._keys.items() if key != session}
        self._keys, self._next = left or EMPTY_DICT, self._next if left else EMPTY_DICT
        self._builder.say(SessionClosed(session))
        self._touch()

    def acknowledge(self, session: Key, below: int) -> None:
        """The edge knows the outcomes of all operations below `below`."""
        known = self._state.sessions.get(session)
        if known is None or not (known.refused or known.answers):
            return
        below = min(below, known.next)
        if known.refused.within(0, below) or any(number < below for number in known.answers):
            self._builder.say(Acknowledged(session, below))
            self._touch()

    def known(self, session: Key, first: int, count: int) -> int:
        """How many of some operations, from the first one on, are not to be done any more.

        They will be answered: with their outcome, or with the number that is expected instead.
        """
        expected = self._next[session]
        if first > expected:  # mutant: R24
            if session not in self._too_soon:
                if self._too_soon is EMPTY_DICT:
                    self._too_soon = {}
                self._too_soon[session] = None
                self._effects.keep_known(lambda: self._expected(session, expected))
                self._touch()
            return count
        known = min(expected - first, count)  # mutant: R4a
        again = self._again.get(session, NONE)
        if known and again.gaps(first, first + known):
            if self._again is EMPTY_DICT:
                self._again = {}
            self._again[session] = again.plus(Ranges.of((first, first + known)))
            self._effects.keep_known(lambda: self._answered_again(session, first, first + known))
            self._touch()
        return known

    def advance(self, fact: Published | OperationsRefused | Acted | Answered) -> None:
        """The next operations of a session are done."""
        self._builder.say(fact)
        self._next[fact.session] += 1 if isinstance(fact, Answered) else fact.count  # mutant: LE3
        self._touch()

    def _expected(self, session: Key, expected: int) -> list[Effect]:
        self._too_soon.pop(session, None)
        return [Expected(session, expected)]

    def _answered_again(self, session: Key, first: int, stop: int) -> list[Effect]:
        left = self._again.pop(session, NONE).minus(Ranges.of((first, stop)))
        if left:
            self._again[session] = left
        return list(self._outcomes(session, first, stop))

    def _outcomes(self, session: Key, first: int, stop: int) -> Iterator[Effect]:
        """Of operations that are applied."""
        found = self._state.sessions.get(session)
        if found is None:
            return
        answers = Ranges.of(*((number, number + 1) for number in sorted(found.answers)))
        refused = found.refused
        for low, high in refused.within(first, stop):
            yield NotTaken(session, low, high - low)  # mutant: R4b
        for number in [number for number in found.answers if first <= number < stop]:
            yield Answer(session, number, found.answers[number])
        for low, high in refused.plus(answers).gaps(first, stop):
            yield Done(session, low, high - low)
