"""The client's end of a session: requests to one queue, until their outcome is known.

    `SessionRequests` --> pending --> `output`: sent to the leader --> its reply: outcome known
                             ^                     |                      (`replies`)
                             +---------------------+    another leader or link: again, in order

An operation stays in `PendingOperations` until every number that it takes has an outcome, and is
asked for again of each leader until then.  Outcomes may come more than once and in any order.

A settlement stays here though its channel, its connection and its consumer are gone, and goes in
front of the detachment that came after it.  Acknowledgements may wait: they go with what is asked
next, or when anything waits for what they bring about.  Nothing is forgotten because a queue has no
leader: `is_full` says when clients must be paused instead.

Frames of a leader are taken in order, of the leadership that was adopted last; of others only what
is committed counts.  What a new leader has on record is compared with what clients have in hands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.queue_api import FINAL, Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import NO_HOLDER, Key
from fluffle.broker.queues.quorum.messages import MESSAGES_MAX, Operation, Token
from fluffle.broker.queues.quorum.runs import MarkedRuns, without
from fluffle.raft.ranges import Ranges

OPERATIONS_MAX = 4_096
PENDING_BYTES_MAX = 2 << 20
"""Bytes that may be pending for one queue before clients are paused: enough for two commits.  More
would wait in front of the log, and behind it what consumers settle and are handed
(`benchmarks.compare --suite quorum`, b16k)."""
FRAMES_UNREPORTED_MAX = 32
"""After so many frames of a leader they are reported, though there is nothing else to send."""
UNREPORTED_BYTES_MAX = 1 << 20
"""After so much of contents, too, which the leader keeps until then."""
FRAME_BYTES_MAX = 4 << 20
"""Bytes of contents in one frame, if it has more than one message."""
TOKENS_MAX = 1_000
"""About so many are settled with one operation."""


def content_bytes_of(message: m.FromClient) -> int:
    """Content bytes of the message."""
    return sum(map(len, message.contents)) if isinstance(message, m.Publish) else 0


def number_count_of(operation: Operation) -> int:
    """How many numbers an operation takes: one for each message, or one."""
    return len(operation.contents) if type(operation) is m.Publish else 1


class KnownOutcome(NamedTuple):
    """Numbers of an operation whose outcome has just become known."""

    operation: Operation
    first: int
    how_many: int


NONE: deque[Operation] = deque()
"""Never changed: a deque of one's own takes 600 bytes, and most queues are idle."""


NOTHING_KNOWN = Ranges()


