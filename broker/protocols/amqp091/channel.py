"""AMQP channel: plain state, and the few verbs that all its handlers share.

What a method does is in `basic_methods`, `topology_methods` and `tx_methods`, what basic.publish
does in `event_handlers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from fluffle.broker.access.access import User
from fluffle.broker.base.errors import BrokerError, CommandInvalid, NotFound, NotImplementedHere
from fluffle.broker.core.client import Client
from fluffle.broker.core.confirms import Confirms, Run
from fluffle.broker.core.consumer import Subscription, described, end_consumers, requeue_timed_out
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.pending_requests import ChannelQuery, PendingRequest, WaitingRequests
from fluffle.broker.core.publisher import Publisher
from fluffle.broker.core.route_lookup import RoutedBatch
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import Session
from fluffle.broker.core.settlement import Settlements
from fluffle.broker.core.topology import readable_queue
from fluffle.broker.metadata.metadata import Decide, ignore_done
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import Deferred, Outcome, SharedCredit
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.hot import ack_frame, nack_frame
from fluffle.protocol.methods import Basic, Method, encode_method, make, return_frame
from fluffle.protocol.properties import split_content
from fluffle.protocol.reader import Event
from fluffle.protocol.spec import ProtocolError, ReplyCode
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.core.observer import ChannelObserver
    from fluffle.broker.protocols.amqp091.transaction import Transaction
    from fluffle.broker.queues.queue_api import OverdueDeliveries, QueueHandle, TimedOutDeliveries


@dataclass(slots=True)
class DecodedMethod:
    """Method of a channel that has been decoded, and waits or is acted on anew."""

    channel: int
    method: Method

    @property
    def ids(self) -> tuple[int, int]:
        """Class and method of the request, for errors about it."""
        return divmod(self.method.index, 1 << 16)


InputEvent: TypeAlias = Event | DecodedMethod
"""Event or method that a connection acts on."""


class ChannelConnection(Client, Protocol):
    """Connection that has channels, as they know it."""

    output: OutputBuffer
    waiting: WaitingRequests[InputEvent]

    def give_up(self, error: Exception) -> None:
        """Close it for an error of the broker's own that concerns it alone."""


class AmqpSession(Session):
    """Session of a connection that has channels."""

    __slots__ = ("connection", "frame_bytes_max", "notify_cancel", "output", "waiting")

    def __init__(
        self,
        connection: ChannelConnection,
        user: User,
        vhost: VirtualHost,
        services: Services,
        *,
        notify_cancel: bool,
    ) -> None:
        super().__init__(user=user, vhost=vhost, services=services, client=connection)
        self.connection = connection
        self.output = connection.output
        self.waiting = connection.waiting
        """Channels that cannot go on yet."""
        self.frame_bytes_max = connection.handshake.frame_bytes_max
        """Largest frame that the client takes; 0 is no limit."""
        self.notify_cancel = notify_cancel
        """True if the client understands a basic.cancel from the server."""


T = TypeVar("T")


def discard_answer(_answer: Any) -> None:
    """Ignore an answer that is not needed any more."""


class ChannelTable(Protocol):
    """The channels of a connection, as each of them knows them."""

    def refuse(self, channel: Channel, error: BrokerError) -> None:
        """Close a channel for something that its client did not ask for, unless it has ended."""


class PublishFrames:
    """Frames of one channel that say what became of its publishes."""

    __slots__ = ("_confirms", "_frame_bytes_max", "_number", "_output")

    def __init__(self, number: int, output: OutputBuffer, frame_bytes_max: int) -> None:
        self._number = number
        self._output = output
        self._frame_bytes_max = frame_bytes_max
        self._confirms: Confirms | None = None
        """Ledger that knows more than was sent."""

    def returned(self, routed: RoutedBatch) -> None:
        """basic.return with 312 for messages that were mandatory and went nowhere."""
        number, output = self._number, self._output
        for origin, content in zip(routed.origins, routed.contents, strict=True):
            output.add(
                return_frame(
                    number, ReplyCode.NO_ROUTE, "NO_ROUTE", origin.exchange, origin.routing_key
                )
            )
            output.add(split_content(content, number, self._frame_bytes_max))

    def report(self, confirms: Confirms) -> None:
        for frame in confirm_frames(self._number, confirms):
            self._output.add(frame)

    def report_later(self, confirms: Confirms) -> None:
        self._confirms = confirms
        self._output.ask_later(self)

    def write_output(self) -> None:
        """Say what is known by now, in the midst of writing."""
        if self._confirms is not None:
            self._output.pieces += confirm_frames(self._number, self._confirms)


