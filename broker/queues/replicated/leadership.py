"""The leader of a replicated queue, from the first entry of its own term to the end of its lead.

    operations of edges --> the engine decides --> facts in a draft, effects at the gate
                                                        |                     |
                                   once a turn: one entry is proposed         |
                                                        |                     |
                                      committed and applied to the image --> effects leave

The engine is built from the image and is ahead of it by what is under way.  When leadership ends,
or an entry is not taken, all of this is thrown away: what is not applied may never be, and the
image is where the next leader begins, here or elsewhere.

Every operation of an edge has a session and a number, one behind the other.  One that was done
before is answered again from what the image says of it; one that comes too soon is not done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from fluffle.broker.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.queues.counts import Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import Handout, Outcome
from fluffle.broker.queues.journal import Unreadable
from fluffle.broker.queues.lane import Taken
from fluffle.broker.queues.replicated.contents import Contents
from fluffle.broker.queues.replicated.dealing import facts_of
from fluffle.broker.queues.replicated.draft import Draft
from fluffle.broker.queues.replicated.effects import (
    Answer,
    Dead,
    Delivery,
    Done,
    Effect,
    Got,
    NotTaken,
    Stale,
    Withdrawn,
)
from fluffle.broker.queues.replicated.encoding import encode
from fluffle.broker.queues.replicated.ending import Ending
from fluffle.broker.queues.replicated.facts import (
    Acted,
    Answered,
    Detached,
    GetterAttached,
    Key,
    Published,
    Purged,
    Refused,
    SpecChanged,
)
from fluffle.broker.queues.replicated.gate import Gate, Kept
from fluffle.broker.queues.replicated.holders import Gated, Getter, Held, Holders
from fluffle.broker.queues.replicated.image import Image
from fluffle.broker.queues.replicated.numbering import Numbering
from fluffle.broker.queues.replicated.runs import runs_of
from fluffle.broker.queues.replicated.surroundings import Surroundings
from fluffle.broker.queues.replicated.terms import Terms
from fluffle.broker.queues.returned import InOrder

ENTRY_BYTES = 4 << 20
"""Of the messages of an entry, or one publish of many more: links, logs and readers take an entry
at once, and it is what one message that stays keeps on the disks."""


class Leadership:
    """Called from one thread, and never more once it `is_over`."""

    __slots__ = (
        "_around",
        "_contents",
        "_draft",
        "_ending",
        "_gate",
        "_image",
        "_whole",
        "holders",
        "is_over",
        "queue",
        "sessions",
    )

    def __init__(self, image: Image, spec: QueueSpec, around: Surroundings) -> None:
        """Everything up to the first entry of the own term is applied to the image."""
        self._image = image
        self._around = around
        self._draft = Draft(image.state)
        self._gate = Gate(self._draft)
        self._whole: deque[tuple[bytes, int]] = deque()
        """Entries that are drafted, with the bytes of their messages, until the log takes them."""
        self._contents = Contents(image.state, self._draft, around.read_entry, around.damaged)
        self.is_over = False
        self.sessions = Numbering(image.state, self._draft, self._gate, self._touch)
        """Who may ask for something, and what of it is done."""
        self.queue = Queue(
            spec,
            touch=self._touch_queue,
            journal=self._contents,
            returned=InOrder(self._contents.fetch),
            drop=self._drop,
        )
        """The engine: to be looked at, and used through this alone."""
        self.holders = Holders(self.queue, Gated(around.room))
        self._ending = Ending(
            self.queue,
            self._contents,
            self._draft,
            self._gate,
            dead_letter=around.dead_letter,
            now_ms=around.now_ms,
        )
        self._take_up()

    def _touch(self) -> None:
        self._around.touch(self)

    def _touch_queue(self, _queue: Queue) -> None:
        self._touch()

    def _drop(self, taken: Taken) -> None:
        self._ending.drop(taken)

    def _take_up(self) -> None:
        """Go on where the image is."""
        self.queue.recover()
        for row in self._image.state.holders.values():
            held = self.holders.add(row.attached, is_detached=row.is_detached)
            for run, counts in row.held:
                placeholders = [b""] * len(run)
                redelivered = counts.acquired > 0
                handout = Handout(
                    held.holder,
                    [],
                    placeholders,
                    run,
                    redelivered=redelivered,
                    is_recorded=True,
                    counts=counts,
                )
                self.queue.take_up(handout)
                held.add(handout)
            if isinstance(held.holder, Consumer) and not row.is_detached:
                self.queue.attach(held.holder)
        self._ending.take_up(self._image.state)
        self._touch()

    def end(self) -> None:
        """This node leads no more.  Nothing of it leaves after this."""
        self.is_over = True

    # What edges ask for

    def publish(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        *,
        persistent: bool = True,
    ) -> None:
        """Operations `first`, `first + 1` ... are a message each; the last may not fit, all others
        are recorded."""
        del persistent
        done = self.sessions.known(session, first, len(contents))
        while left := len(contents) - done:
            number, count = first + done, self._room_left(left)
            if not count:
                self.sessions.advance(Refused(session, number, left))
                self._keep(NotTaken(session, number, left))
                return
            part = contents[done : done + count]
            size_bytes = sum(map(len, part))
            self.queue.enqueue(origins[done : done + count], part, size_bytes, persistent=True)
            self.sessions.advance(Published(session, number, count))
            self._keep(Done(session, number, count))
            done += count
            if self._draft.content_bytes >= ENTRY_BYTES:
                self._end_entry()

    def settle(
        self,
        session: Key,
        number: int,
        holder: Key,
        tokens: Sequence[tuple[int, range]],
        *,
        outcome: Outcome,
    ) -> None:
        """End hand-outs: each run with its ordinal.  Those that have ended are told to be stale."""
        if self.sessions.known(session, number, 1):
            return
        held = self.holders.get(holder)
        for ordinal, run in tokens:
            parts, stale = held.take(run, ordinal) if held is not None else ([], [run])
            self._ending.settle(holder, parts, outcome)
            if stale:
                self._keep(Stale(session, number, holder, ordinal, stale))
        if held is not None:
            self.holders.release(holder)
        self._acted(session, number)

    def get(self, session: Key, number: int, channel: int, *, no_ack: bool) -> None:
        """Hand the next message to a channel, if there is one."""
        if self.sessions.known(session, number, 1):
            return
        key, held = self._getter(session, channel)
        holder = Getter(self.queue, no_ack=True) if no_ack else held.holder
        handout = self.queue.get(holder)
        if handout is not None:
            self._handed_out([handout], lambda _handout: key)
        elif self.queue.damage is not None:
            return  # there is one: whoever leads next is asked again, and can read it
        self._acted(session, number)
        self._gate.keep(lambda: [self._got(Got(session, number, key, handout))])

    def attach(self, session: Key, number: int, terms: Terms) -> None:
        """Let a consumer take part.  The answer is its key."""
        if self.sessions.known(session, number, 1):
            return
        key = self._draft.take_key()
        fact = terms.attached(key, session)
        self._draft.say(fact)
        held = self.holders.add(fact)
        assert isinstance(held.holder, Consumer)
        self.queue.attach(held.holder)
        self._answered(session, number, key)

    def detach(
        self, session: Key, number: int, holder: Key, *, outcome: Outcome | None = None
    ) -> None:
        """Hand nothing more to a consumer or getter; what it holds stays held, or all comes back.

        `outcome` says how, if its channel has ended.
        """
        if self.sessions.known(session, number, 1):
            return
        self._detach(holder, outcome)
        self._acted(session, number)

    def purge(self, session: Key, number: int) -> None:
        """Drop all that waits.  The answer is how many messages that is."""
        if self.sessions.known(session, number, 1):
            return
        self._contents.gone = []
        count = self.queue.purge()
        runs, self._contents.gone = self._contents.gone, None
        if runs:
            self._draft.say(Purged(runs))
        self._answered(session, number, count)

    # What the leader does by itself

    def drop_session(self, session: Key, outcome: Outcome, *, keeps_row: bool = False) -> None:
        """A session is over: all that its consumers hold comes back, and they go.

        If the session is kept, with what is known of its operations, its edge is told.
        """
        for key in list(self.holders.of_session(session)):
            if keeps_row:
                self._keep(Withdrawn(session, key, self.holders.tokens_of(key)))
            self._detach(key, outcome)
        if not keeps_row:
            self.sessions.close(session)

    def change_spec(self, revision: int, spec: bytes) -> None:
        """The queue is declared otherwise; nothing is said if that is not news."""
        if self._draft.is_news(revision):
            self._draft.say(SpecChanged(revision, spec))
            self._touch()

    def holds(self, session: Key) -> list[tuple[Key, int, range]]:
        """What the consumers of a session have in hands: whose, with which ordinal, which messages.

        What is applied, without what is ended meanwhile: so all of it has left through the gate.
        """
        return [
            (key, counts.acquired, piece)
            for key in self.holders.of_session(session)
            for run, counts in self._on_record(key)
            for piece, _handout in self._held_too(key, run, counts.acquired)
        ]

    def deliver_again(self, holder: Key, tokens: Sequence[tuple[int, range]]) -> None:
        """What somebody holds has never arrived: it is delivered as if for the first time."""
        for ordinal, run in tokens:
            for piece, handout in self._held_too(holder, run, ordinal):
                try:
                    again = self._read_again(piece, handout)
                except Unreadable:
                    return  # whoever owns this has been told that it is damaged
                self._gate.keep_known(partial(self._repeated, holder, again))
        self._touch()

    def _on_record(self, key: Key) -> list[tuple[range, Counts]]:
        row = self._image.state.holders.get(key)
        return list(row.held) if row is not None else []

    def _held_too(self, key: Key, run: range, ordinal: int) -> list[tuple[range, Handout]]:
        """What of a run is in somebody's hands by the image and by what is decided since."""
        row, held = self._image.state.holders.get(key), self.holders.get(key)
        if row is None or held is None:
            return []
        return [
            part
            for piece, counts in row.held.found(run)
            if counts.acquired == ordinal
            for part in held.holding(piece, ordinal)
        ]

    def _read_again(self, run: range, handout: Handout) -> Handout:
        origins, contents = self._contents.fetch(run)
        return Handout(
            handout.holder,
            origins,
            contents,
            run,
            redelivered=handout.redelivered,
            is_recorded=True,
            counts=handout.counts,
        )

    # The parts of these

    def _keep(self, effect: Effect) -> None:
        self._gate.keep(lambda: [effect])

    def _room_left(self, count: int) -> int:
        """How many of so many messages the queue takes before somebody is served again.

        What is handed out at once is not in its way.  RabbitMQ lets some more in, for its leader
        only tells publishers that they should stop.
        """
        limit = self.queue.spec.refuses_beyond
        if limit is None:
            return count
        if self.queue.ready_count + count > limit:
            self._hand_out()
        return max(0, min(count, limit - self.queue.ready_count))

    def _acted(self, session: Key, number: int) -> None:
        self.sessions.advance(Acted(session, number, 1))
        self._keep(Done(session, number, 1))

    def _answered(self, session: Key, number: int, answer: int) -> None:
        self.sessions.advance(Answered(session, number, answer))
        self._keep(Answer(session, number, answer))

    def _detach(self, key: Key, outcome: Outcome | None) -> None:
        """Nothing more for somebody, who may have been detached before and hold something."""
        held = self.holders.get(key)
        if held is None:
            return
        if not held.is_detached:
            if isinstance(held.holder, Consumer):
                self.queue.detach(held.holder)
            self._draft.say(Detached(key))
            self.holders.detach(key)
        if outcome is not None:
            self._ending.settle(key, held.take_all(), outcome)
            self.holders.release(key)
        self._touch()

    def _getter(self, session: Key, channel: int) -> tuple[Key, Held]:
        """Whoever holds what this channel gets."""
        found = self.holders.getter(session, channel)
        if found is not None:
            return found
        key = self._draft.take_key()
        attached = GetterAttached(key, session, channel)
        self._draft.say(attached)
        return key, self.holders.add(attached)

    def _handed_out(self, handouts: list[Handout], key_of: Callable[[Handout], Key]) -> None:
        """Messages are in hands: said, and remembered unless they are gone with that."""
        for fact in facts_of(handouts, key_of):
            self._draft.say(fact)
        for handout in handouts:
            held = self.holders.get(key_of(handout))
            assert held is not None
            if not handout.holder.no_ack:
                held.add(handout)

    # Turns

    def pump(self) -> list[Handout]:
        """Once a turn: hand out, propose an entry with all that was decided, tell what is known.

        There are more if it is much: no entry has many more than `ENTRY_BYTES`.

        Nothing is to be delivered now: hand-outs leave through the gate.
        """
        if self.is_over:
            return []
        self._propose()
        if self._whole or not self._around.takes(self._draft.content_bytes):
            return []
        self._hand_out()
        self._release(self._gate.take_known())
        if self._draft:
            self._end_entry()
            self._propose()
        return []

    def _end_entry(self) -> None:
        """What has been decided is an entry; what comes now is in the next."""
        content_bytes = self._draft.content_bytes
        self._whole.append((encode(self._draft.finish(self._around.now_ms())), content_bytes))
        self._gate.propose()
        self._contents.commits.ticket += 1

    def _propose(self) -> None:
        """As many entries as the log takes now."""
        while self._whole and self._around.takes(self._whole[0][1]):
            payload, _content_bytes = self._whole.popleft()
            self._around.propose(payload, self._on_fate)

    def _hand_out(self) -> None:
        """Serve those consumers that have room."""
        handouts = self.queue.pump()
        self._handed_out(handouts, self.holders.key_of)
        for handout in handouts:
            key = self.holders.key_of(handout)
            held = self.holders.get(key)
            assert held is not None
            self._gate.keep(partial(self._leave, key, held, handout))

    def _leave(self, key: Key, held: Held, handout: Handout) -> list[Effect]:
        """What consumers were handed is on its way: what the queue has no more, in any case."""
        self.holders.left(handout)
        if held.holder.no_ack:
            held.note(handout)
            return [Delivery(held.session, key, handout)]
        return self._delivery(key, handout)

    def _delivery(self, key: Key, handout: Handout) -> list[Effect]:
        """Nothing, if the consumer went before it could leave."""
        held = self.holders.get(key)
        return [] if held is None else [Delivery(held.session, key, handout)]

    def _got(self, got: Got) -> Got:
        """Without the message, if the channel went before it could leave."""
        if self.holders.get(got.holder) is None:
            got.handout = None
        return got

    def _repeated(self, key: Key, again: Handout) -> list[Effect]:
        """Nothing, if any of it has been settled or has come back before this could leave."""
        runs = runs_of(again.sequences)
        held = [piece for run in runs for piece in self._held_too(key, run, again.counts.acquired)]
        if sum(len(piece) for piece, _handout in held) < len(again.sequences):
            return []
        return self._delivery(key, again)

    def _on_fate(self, is_applied: bool) -> None:  # noqa: FBT001 - see `Propose`
        if self.is_over:
            return
        if not is_applied:
            self.end()
            self._around.ended()
            return
        self._contents.commits.durable += 1
        self._release(self._gate.apply())

    def _release(self, kept: list[Kept]) -> None:
        """Edges are told what is known, and the dead are handed on."""
        effects = [effect for effect in kept if not isinstance(effect, Dead)]
        if effects:
            self._around.release(effects)
        for effect in kept:
            if isinstance(effect, Dead):
                self._ending.hand_on(effect)
                self._touch()