class PendingOperations:
    """Operations of one session without an outcome."""

    __slots__ = ("_known", "content_bytes", "next", "operations")

    def __init__(self) -> None:
        self.operations = NONE
        self._known = NOTHING_KNOWN
        """Numbers above the first unknown one; `NOTHING_KNOWN` itself if there are none."""
        self.next = 1
        """The number of the next operation."""
        self.content_bytes = 0

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    @property
    def first(self) -> int:
        """The lowest number whose outcome is not known: that of the next operation, if all are."""
        if not self.operations:
            return self.next
        first = self.operations[0].number
        known = self._known.next_from(first) if self._known is not NOTHING_KNOWN else None
        return known[1] if known is not None and known[0] == first else first

    def add(self, operation: Operation) -> None:
        """Add an operation, whose number is `next`."""
        assert operation.number == self.next
        if self.operations is NONE:
            self.operations = deque()
        self.operations.append(operation)
        self.next += number_count_of(operation)
        self.content_bytes += content_bytes_of(operation)

    def find(self, number: int) -> Operation | None:
        """The operation of a number whose outcome is not known."""
        if number in self._known:
            return None
        for operation in self.operations:
            if operation.number <= number < operation.number + number_count_of(operation):
                return operation
        return None

    def replace(self, operation: Operation) -> bool:
        """Another is asked in the place of that of the same number, if its outcome is not known.

        Each takes one number.
        """
        before = self.find(operation.number)
        if before is None:
            return False
        self.operations[self.operations.index(before)] = operation
        return True

    def from_number(self, number: int) -> list[Operation]:
        """All from the one on that takes a number."""
        return [each for each in self.operations if each.number + number_count_of(each) > number]

    def of_kinds(self, first: int, count: int, kinds: tuple[type, ...]) -> list[KnownOutcome]:
        """Numbers have an outcome, if they are of operations of these kinds: which had none."""
        found: list[KnownOutcome] = []
        operations = self.operations
        while operations and count and self._known is NOTHING_KNOWN:
            # Mostly they are the first ones, and all that one takes have the same.
            operation = operations[0]
            length = number_count_of(operation)
            if operation.number != first or count < length or not isinstance(operation, kinds):
                break
            found.append(KnownOutcome(operation, first, length))
            self._drop_first()
            first, count = first + length, count - length
        return found + self._of_kinds(first, count, kinds) if count and operations else found

    def _of_kinds(self, first: int, count: int, kinds: tuple[type, ...]) -> list[KnownOutcome]:
        """Wherever they are."""
        found: list[KnownOutcome] = []
        for operation in self.operations:
            start = operation.number
            if start >= first + count:
                break
            if isinstance(operation, kinds):
                low, high = (
                    max(start, first),
                    min(start + number_count_of(operation), first + count),
                )
                new = self._known.gaps(low, high)
                found += [KnownOutcome(operation, low, high - low) for low, high in new]
        for _operation, start, length in found:
            self._known = self._known.plus(Ranges.of((start, start + length)))
        self._forget()
        return found

    def clear(self) -> list[KnownOutcome]:
        """None of them will be asked for again: what had no outcome of any."""
        kinds = tuple({type(operation) for operation in self.operations})
        return self.of_kinds(0, self.next, kinds) if kinds else []

    def _forget(self) -> None:
        """Operations in front of which everything is known."""
        operations = self.operations
        while operations:
            start = operations[0].number
            stop = start + number_count_of(operations[0])
            if self._known.gaps(start, stop):
                break
            self._drop_first()
            self._known = self._known.within(stop, self.next) or NOTHING_KNOWN

    def _drop_first(self) -> None:
        self.content_bytes -= content_bytes_of(self.operations.popleft())
        if not self.operations:
            self.operations = NONE


def join(tokens: list[Token], others: list[Token]) -> None:
    """Put tokens of the same holder behind others; what goes on where one ends is one with it."""
    for token in others:
        holder, ordinal, run = token
        last = tokens[-1]
        goes_on = last.run.step == run.step == 1 and last.run.stop == run.start
        if goes_on and last.ordinal == ordinal:
            tokens[-1] = Token(holder, ordinal, range(last.run.start, run.stop))
        else:
            tokens.append(token)


class HeldTokens:
    """Unsettled deliveries of all holders."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[Key, MarkedRuns[int]] = EMPTY_DICT

    def __iter__(self) -> Iterator[Token]:
        """Everything, by holder, in the order in which it came."""
        for holder, held in self._held.items():
            for run, ordinal in held:
                yield Token(holder, ordinal, run)

    def __bool__(self) -> bool:
        return bool(self._held)

    def count(self, holder: Key) -> int:
        """How many messages a holder has."""
        held = self._held.get(holder)
        return held.count if held is not None else 0

    def put(self, token: Token) -> None:
        """Put messages that no holder has."""
        if self._held is EMPTY_DICT:
            self._held = {}
        self._held.setdefault(token.holder, MarkedRuns()).put(token.run, token.ordinal)

    def found(self, token: Token) -> list[range]:
        """Runs of a token's messages that its holder holds."""
        held = self._held.get(token.holder)
        pieces = held.found(token.run) if held is not None else ()
        return [run for run, ordinal in pieces if ordinal == token.ordinal]

    def rest(self, token: Token) -> list[Token]:
        """Tokens of the messages of a token that are not held."""
        holder, ordinal, run = token
        return [Token(holder, ordinal, part) for part in without(run, self.found(token))]

    def take(self, tokens: Iterable[Token]) -> list[Token]:
        """Remove and return what is held of these tokens."""
        taken = []
        for token in tokens:
            for run in self.found(token):
                held = self._held[token.holder]
                held.take(run)
                taken.append(Token(token.holder, token.ordinal, run))
                if not held:
                    del self._held[token.holder]
        return taken

    def take_all(self, holder: Key | None = None) -> list[Token]:
        """Remove and return all that one holder has, or all holders have."""
        return self.take([token for token in self if holder in (None, token.holder)])


