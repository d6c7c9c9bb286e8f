"""tx.select, commit and rollback, as RabbitMQ does them.

Routes are decided when a message is published; queues, or what has their place by then, see it at
the commit, which then settles what was acknowledged.  A rollback forgets the messages and puts what
was acknowledged back into the ledger under the tags it had: nothing is redelivered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, cast

from fluffle.broker.errors import PreconditionFailed, ResourceError
from fluffle.broker.letters import inlet_now
from fluffle.broker.queues.handout import FINAL, Handout, Outcome
from fluffle.broker.queues.served import Admission, Inlet, Later, Partly, Receipt, Target
from fluffle.broker.server.awaiting import Taken
from fluffle.broker.server.channel import SETTLED_AT_ONCE, Channel, once_settled
from fluffle.broker.server.putting import Parcel, Pending, records
from fluffle.broker.server.replies import ReplyTarget
from fluffle.broker.server.session import Session
from fluffle.broker.server.unacked import Stretch
from fluffle.broker.vhost import VirtualHost
from fluffle.protocol.methods import Method, Tx, make
from fluffle.protocol.steps import Steps, Unfinished

MESSAGE_OVERHEAD_BYTES = 64
"""What a message costs beside its content."""


class Published(NamedTuple):
    """Messages that have passed all checks."""

    parcel: Parcel
    persistent: bool


class Transaction:
    """What a channel has published and settled since its last commit or rollback."""

    __slots__ = ("_bytes", "_publishes", "_returned", "_session", "_settled")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._bytes = 0
        """Of what it holds to be published."""
        self._publishes: list[Published] = []
        self._settled: list[tuple[list[Stretch], Outcome]] = []
        """What is done with."""
        self._returned: deque[tuple[list[Stretch], Outcome]] = deque()
        """What is to be delivered again."""

    @property
    def message_count(self) -> int:
        """Messages that are to be published."""
        return sum(len(parcel.contents) for parcel, _persistent in self._publishes)

    @property
    def settled_count(self) -> int:
        """Deliveries that are to be settled."""
        return sum(stop - start for _run, start, stop in self._stretches())

    def publish(self, published: Published) -> None:
        """Keep messages for the commit.  ResourceError when they are too many."""
        session, size_bytes = self._session, held_bytes(published.parcel)
        bytes_max = session.limits.uncommitted_bytes_max
        if session.uncommitted_bytes + size_bytes > bytes_max:
            raise ResourceError(f"transactions exceed {bytes_max} bytes on this connection")
        session.uncommitted_bytes += size_bytes
        self._bytes += size_bytes
        self._publishes.append(published)

    def settle(self, stretches: list[Stretch], outcome: Outcome) -> None:
        """Keep what the queues are to be told at the commit."""
        (self._settled if outcome in FINAL else self._returned).append((stretches, outcome))

    def _stretches(self) -> Iterator[Stretch]:
        """All that is to be settled."""
        for stretches, _outcome in (*self._settled, *self._returned):
            yield from stretches

    def give_back(self, channel: Channel) -> Steps[None]:
        """Give back what is to be delivered again, which would come again if this failed, too."""
        left = SETTLED_AT_ONCE
        while self._returned:
            stretches, outcome = self._returned.popleft()
            some, rest = parted(stretches, left)
            if rest:
                self._returned.appendleft((rest, outcome))
            channel.settle(channel, some, outcome)
            left -= sum(stop - start for _run, start, stop in some)
            if left <= 0:
                left = SETTLED_AT_ONCE
                yield

    def commit(self, channel: Channel) -> bool | Later[bool]:
        """Publish, then settle for good.  Whether all was published: not if a queue is gone, or
        refuses."""
        vhost = channel.session.vhost
        is_complete = True
        receipts: list[Receipt] = []
        for parcel, persistent in self._publishes:
            found = [target_now(vhost, target) for target in parcel.targets]
            parcel.targets = parcel.left = tuple(one for one in found if one is not None)
            is_complete &= len(parcel.targets) == len(found)
            if found and not parcel.targets:
                continue
            answer = channel.put(channel, parcel, persistent=persistent)
            if records(answer):
                channel.recorded()
            if isinstance(answer, Pending):
                receipts += [one for one in answer.receipts if isinstance(one, Receipt)]
                is_complete &= not any(isinstance(one, Partly) for one in answer.receipts)
            is_complete &= answer is not Admission.REFUSED
        settled = self._settled
        self.forget()
        for stretches, outcome in settled:
            channel.settle(channel, stretches, outcome)
        return Taken(receipts).answer if is_complete and receipts else is_complete

    def settled_of(self, handout: Handout) -> list[tuple[int, int]]:
        """The stretches of a run that its queue is to be told of."""
        return [(start, stop) for run, start, stop in self._stretches() if run is handout]

    @property
    def held(self) -> tuple[int, int]:
        """How many messages it is to publish, and how many it is to settle."""
        return self.message_count, self.settled_count

    def forget(self) -> list[Stretch]:
        """Start afresh; what had been settled."""
        settled = [*self._stretches()]
        self._publishes, self._settled, self._returned = [], [], deque()
        self._session.uncommitted_bytes -= self._bytes
        self._bytes = 0
        return settled


def parted(stretches: list[Stretch], count: int) -> tuple[list[Stretch], list[Stretch]]:
    """The first so many messages, and the rest."""
    for at, (run, start, stop) in enumerate(stretches):
        if stop - start > count:
            middle = start + count
            some, rest = Stretch(run, start, middle), Stretch(run, middle, stop)
            return [*stretches[:at], *([some] if count else [])], [rest, *stretches[at + 1 :]]
        count -= stop - start
    return stretches, []


def target_now(vhost: VirtualHost, target: Target) -> Target | None:
    """As `inlet_now`; a requester need not be there."""
    return target if isinstance(target, ReplyTarget) else inlet_now(vhost, cast(Inlet, target))


def held_bytes(parcel: Parcel) -> int:
    """What a parcel costs that is kept, which for messages without a body is more than they are."""
    return parcel.content_bytes + MESSAGE_OVERHEAD_BYTES * len(parcel.contents)


def publish_in_transaction(
    channel: Channel, parcels: Sequence[Parcel], *, persistent: bool
) -> None:
    """Keep messages until tx.commit."""
    for parcel in parcels:
        transaction_of(channel).publish(Published(parcel, persistent=persistent))


def transaction_of(channel: Channel) -> Transaction:
    """The transaction of a channel; PreconditionFailed when it is not transactional."""
    if channel.transaction is None:
        raise PreconditionFailed("channel is not transactional")
    return channel.transaction


def on_select(channel: Channel, _method: Method) -> None:
    if channel.confirms is not None:
        raise PreconditionFailed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction(channel.session)
        channel.publish = publish_in_transaction
    channel.reply(make(Tx.SelectOk))


def on_commit(channel: Channel, method: Method) -> None:
    raise Unfinished(commit(channel, method, transaction_of(channel)))


def commit(channel: Channel, method: Method, transaction: Transaction) -> Steps[None]:
    """In one go, but for what comes back: that may be done in part, and by and by."""
    yield from transaction.give_back(channel)
    channel.ask(method, transaction.commit(channel), partial(committed, channel, method))


def committed(channel: Channel, method: Method, is_complete: bool) -> None:  # noqa: FBT001 - it is an answer
    if not is_complete:
        raise PreconditionFailed("partial tx completion")
    once_settled(channel, method, lambda: channel.reply(make(Tx.CommitOk)))


def on_rollback(channel: Channel, _method: Method) -> None:
    channel.unacked.restore(transaction_of(channel).forget())
    channel.reply(make(Tx.RollbackOk))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    Tx.Select: on_select,
    Tx.Commit: on_commit,
    Tx.Rollback: on_rollback,
}
