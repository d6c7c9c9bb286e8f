"""The client's end of a session: what clients of this node ask of one queue, until it is known.

    asked --> pending --> sent to the leader --> its outcome is on record: known
                 ^                |
                 +----------------+    another leader, or another link: again, in order

A settlement stays here though its channel, its connection and its consumer are gone, and goes in
front of the detachment that came after it.  Acknowledgements may wait: they go with what is asked
next, or when somebody waits for what they bring about.  Nothing is forgotten because a queue has no
leader: `is_full` says when clients must be paused instead.

Frames of a leader are taken in order, of the leadership that was adopted last; of others only what
is committed counts.  What a new leader has on record is compared with what clients have in hands.
"""

from __future__ import annotations

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions import messages as m
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.pending_operations import PendingOperations
from fluffle.broker.cluster.queue_sessions.unacked import Unacked, join
from fluffle.broker.queues.delivery import FINAL, Outcome
from fluffle.broker.queues.quorum.facts import Key

OPERATIONS_MAX = 4_096
PENDING_BYTES_MAX = 2 << 20
"""What may be pending for one queue before clients are paused: enough for two commits.  More would
wait in front of the log, and behind it what consumers settle and are handed
(`benchmarks.compare --suite quorum`, b16k)."""
FRAMES_UNREPORTED_MAX = 32
"""A leader that was heard so often is told, though there is nothing else to say."""
UNREPORTED_BYTES_MAX = 1 << 20
"""So is one that keeps so much of contents until it is."""
FRAME_BYTES_MAX = 4 << 20
"""Of contents in one frame, if it has more than one message."""
TOKENS_MAX = 1_000
"""About so many are settled with one operation."""