class SessionClient:
    """The session of one boot of this node with one queue.

    Take what `output` gives after each call, and send it; act on the events that calls return.
    """

    __slots__ = (
        "_last", "_settled", "answer", "awaited", "backlog", "boot", "consumers", "counter",
        "credit_changes", "credits", "deferrable", "getters", "group", "is_remembered", "keys",
        "leader", "leader_epoch", "opening", "owes_report", "pending", "received", "reported",
        "unacked", "unreported_bytes", "unsent", "unwanted",
    )  # fmt: skip

    def __init__(self, group: int, boot: m.SessionBoot) -> None:
        self.group = group
        self.boot = boot
        self.counter = 1
        self.pending = PendingOperations()
        self.unacked = HeldTokens()
        self.consumers: dict[Key, m.Attach] = EMPTY_DICT
        """Consumers with known keys, until nothing more can come for them."""
        self.keys: dict[int, Key] = EMPTY_DICT
        """Keys of wanted consumers, by their numbers."""
        self.credits: dict[int, int] = EMPTY_DICT
        """Credits by the number of a wanted consumer, which may not have a key yet."""
        self.credit_changes: dict[Key, int] = EMPTY_DICT
        """Credits that the leader has not been sent."""
        self.getters: dict[int, Key] = EMPTY_DICT
        """Getters by channel."""
        self.unwanted: dict[int, None] = EMPTY_DICT
        """Attachments that are pending, and whose channels have ended."""
        self.awaited: dict[Key, int] = EMPTY_DICT
        """Pending get by getter: it is answered by what the getter holds on record, once that is
        here."""
        self.unsent: list[m.FromClient] = []
        self.deferrable = 0
        """How many of these may wait, all of them acknowledgements.  Whoever waits for what they
        bring about sets it to 0, and so does a caller that has let them wait for a while."""
        self._settled = 0
        """Messages that these end."""
        self._last: m.Settle | None = None
        """Last operation, if it is an unsent settlement."""
        self.leader_epoch = 0, 0
        """Term and number in it of the last leadership that was adopted."""
        self.leader: m.Leader | None = None
        """The leader it sends to; None while none can be reached."""
        self.opening = 0
        self.received = 0
        """The number of the leader's last frame in this leadership."""
        self.reported = 0
        """Up to which one the leader knows that."""
        self.answer: m.NeverArrived | None = None
        """Answer to what this leadership has on record."""
        self.is_remembered = False
        """True if the leader may still have a session that was given up, with what it held."""
        self.owes_report = False
        """True if the leader waits for a report of what was received."""
        self.unreported_bytes = 0
        """Content bytes received since the last report, which mostly goes with their settlement."""
        self.backlog = 0
        """How many messages of this node wait in a queue that is behind its consumers."""

    @property
    def term(self) -> int:
        """Raft term of that leadership."""
        return self.leader_epoch[0]

    @property
    def is_full(self) -> bool:
        """True if clients must be paused.  Settlements are taken all the same."""
        pending = self.pending
        # mutant: ST12
        return (
            len(pending.operations) >= OPERATIONS_MAX or pending.content_bytes >= PENDING_BYTES_MAX
        )

    @property
    def has_room(self) -> bool:
        """True if those that were paused go on: not for one message each."""
        pending = self.pending
        return (
            len(pending.operations) * 2 < OPERATIONS_MAX
            and pending.content_bytes * 2 < PENDING_BYTES_MAX
        )

    # What is asked for: see `SessionRequests`

    def ask(self, operation: m.Operation) -> int:
        """An operation more; its first number."""
        number = self.pending.next
        self.pending.add(operation)
        self._last = None
        if self.leader is not None:
            self.unsent.append(operation)
        return number

    def settle(self, outcome: Outcome, tokens: list[m.Token]) -> int:
        """End hand-outs of one holder, together with those of the call before if they are alike."""
        number = self._settle(outcome, tokens)
        if outcome is Outcome.ACKED:
            self._settled += sum(len(token.run) for token in tokens)
            self._look(tokens[0].holder)
        return number

    def _settle(self, outcome: Outcome, tokens: list[m.Token]) -> int:
        last = self._last
        if (
            last is not None
            and last.outcome is outcome
            and last.tokens[-1].holder == tokens[0].holder
            and len(last.tokens) < TOKENS_MAX
        ):
            join(last.tokens, tokens)
            return last.number
        settlement = m.Settle(self.pending.next, outcome, tokens)
        number = self.ask(settlement)
        self._last = settlement
        if outcome is Outcome.ACKED and self.leader is not None:
            self.deferrable += 1
        return number

    def _look(self, holder: Key) -> None:
        """Send settlements without delay where a consumer may wait for the room that they free.

        Its leader takes it for being in hands: half of the limit must be free all the same.
        """
        consumer = self.consumers.get(holder)
        limit = self.credits.get(consumer.number) if consumer is not None else None
        if limit is not None and 2 * (self.unacked.count(holder) + self._settled) > limit:
            self.deferrable = 0

    def leave(self, holder: Key, outcome: Outcome | None) -> int:
        """Detach a holder; with an outcome, all that it holds is settled with it.

        Without one, a consumer is there until nothing more can be on its way to it.
        """
        if outcome is None:
            self._refuse(holder)
        else:
            self.forget(holder)
            self.unacked.take_all(holder)
        return self.ask(m.Detach(self.pending.next, holder, outcome))

    def set_credit(self, consumer: int, limit: int) -> None:
        """How many messages may be in its hands and on their way to them."""
        if consumer not in self.credits:
            return
        self.credits[consumer] = limit
        key = self.keys.get(consumer)
        if key is not None and self.leader is not None:
            if self.credit_changes is EMPTY_DICT:
                self.credit_changes = {}
            self.credit_changes[key] = limit

    def know(self, holder: Key, attach: m.Attach) -> None:
        """A consumer has its key."""
        if self.consumers is EMPTY_DICT:
            self.consumers = {}
        if self.keys is EMPTY_DICT:
            self.keys = {}
        self.consumers[holder] = attach
        self.keys[attach.number] = holder
        self.set_credit(attach.number, self.credits[attach.number])

    def forget(self, holder: Key) -> m.Attach | None:
        """A consumer is there no more, if it was one."""
        if holder in self.consumers:
            self._refuse(holder)
        return self.consumers.pop(holder, None)

    def _refuse(self, consumer: Key) -> None:
        """A consumer is given no more credit."""
        number = self.consumers[consumer].number
        if self.keys.pop(number, None) is not None:
            del self.credits[number]
            self.credit_changes.pop(consumer, None)

    def keep(self, deliver: m.Deliver) -> None:
        """Keep messages as held by a client: the leader need not send them again."""
        for token in m.tokens_of(deliver):
            self.unacked.put(token)
        self.unreported_bytes += sum(map(len, deliver.contents))
        if self.unreported_bytes >= UNREPORTED_BYTES_MAX:
            self.owes_report = True
        if self.deferrable:
            self._look(deliver.holder)

    # Whom to talk to

    def connect(self, leader: m.Leader | None) -> None:
        """Use a leader that can be reached, perhaps over a new link to the same one; None:
        unreachable."""
        if leader is not None and leader.leader_epoch < self.leader_epoch:
            return
        self.leader = leader
        self.unsent = []  # mutant: R23
        self.deferrable = self._settled = 0
        self.credit_changes.clear()
        if leader is None:
            return
        if leader.leader_epoch > self.leader_epoch:  # mutant: ST4
            self.leader_epoch, self.answer = leader.leader_epoch, None
            self.received = self.reported = self.unreported_bytes = self.backlog = 0
            self.awaited.clear()
        self.opening += 1
        self.owes_report = False
        self.unsent.append(m.Open(self.pending.first))
        if self.counter > 1:
            self.unsent.append(m.Forget(self.counter))
        credit_changes = {key: self.credits[consumer] for consumer, key in self.keys.items()}
        self.credit_changes = credit_changes or EMPTY_DICT
        if self.answer is not None:
            self.unsent.append(self.answer)
        self.unsent += self.pending  # mutant: R6a ST1

    @property
    def has_output(self) -> bool:
        """True if there is anything to send to a reachable node."""
        is_due = len(self.unsent) > self.deferrable or self.credit_changes or self.owes_report
        return self.leader is not None and bool(is_due)

    def output(self) -> tuple[str, m.ClientFrame] | None:
        """Next frame to send and its node; call again until it is None."""
        leader = self.leader
        if leader is None or not self.has_output:
            return None
        messages, self.unsent = self._next_frame()
        self.owes_report, self._last = False, None
        self.deferrable = self._settled = 0
        self.reported, self.unreported_bytes = self.received, 0
        if self.credit_changes:
            messages += [m.Credit(key, limit) for key, limit in self.credit_changes.items()]
            self.credit_changes.clear()
        frame = m.ClientFrame(
            group=self.group,
            term=leader.term,
            leadership=leader.leadership,
            sender=self.boot,
            receiver=leader.boot,
            session=self.counter,
            opening=self.opening,
            received=self.received,
            known=self.pending.first,
            messages=messages,
        )
        return leader.node, frame

    def _next_frame(self) -> tuple[list[m.FromClient], list[m.FromClient]]:
        """Messages for the next frame, of all that are unsent, and the rest."""
        if self.pending.content_bytes > FRAME_BYTES_MAX:
            size = 0
            for at, message in enumerate(self.unsent):
                size += content_bytes_of(message)
                if size > FRAME_BYTES_MAX and at:
                    return self.unsent[:at], self.unsent[at:]
        return self.unsent, []

    # What ends a session

    def lost(self) -> list[Event]:
        """The leader knows nothing of this session, and it was not new."""
        events = self._over(is_known=False)
        self._renew_session()
        self.connect(self.leader)
        return events

    def deleted(self) -> list[Event]:
        """The queue is gone for good, and no leader says any more what it has got."""
        self.leader = None
        return self._over(is_known=True)  # mutant: ST11

    def _renew_session(self) -> None:
        """Start another session, which no leader knows."""
        self.counter += 1
        self.is_remembered = self.opening > 0
        self.pending = PendingOperations()
        self.received = self.reported = self.unreported_bytes = self.backlog = 0
        self.answer = None
        self.unsent = []
        self.deferrable = self._settled = 0
        self._last = None
        self.credit_changes.clear()

    def _over(self, *, is_known: bool) -> list[Event]:
        """Events for the clients when nothing more comes of anything that is pending or held.

        `is_known`: the queue is gone with all of it; else it is unknown.
        """
        events: list[Event] = []
        for operation, first, count in self.pending.clear():
            if first not in self.unwanted:
                events += _over_with(operation, first, count, is_known=is_known)
        if held := self.unacked.take_all():
            events.append(m.RevokeNotice(held))
        events += [happened.ConsumerCancelled(attach.number) for attach in self.consumers.values()]
        self.consumers.clear()
        self.keys.clear()
        self.credits.clear()
        self.credit_changes.clear()
        self.getters.clear()
        self.unwanted.clear()
        self.awaited.clear()
        return events


