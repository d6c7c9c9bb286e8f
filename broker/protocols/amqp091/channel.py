"""AMQP channel: plain state, and the few verbs that all its handlers share.

What a method does is in `publish_methods`, `basic_methods`, `topology_methods` and `tx_methods`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from fluffle.broker.base.errors import BrokerError, NotFound
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.pending_requests import PendingQuery, PendingRequest
from fluffle.broker.core.publisher import Publisher
from fluffle.broker.core.session import Session
from fluffle.broker.core.topology import readable_queue
from fluffle.broker.core.unacked import Stretch, Unacked
from fluffle.broker.metadata.metadata import Decide, ignore_done
from fluffle.broker.protocols.amqp091.publish_methods import PublishFrames
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.consumers import SharedCredit
from fluffle.broker.queues.delivery import BY_CLIENT, Outcome
from fluffle.broker.queues.queue_api import Deferred
from fluffle.protocol.methods import Basic, Method, encode_method, make
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.subscription import ReplySubscription, Subscription
    from fluffle.broker.protocols.amqp091.tx_methods import Transaction
    from fluffle.broker.queues.delivery import DeliveryBatch
    from fluffle.broker.queues.queue_api import QueueHandle, SettlementStatus


SETTLED_AT_ONCE = 1024
"""So many messages are settled together, which takes a millisecond or two if no two that follow
one another are among them."""

T = TypeVar("T")

Refuse: TypeAlias = "Callable[[Channel, BrokerError], None]"
Settler: TypeAlias = "Callable[[Channel, list[Stretch], Outcome], None]"
GetAnswerer: TypeAlias = "Callable[[Channel, QueueHandle, DeliveryBatch | None], None]"
Send: TypeAlias = "Callable[[DeliveryBatch], None]"


def discard_answer(_answer: Any) -> None:
    """What becomes of an answer that nobody wants any more, where that is nothing."""


def not_observed(send: Send, _queue: QueueHandle) -> Send:
    """Where nobody wants to see what is sent."""
    return send


class Channel:
    """The state of one channel."""

    __slots__ = (
        "answer_get",
        "committing",
        "far",
        "incoming",
        "is_certain",
        "is_open",
        "last_queue_name",
        "number",
        "outgoing",
        "prefetch",
        "publisher",
        "refuse",
        "reply_subscription",
        "sending",
        "session",
        "settle",
        "shared_credit",
        "subscriptions",
        "ticket",
        "transaction",
        "unacked",
    )

    def __init__(self, number: int, session: Session, refuse: Refuse) -> None:
        self.number = number
        self.session = session
        interceptors = session.interceptors
        self.incoming = interceptors.incoming if interceptors is not None else None
        """Adds headers to what its client publishes."""
        self.outgoing = interceptors.outgoing if interceptors is not None else None
        """Adds headers to what its client is given."""
        frames = PublishFrames(number, session.output, session.frame_bytes_max)
        self.publisher = Publisher(session, frames, number=number)
        self.committing: Steps[None] | None = None
        """The work that is left to be done of a commit."""
        self.settle: Settler = settle
        """What becomes of messages that its ledger has let go.  This and the next two are other
        functions where that is observed."""
        self.answer_get: GetAnswerer = answer_get
        """What tells the client what it got."""
        self.sending: Callable[[Send, QueueHandle], Send] = not_observed
        """Makes what sends to a consumer of a queue, of what does so."""
        self.refuse = refuse
        """Has it closed, about nothing that its client asked for."""
        self.is_open = True
        self.is_certain = session.read_barrier.is_complete
        """Whether what it is asked now may be answered by what is not here: see `read_barrier`."""
        self.transaction: Transaction | None = None
        self.unacked = Unacked()
        self.subscriptions: dict[str, Subscription] = {}
        """By consumer tag."""
        self.reply_subscription: ReplySubscription | None = None
        self.prefetch = 0
        """For consumers that start from now on; 0 means no limit."""
        self.shared_credit = SharedCredit()
        self.last_queue_name = ""
        self.ticket = 0
        """Of the last commit that makes something safe which was done on this channel."""
        self.far: dict[QueueHandle, SettlementStatus] = {}
        """Queues led elsewhere that may not know yet what was settled here, or never will."""

    def recorded(self) -> None:
        """Something was done that is safe once the commit that collects has been done."""
        self.ticket = self.session.commits.ticket

    def reply(self, method: Method) -> None:
        """Send a method at the end of this turn, or once what it vouches for is safe."""
        self.vouch()
        self.session.output.add(encode_method(self.number, method))

    def vouch(self) -> None:
        """What is sent from now on says that all is safe that was done on this channel.

        It vouches for every declaration, too, since it may be about another's.
        """
        commits = self.session.commits
        ticket = max(self.ticket, commits.defined)
        if ticket > commits.durable:
            self.session.output.hold(ticket)
            commits.wait(self.session.output, ticket)

    @property
    def confirms(self) -> Confirms | None:
        """The ledger of its publishes, in confirm mode."""
        return self.publisher.mode.confirms

    def change(self, method: Method, decide: Decide, done: Callable[[], None]) -> None:
        """Have definitions changed, as `method` asks, and go on with `done`.

        If that takes its time, nothing that came behind it on this channel is acted on until then.
        """
        request = PendingRequest(self, method, decide, done)
        self.session.metadata.change(request.decide, request.done, request.failed)
        request.wait()

    def ask(
        self,
        method: Method,
        answer: T | Deferred[T],
        act: Callable[[T], None],
        unwanted: Callable[[T], None] = discard_answer,
        *,
        undo: Callable[[], None] = ignore_done,
    ) -> None:
        """Go on with the answer of a queue to `method`, with `unwanted` if this has ended by then.

        If it is yet to come, nothing that came behind it on this channel is acted on until then.
        If the queue is deleted before, `method` is acted on anew, after `undo`.
        """
        if isinstance(answer, Deferred):
            PendingQuery(self, method, act, unwanted, undo).wait(answer)
        else:
            act(answer)

    def queue_name(self, name: str) -> str:
        """`name`, or the queue last declared on this channel when it is empty (§1.7.2.1)."""
        if name:
            return name
        if not self.last_queue_name:
            raise NotFound("no previously declared queue")
        return self.last_queue_name

    def readable_queue(self, name: str) -> QueueHandle:
        """The queue of that name, as `topology.readable_queue` finds it."""
        return readable_queue(self.session, self.queue_name(name))

    def deliver_ready(self) -> None:
        """Its consumers get what was published before what its client asks for now."""
        for subscription in tuple(self.subscriptions.values()):
            subscription.consumer.queue.deliver_ready()

    def close(self) -> None:
        """Stop all consumers and give back what is unacknowledged; say nothing.

        The answer to the client's close, if it is that, vouches for what was done here.
        """
        self.is_open = False
        self.vouch()
        subscriptions, self.subscriptions = self.subscriptions, {}
        for subscription in subscriptions.values():
            self.session.output.forget(subscription.consumer)
            self.shared_credit.forget(subscription.consumer)
            self.session.detach(subscription.consumer)
            for observer in self.session.observers:
                observer.consumer_ended(self, subscription.consumer)
            subscription.end()
        if self.reply_subscription is not None:
            self.session.replies.remove(self.reply_subscription.name)
            self.reply_subscription = None
        self._do_or_add(lose_all(self))
        self.publisher.end()
        if self.committing is not None:
            self.session.background_tasks.add(self.committing, self._commit_failed)
            self.committing = None
        self.session.traffic.channels_closed += 1

    def _commit_failed(self, _error: Exception) -> None:
        """Give back what was settled in a transaction and has not been committed."""
        self.session.background_tasks.add(lose_all(self), discard_answer)

    def _do_or_add(self, steps: Steps[None]) -> None:
        """Do what is left to be done now, if that is one step."""
        for _ in steps:
            self.session.background_tasks.add(steps, discard_answer)
            break


def lose_all(channel: Channel) -> Steps[None]:
    """Give back all that is unacknowledged, and what was settled in a transaction that is not being
    committed."""
    transaction = channel.transaction if channel.committing is None else None
    if transaction is not None:
        yield from transaction.roll_back(channel.unacked)
    channel.settle(channel, channel.unacked.take_up_to(0, SETTLED_AT_ONCE)[0], Outcome.LOST)
    yield from settle_rest(channel, Outcome.LOST)
    if transaction is not None:
        yield from channel.unacked.sweep()


def settle_rest(channel: Channel, outcome: Outcome) -> Steps[None]:
    """Settle what the ledger has left to be taken, too; if it is much, some at a time."""
    while channel.unacked.rest:
        yield
        channel.settle(channel, channel.unacked.take_rest(SETTLED_AT_ONCE), outcome)


def settle(channel: Channel, stretches: list[Stretch], outcome: Outcome) -> None:
    """Tell the queues what became of messages that the ledger has let go."""
    count = of_quorum_queues = 0
    if channel.session.has_put and outcome in BY_CLIENT:
        for queue in dict.fromkeys(each.delivery_batch.holder.queue for each in stretches):
            queue.deliver_ready()  # mutant: CO3
    for delivery_batch, start, stop in stretches:
        count += stop - start
        queue = delivery_batch.holder.queue
        settling = queue.settle(delivery_batch, start, stop, outcome)
        if settling is not None:
            if (before := channel.far.get(queue)) is None or before.error is None:
                channel.far[queue] = settling
            if queue.spec.queue_type is QueueType.QUORUM:
                of_quorum_queues += stop - start
        if delivery_batch.is_recorded:
            channel.recorded()
    if outcome is Outcome.ACKED:
        traffic = channel.session.traffic
        traffic.from_quorum_queues.acknowledged += of_quorum_queues
        traffic.from_queues.acknowledged += count - of_quorum_queues


def answer_get(channel: Channel, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
    """Tell a client what it has got of a queue."""
    if delivery_batch is None:
        channel.session.deliveries_from(queue).get_empty += 1
        channel.reply(make(Basic.GetEmpty))
    else:
        delivery_batch.holder.deliver(delivery_batch)


def once_settled(channel: Channel, method: Method, act: Callable[[], None]) -> None:
    """Go on once all is so that was settled there: the answer to `method` vouches for that.

    Raises what has become of it instead.  A queue answers a get behind what it was told before.
    """
    if isinstance(method, Basic.Get):
        name = method.queue or channel.last_queue_name
        channel.far = {
            queue: settling
            for queue, settling in channel.far.items()
            if queue.name != name or settling.error is not None
        }
    if not channel.far:
        act()
        return
    queue, settling = channel.far.popitem()

    def known(_answer: None) -> None:
        if settling.error is not None:
            raise settling.error
        once_settled(channel, method, act)

    channel.ask(method, queue.settling, known)