def confirm_frames(channel: int, confirms: Confirms) -> list[bytes]:
    """Take what has become known, as frames that are coalesced as RabbitMQ does.

    One with `multiple` is for all that lies below each number that is open or has the other answer,
    single ones for the rest; a lone answer goes out with multiple=false.
    """
    accepted, refused, open_from = confirms.take()
    frames: list[bytes] = []
    if accepted:
        acks = coalesced(accepted, refused, open_from)
        frames += [ack_frame(channel, tag, multiple=multiple) for tag, multiple in acks]
    if refused:
        nacks = coalesced(refused, accepted, open_from)
        frames += [nack_frame(channel, tag, multiple=multiple) for tag, multiple in nacks]
    return frames


def coalesced(runs: Sequence[Run], others: Sequence[Run], open_from: int) -> list[tuple[int, bool]]:
    """Tags and whether each stands for all before it, for runs that have the same answer."""
    if len(runs) == 1 and runs[0][0] == runs[0][1]:
        return [(runs[0][0], False)]
    bound = min([open_from, *(first for first, _last in others)])
    below = [last for first, last in runs if first < bound]
    answers = [(max(below), True)] if below else []
    for first, last in runs:
        if first > bound:
            answers += [(tag, False) for tag in range(first, last + 1)]
    return answers


class Channel:
    """The state of one channel."""

    __slots__ = (
        "channels",
        "committing",
        "incoming",
        "is_certain",
        "is_open",
        "last_queue_name",
        "number",
        "observer",
        "outgoing",
        "prefetch",
        "publisher",
        "reply_tag",
        "session",
        "settlements",
        "shared_credit",
        "subscriptions",
        "ticket",
        "transaction",
        "unacked",
    )

    def __init__(self, number: int, session: AmqpSession, channels: ChannelTable) -> None:
        self.number = number
        self.session = session
        self.channels = channels
        self.observer: ChannelObserver | None = None
        """Observer of its messages, where wanted."""
        interceptors = session.interceptors
        self.incoming = interceptors.incoming if interceptors is not None else None
        """Adds headers to what its client publishes."""
        self.outgoing = interceptors.outgoing if interceptors is not None else None
        """Adds headers to what its client is given."""
        frames = PublishFrames(number, session.output, session.frame_bytes_max)
        self.publisher = Publisher(session, frames, number=number)
        self.committing: Steps[None] | None = None
        """The work that is left to be done of a commit."""
        self.is_open = True
        self.is_certain = session.read_barrier.is_complete
        """True if what it is asked now may be answered by what is not here: see `read_barrier`."""
        self.transaction: Transaction | None = None
        self.settlements = Settlements(session)
        self.unacked = self.settlements.unacked
        self.subscriptions: dict[str, Subscription] = {}
        """Subscriptions by consumer tag."""
        self.reply_tag = ""
        """Consumer tag of direct reply-to, while there is such a consumer."""
        self.prefetch = 0
        """Prefetch limit of consumers that start from now on; 0 means no limit."""
        self.shared_credit = SharedCredit()
        self.last_queue_name = ""
        self.ticket = 0
        """Ticket of the last commit that makes this channel's work durable, settlements and
        transactions apart."""

    def recorded(self) -> None:
        """Note that something was done that is safe once the commit that collects has been done."""
        self.ticket = self.session.commits.ticket

    def reply(self, method: Method) -> None:
        """Send a method at the end of this turn, or once what it vouches for is safe."""
        self.vouch()
        self.session.output.add(encode_method(self.number, method))

    def vouch(self) -> None:
        """Hold what is sent from now on until all that was done on this channel is durable.

        It vouches for every declaration, too, since it may be about another's.
        """
        commits, transaction = self.session.commits, self.transaction
        ticket = max(self.ticket, self.settlements.ticket, commits.defined)
        if transaction is not None:
            ticket = max(ticket, transaction.ticket)
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
        event = DecodedMethod(self.number, method)
        request = PendingRequest(self.session.waiting, self, event, decide=decide, done=done)
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
            event = DecodedMethod(self.number, method)
            ChannelQuery(
                self.session.waiting, self, event, act=act, unwanted=unwanted, undo=undo
            ).wait(answer)
        else:
            act(answer)

    def requeue_timed_out(self, late: OverdueDeliveries) -> TimedOutDeliveries:
        """Put back messages that its client has held for too long."""
        if self.transaction is None:
            return requeue_timed_out(late)
        return requeue_timed_out(late, self.transaction.settled_of)

    def refuse(self, error: BrokerError) -> None:
        """Have it closed, about nothing that its client asked for."""
        self.channels.refuse(self, error)

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

    @property
    def loses_consumers(self) -> bool:
        """True if the client supports being notified of a lost consumer, and keeps the channel."""
        return self.session.notify_cancel

    def consumer_lost(self, tag: str) -> None:
        """Notify a client that its consumer is gone, if it supports that."""
        if self.session.notify_cancel:
            self.reply(make(Basic.Cancel, consumer_tag=tag, nowait=True))

    def credit_of(self, queue: QueueHandle) -> SharedCredit:
        """The prefetch that consumers of a queue share (basic.qos, global): for quorum queues there
        is none unless it is switched on, and it is refused.  NotImplementedHere."""
        credit, session = self.shared_credit, self.session
        if queue.spec.queue_type is not QueueType.QUORUM or session.quorum_global_qos:
            return credit
        if credit.limit:
            where = described(queue, session.vhost.name)
            raise NotImplementedHere(f"{where} does not support global qos")
        return SharedCredit()

    def close(self) -> None:
        """Stop all consumers and give back what is unacknowledged; say nothing.

        The answer to the client's close, if it is that, vouches for what was done here.
        """
        self.is_open = False
        self.vouch()
        end_consumers(self)
        if self.reply_tag:
            stop_replies(self)
        self._do_or_add(lose_all(self))
        self.publisher.end()
        if self.committing is not None:
            self.session.background_tasks.add(self.committing, self._commit_failed)
            self.committing = None

    def _commit_failed(self, _error: Exception) -> None:
        """Give back what was settled in a transaction and has not been committed."""
        self.session.background_tasks.add(lose_all(self), discard_answer)

    def _do_or_add(self, steps: Steps[None]) -> None:
        """Do what is left to be done now, if that is one step."""
        for _ in steps:
            self.session.background_tasks.add(steps, discard_answer)
            break