def _over_with(operation: m.Operation, first: int, count: int, *, is_known: bool) -> list[Event]:
    """Events for an operation whose outcome will not be heard any more."""
    match operation:
        case m.Publish():
            return [
                (happened.PublishUndecided if is_known else happened.PublishRejected)(first, count)
            ]
        case m.Settle(outcome=outcome) if outcome in FINAL and not is_known:
            return [happened.SettleFailed(first)]
        case m.Settle() | m.Detach():
            return [happened.SettlementsDone(first, count)]
        case m.Attach():
            return [happened.ConsumerCancelled(first)]
        case m.Get() if is_known:
            return [m.GetAnswer(first, NO_HOLDER, 0, [])]
        case m.Purge() if is_known:
            return [happened.PurgeDone(first, 0)]
        case _:
            return [happened.AnswerLost(first)]


class AttachTerms(NamedTuple):
    """The arguments a consumer is attached with."""

    tag: str
    prefetch: int = 0
    priority: int = 0
    no_ack: bool = False
    is_exclusive: bool = False
    arguments: bytes = b""


class SessionRequests:
    """Requests of this node's channels, as operations of a session.

    Most return the number of their operation, by which its outcome will be known.
    """

    __slots__ = ("_session",)

    def __init__(self, session: SessionClient) -> None:
        self._session = session

    def publish(
        self,
        origins: list[Origin],
        contents: list[bytes],
        *,
        persistent: bool = True,
        expiration_ms: Lifetimes = None,
        dead_letter_ids: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> int:
        """A message each; the number of the first."""
        assert 0 < len(contents) <= MESSAGES_MAX
        number = self._session.pending.next
        publish = m.Publish(
            number, origins, contents, persistent, expiration_ms, dead_letter_ids, counts
        )
        return self._session.ask(publish)

    def settle(self, tokens: Iterable[m.Token], outcome: Outcome) -> None:
        """End hand-outs.  What of them no consumer holds any more is not asked for.

        Calls of a turn may share an operation.
        """
        by_holder: dict[Key, list[m.Token]] = {}
        for token in self._session.unacked.take(tokens):
            by_holder.setdefault(token.holder, []).append(token)
        for of_it in by_holder.values():
            self._session.settle(outcome, of_it)

    def attach(self, channel: int, terms: AttachTerms, credit: int) -> int:
        """Attach a consumer; returns its number, by which it is known from now on; `credit` as for
        `set_credit`."""
        number = self._session.pending.next
        if self._session.credits is EMPTY_DICT:
            self._session.credits = {}
        self._session.credits[number] = credit
        tag, prefetch, priority, no_ack, is_exclusive, arguments = terms
        return self._session.ask(
            m.Attach(
                number,
                channel,
                tag,
                prefetch,
                m.Signed(priority),
                no_ack,
                is_exclusive,
                arguments,
            )
        )

    def detach(self, consumer: int) -> None:
        """Cancel a consumer once it has what is on its way.

        What it has stays in its client's hands.  One that is not attached yet never will be.
        """
        key = self._session.keys.get(consumer)
        if key is not None:
            self._session.leave(key, None)
        elif self._session.pending.find(consumer) is not None:
            if self._session.unwanted is EMPTY_DICT:
                self._session.unwanted = {}
            self._session.unwanted[consumer] = None

    def get(self, channel: int, *, no_ack: bool) -> int:
        """Get a message; one get at a time for each channel."""
        return self._session.ask(m.Get(self._session.pending.next, channel, no_ack))

    def purge(self) -> int:
        return self._session.ask(m.Purge(self._session.pending.next))

    def give_up(self, number: int) -> None:
        """Give up a get or a purge, which is never done unless it is on record.

        What a get has taken comes back.
        """
        session, nothing = self._session, m.Detach(number, NO_HOLDER, None)
        if session.pending.replace(nothing):
            session.unsent = [
                nothing if isinstance(each, m.Get | m.Purge) and each.number == number else each
                for each in session.unsent
            ]