class SessionClient:
    """The session of one boot of this node with one queue.

    Take what `output` gives after each call, and send it; act on the events that calls return.
    """

    __slots__ = (
        "_last", "_settled", "answer", "awaited", "boot", "consumers", "credits",
        "getters", "group", "hands", "is_remembered", "keys", "leader", "news", "opening", "owes",
        "owing", "pending", "put_off", "received", "reign", "session", "told", "unsent",
        "untold_bytes", "unwanted",
    )  # fmt: skip

    def __init__(self, group: int, boot: m.Boot) -> None:
        self.group = group
        self.boot = boot
        self.session = 1
        self.pending = PendingOperations()
        self.hands = Unacked()
        self.consumers: dict[Key, m.Attach] = EMPTY_DICT
        """Those whose key is known, until it is known that nothing more comes for them."""
        self.keys: dict[int, Key] = EMPTY_DICT
        """Of those that are wanted, by their numbers."""
        self.credits: dict[int, int] = EMPTY_DICT
        """By the number of a consumer that is wanted, which has a key or has none yet."""
        self.news: dict[Key, int] = EMPTY_DICT
        """Credits that the leader has not been told."""
        self.getters: dict[int, Key] = EMPTY_DICT
        """By channel."""
        self.unwanted: dict[int, None] = EMPTY_DICT
        """Attachments that are pending, and whose channels have ended."""
        self.awaited: dict[Key, int] = EMPTY_DICT
        """By getter: the get that is answered by what it holds on record, once that is here."""
        self.unsent: list[m.FromClient] = []
        self.put_off = 0
        """How many of these may wait, all of them acknowledgements.  Whoever waits for what they
        bring about sets it to 0, and so does who has let them wait for a while."""
        self._settled = 0
        """Messages that these end."""
        self._last: m.Settle | None = None
        """The last operation, if it is a settlement that nobody has been sent."""
        self.reign = 0, 0
        """Term and number in it of the last leadership that was adopted."""
        self.leader: m.Leader | None = None
        """Whom it sends to; None while nobody can be reached."""
        self.opening = 0
        self.received = 0
        """The number of the leader's last frame in this leadership."""
        self.told = 0
        """Up to which one the leader knows that."""
        self.answer: m.NeverArrived | None = None
        """To what this leadership has on record."""
        self.is_remembered = False
        """Whether whoever leads may still have a session that was given up, with what it held."""
        self.owes = False
        """Whether the leader waits to hear what was received."""
        self.untold_bytes = 0
        """Of contents that were received since it was told.  Mostly it is when they are settled."""
        self.owing = 0
        """How many messages of this edge wait in a queue that is behind its consumers."""

    @property
    def term(self) -> int:
        """Of that leadership."""
        return self.reign[0]

    @property
    def is_full(self) -> bool:
        """Whether clients must be paused.  Settlements are taken all the same."""
        pending = self.pending
        # mutant: ST12
        return len(pending) >= OPERATIONS_MAX or pending.content_bytes >= PENDING_BYTES_MAX

    @property
    def has_room(self) -> bool:
        """Whether those that were paused go on: not for one message each."""
        pending = self.pending
        return len(pending) * 2 < OPERATIONS_MAX and pending.content_bytes * 2 < PENDING_BYTES_MAX

    # What is asked for: see `QueueRequests`

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
            self.put_off += 1
        return number

    def _look(self, holder: Key) -> None:
        """What was acknowledged waits no more once somebody may wait for the room that it makes.

        Its leader takes it for being in hands: half of the limit must be free all the same.
        """
        consumer = self.consumers.get(holder)
        limit = self.credits.get(consumer.number) if consumer is not None else None
        if limit is not None and 2 * (self.hands.count(holder) + self._settled) > limit:
            self.put_off = 0

    def leave(self, holder: Key, outcome: Outcome | None) -> int:
        """Somebody wants nothing more; with an outcome, nothing stays in its hands.

        Without one, a consumer is there until nothing more can be on its way to it.
        """
        if outcome is None:
            self._refuse(holder)
        else:
            self.forget(holder)
            self.hands.take_all(holder)
        return self.ask(m.Detach(self.pending.next, holder, outcome))

    def set_credit(self, consumer: int, limit: int) -> None:
        """How many messages may be in its hands and on their way to them."""
        if consumer not in self.credits:
            return
        self.credits[consumer] = limit
        key = self.keys.get(consumer)
        if key is not None and self.leader is not None:
            if self.news is EMPTY_DICT:
                self.news = {}
            self.news[key] = limit

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
            self.news.pop(consumer, None)

    def keep(self, deliver: m.Deliver) -> None:
        """Messages are in a client's hands: whoever leads need not send them any more."""
        for token in m.tokens_of(deliver):
            self.hands.put(token)
        self.untold_bytes += sum(map(len, deliver.contents))
        if self.untold_bytes >= UNREPORTED_BYTES_MAX:
            self.owes = True
        if self.put_off:
            self._look(deliver.holder)

    # Whom to talk to

    def connect(self, leader: m.Leader | None) -> None:
        """A leader can be reached, over a new link if it is the same; or nobody can be."""
        if leader is not None and leader.reign < self.reign:
            return
        self.leader = leader
        self.unsent = []  # mutant: R23
        self.put_off = self._settled = 0
        self.news.clear()
        if leader is None:
            return
        if leader.reign > self.reign:  # mutant: ST4
            self.reign, self.answer = leader.reign, None
            self.received = self.told = self.untold_bytes = self.owing = 0
            self.awaited.clear()
        self.opening += 1
        self.owes = False
        self.unsent.append(m.Open(self.pending.first))
        if self.session > 1:
            self.unsent.append(m.Forget(self.session))
        news = {key: self.credits[consumer] for consumer, key in self.keys.items()}
        self.news = news or EMPTY_DICT
        if self.answer is not None:
            self.unsent.append(self.answer)
        self.unsent += self.pending  # mutant: R6a ST1

    @property
    def has_output(self) -> bool:
        """Whether there is anything to be sent, to anybody who can be reached."""
        is_due = len(self.unsent) > self.put_off or self.news or self.owes
        return self.leader is not None and bool(is_due)

    def output(self) -> tuple[str, m.ClientFrame] | None:
        """What is to be sent, and to which node; call again until there is nothing."""
        leader = self.leader
        if leader is None or not self.has_output:
            return None
        messages, self.unsent = self._next_frame()
        self.owes, self._last = False, None
        self.put_off = self._settled = 0
        self.told, self.untold_bytes = self.received, 0
        if self.news:
            messages += [m.Credit(key, limit) for key, limit in self.news.items()]
            self.news.clear()
        frame = m.ClientFrame(
            group=self.group,
            term=leader.term,
            leadership=leader.leadership,
            sender=self.boot,
            receiver=leader.boot,
            session=self.session,
            opening=self.opening,
            received=self.received,
            known=self.pending.first,
            messages=messages,
        )
        return leader.node, frame

    def _next_frame(self) -> tuple[list[m.FromClient], list[m.FromClient]]:
        """What goes in one frame, of all that is unsent, and the rest."""
        if self.pending.content_bytes > FRAME_BYTES_MAX:
            size = 0
            for at, message in enumerate(self.unsent):
                size += m.content_bytes_of(message)
                if size > FRAME_BYTES_MAX and at:
                    return self.unsent[:at], self.unsent[at:]
        return self.unsent, []

    # What ends a session

    def lost(self) -> list[Event]:
        """The leader knows nothing of this session, and it was not new."""
        events = self._over(is_known=False)
        self._renew()
        self.connect(self.leader)
        return events

    def deleted(self) -> list[Event]:
        """The queue is gone for good, and no leader says any more what it has got."""
        self.leader = None
        return self._over(is_known=True)  # mutant: ST11

    def _renew(self) -> None:
        """Another session, of which nobody has heard."""
        self.session += 1
        self.is_remembered = self.opening > 0
        self.pending = PendingOperations()
        self.received = self.told = self.untold_bytes = self.owing = 0
        self.answer = None
        self.unsent = []
        self.put_off = self._settled = 0
        self._last = None
        self.news.clear()

    def _over(self, *, is_known: bool) -> list[Event]:
        """Nothing more comes of anything that is pending or held: what clients must be told.

        `is_known`: the queue is gone with all of it; else nobody knows.
        """
        events: list[Event] = []
        for operation, first, count in self.pending.clear():
            if first not in self.unwanted:
                events += _over_with(operation, first, count, is_known=is_known)
        if held := self.hands.take_all():
            events.append(happened.Revoked(held))
        events += [happened.Cancelled(attach.number) for attach in self.consumers.values()]
        self.consumers.clear()
        self.keys.clear()
        self.credits.clear()
        self.news.clear()
        self.getters.clear()
        self.unwanted.clear()
        self.awaited.clear()
        return events


def _over_with(operation: m.Operation, first: int, count: int, *, is_known: bool) -> list[Event]:
    """What becomes of an operation of which nothing more is heard."""
    match operation:
        case m.Publish():
            return [
                (happened.PublishUndecided if is_known else happened.PublishRefused)(first, count)
            ]
        case m.Settle(outcome=outcome) if outcome in FINAL and not is_known:
            return [happened.SettleFailed(first)]
        case m.Settle() | m.Detach():
            return [happened.OperationsDone(first, count)]
        case m.Attach():
            return [happened.Cancelled(first)]
        case m.Get() if is_known:
            return [happened.Got(first, 0, None)]
        case m.Purge() if is_known:
            return [happened.Purged(first, 0)]
        case _:
            return [happened.AnswerLost(first)]