def stop_replies(channel: Channel) -> None:
    """End its consumer of direct reply-to."""
    channel.session.replies.remove(channel.publisher.reply_to)
    channel.reply_tag = channel.publisher.reply_to = ""


def lose_all(channel: Channel) -> Steps[None]:
    """Give back all that is unacknowledged, and what was settled in a transaction that is not being
    committed."""
    transaction = channel.transaction if channel.committing is None else None
    if transaction is not None:
        yield from transaction.roll_back()
    yield from channel.settlements.settle_all(Outcome.LOST)
    if transaction is not None:
        yield from channel.unacked.sweep()


def once_settled(channel: Channel, method: Method, act: Callable[[], None]) -> None:
    """Go on once all is so that was settled there: the answer to `method` vouches for that.

    Raises what has become of it instead.  A queue answers a get behind what it was asked before.
    """
    if isinstance(method, Basic.Get):
        channel.settlements.forget_pending_of(method.queue or channel.last_queue_name)
    if not channel.settlements.pending:
        act()
        return
    queue, settling = channel.settlements.pending.popitem()

    def known(_answer: None) -> None:
        if settling.error is not None:
            raise settling.error
        once_settled(channel, method, act)

    channel.ask(method, queue.settling, known)


def close_for(
    cls: Callable[[int, str, int, int], Method],
    error: BrokerError | ProtocolError,
    ids: tuple[int, int],
) -> Method:
    """The close of a channel or of a connection that says what was wrong, with which method."""
    return make(cls, int(error.code), error.reply_text, *ids)


def unimplemented() -> BrokerError:
    """A method of the connection, or of servers only, came on a channel."""
    return CommandInvalid("unimplemented method")
