"""What happens on one channel, counted where it does.

The methods that a channel calls in the place of its own are all that a message meets: they act
first, then count a run in one or two steps.  What it means is found out later (`book`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

from fluffle.broker.base.message import Origin
from fluffle.broker.observability.statistics.counters import Book, OfVhost
from fluffle.broker.observability.statistics.counts import (
    ACK,
    CONFIRM,
    DELIVER,
    DELIVER_GET,
    DELIVER_NO_ACK,
    DELIVERED,
    DROP,
    GET,
    GET_EMPTY,
    GET_NO_ACK,
    OF_CHANNEL,
    OF_DELIVERIES,
    OF_PUBLISHES,
    PUBLISH,
    PUBLISHED,
    REDELIVER,
    RETURN,
    Counts,
)
from fluffle.broker.protocols.amqp091.direct_reply_to import ReplyTarget
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.delivery import Outcome
from fluffle.protocol.properties import body_size

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel, GetAnswerer, Send, Settler
    from fluffle.broker.protocols.amqp091.confirms import Confirms
    from fluffle.broker.protocols.amqp091.enqueue import Answer, Parcel, Putter
    from fluffle.broker.protocols.amqp091.unacked import Stretch
    from fluffle.broker.queues.delivery import Handout, Holder
    from fluffle.broker.queues.queue_api import ServedQueue, Target
    from fluffle.broker.routing.exchange import Exchange

DELIVERED_AT = len(PUBLISHED)
"""Where these begin in the counts of a channel, a virtual host and a node."""

OF_QUEUE_DELIVERED_AT = 1

ACKED, LOST = Outcome.ACKED, Outcome.LOST

exchange_of = attrgetter("exchange")

CELLS_MAX = 1_024
"""So many different ways of one channel are entered together."""


class Published:
    """What went to one exchange, by one channel."""

    __slots__ = ("counts", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.counts = Counts(OF_PUBLISHES)


class Taken:
    """What one channel has got from one queue."""

    __slots__ = ("_book", "_channel", "_of_vhost", "_queue", "counted", "counts", "is_touched")

    def __init__(self, book: Book, of_vhost: OfVhost, channel: Counts, queue: ServedQueue) -> None:
        """`channel`: the counts of that."""
        self._book = book
        self._of_vhost = of_vhost
        self._channel = channel
        self._queue = queue
        self.counts = Counts(OF_DELIVERIES)
        self.counted = [0] * len(DELIVERED)
        """What is yet to be entered."""
        self.is_touched = False
        """Whether there may be something there."""

    def touch(self) -> None:
        """Somebody is about to count."""
        self.is_touched = True
        self._book.touch(self)

    def enter(self) -> None:
        self.is_touched = False
        counted, self.counted = self.counted, [0] * len(DELIVERED)
        counted[DELIVER_GET] = sum(counted[at] for at in (DELIVER, DELIVER_NO_ACK, GET, GET_NO_ACK))
        book, of_vhost = self._book, self._of_vhost
        book.enter(DELIVERED_AT, counted, (self._channel, of_vhost.counts, book.node))
        book.enter(0, counted, (self.counts,))
        of_queue = of_vhost.of_queue(self._queue)
        if of_queue is not None:
            book.enter(OF_QUEUE_DELIVERED_AT, counted, (of_queue,))


class Sending:
    """Sends to one consumer, and counts."""

    __slots__ = ("_book", "_count", "_holder", "_on_channel", "_redelivered", "_send")

    def __init__(self, send: Send, on_channel: OnChannel, book: Book) -> None:
        self._send = send
        self._on_channel = on_channel
        self._book = book
        self._holder: Holder
        """While there is anything to enter: it has this, and neither is to keep the other alive."""
        self._count = self._redelivered = 0
        """Messages that are yet to be entered; and those of them that had been delivered before."""

    def send(self, handout: Handout) -> None:
        self._send(handout)
        if not self._count:
            self._holder = handout.holder
            self._book.touch(self)
        count = len(handout.contents)
        self._count += count
        if handout.redelivered:
            self._redelivered += count

    def enter(self) -> None:
        holder = self._holder
        del self._holder
        counted = self._on_channel.counted_of(holder.queue)
        counted[DELIVER_NO_ACK if holder.no_ack else DELIVER] += self._count
        counted[REDELIVER] += self._redelivered
        self._count = self._redelivered = 0


class Cell:
    """Messages of one origin that went the same way and are yet to be entered."""

    __slots__ = ("count", "mandatory", "origin", "targets")

    def __init__(
        self, origin: Origin, targets: tuple[Target, ...] | None, *, mandatory: bool
    ) -> None:
        self.origin = origin
        self.targets = targets
        """None where they went nowhere."""
        self.mandatory = mandatory
        self.count = 0


NO_CELL = Cell(Origin("", ""), None, mandatory=False)
"""What is looked at before there is one."""


class OnChannel:
    """The counts of one channel; its methods take the places of the channel's functions."""

    __slots__ = (
        "_acked", "_acked_queue", "_answer_get", "_book", "_cell", "_cells", "_channel",
        "_confirmed", "_confirms", "_epoch", "_full",
        "_published_to", "_put", "_settle", "_sizes", "_topology", "_unconfirmed",
        "counts", "of_vhost", "published", "taken",
    )  # fmt: skip

    def __init__(self, book: Book, channel: Channel) -> None:
        self._book = book
        self._channel: Channel | None = channel
        """None once it has ended."""
        vhost = channel.session.vhost
        self.of_vhost = book.of(vhost)
        self._topology = vhost.topology
        self._epoch = vhost.topology.epoch
        """Of the topology when the exchanges in `published` were those of their names."""
        self._sizes = channel.session.traffic.sizes
        self._put: Putter = channel.put
        self._settle: Settler = channel.settle
        self._answer_get: GetAnswerer = channel.answer_get
        self._confirms: Confirms | None = None
        """Those of the channel when it ended."""
        self._confirmed = 0
        """How many of them are entered."""
        self._published_to: set[ServedQueue] = set()
        """The quorum queues that it counts as a publisher of."""
        self._unconfirmed: dict[str, int] = {}
        """Publishes that are not known to be confirmed, by exchange."""
        self._acked_queue: ServedQueue | None = None
        self._acked = 0
        """How many messages of it were acknowledged and are yet to be counted."""
        self._cell = NO_CELL
        """The one of the last messages."""
        self._cells: dict[Origin, Cell] = {}
        """Messages that are yet to be entered; several origins of an exchange may share one."""
        self._full: list[Cell] = []
        """As many of those that went other ways before."""
        self.counts = Counts(OF_CHANNEL)
        self.published: dict[str, Published] = {}
        """By exchange."""
        self.taken: dict[ServedQueue, Taken] = {}
        channel.put, channel.settle, channel.answer_get = self.put, self.settle, self.answer_get
        channel.sending = self.sending

    # In the places of the channel's functions

    def put(self, channel: Channel, parcel: Parcel, *, persistent: bool) -> Answer:
        first, body_bytes = parcel.contents[0], parcel.content_bytes
        answer = self._put(channel, parcel, persistent=persistent)
        origins, cell = parcel.origins, self._cell
        origin, count = origins[0], len(origins)
        if cell.origin is not origin or cell.targets is not parcel.targets:
            cell = self._cell = self._cell_of(origin, parcel)
        if count == 1 or origins.count(origin) == count:
            cell.count += count
        else:
            self._count_mixed(cell, parcel)
        body_bytes -= count * (len(first) - body_size(first))
        self._sizes.add(max(body_bytes, 0), count)
        return answer

    def sending(self, send: Send, queue: ServedQueue) -> Send:
        del queue  # that of its holder counts: it may have become another
        return Sending(send, self, self._book).send

    def settle(self, channel: Channel, stretches: list[Stretch], outcome: Outcome) -> None:
        self._settle(channel, stretches, outcome)
        if outcome is ACKED:
            for handout, start, stop in stretches:
                queue = handout.holder.queue
                if queue is not self._acked_queue:
                    self._turn_to(queue)
                self._acked += stop - start
        elif outcome is LOST:
            self._confirms = channel.confirms  # it ends, and will not have them any more

    def answer_get(self, channel: Channel, queue: ServedQueue, handout: Handout | None) -> None:
        self._answer_get(channel, queue, handout)
        counted = self.counted_of(queue)
        if handout is None:
            counted[GET_EMPTY] += 1
            return
        counted[GET_NO_ACK if handout.holder.no_ack else GET] += 1
        counted[REDELIVER] += handout.redelivered

    def counted_of(self, queue: ServedQueue) -> list[int]:
        """Where what is got from it is counted: `DELIVERED`, until it is entered."""
        taken = self.taken.get(queue)
        if taken is None:
            taken = self.taken[queue] = Taken(self._book, self.of_vhost, self.counts, queue)
        if not taken.is_touched:
            taken.touch()
        return taken.counted

    # What is rare

    def _turn_to(self, queue: ServedQueue | None) -> None:
        """From now on acknowledgements are of another queue, or of none that is known."""
        if self._acked_queue is not None:
            self.counted_of(self._acked_queue)[ACK] += self._acked
        elif not self._cells:
            self._book.touch(self)
        self._acked_queue, self._acked = queue, 0

    def _cell_of(self, origin: Origin, parcel: Parcel) -> Cell:
        """Where messages that are like the first of these are counted.  While what exchanges lead
        to is what it was, the same targets are the same object, unless they are none."""
        if self._topology.epoch != self._epoch:
            self._leave_behind()
        cell = self._cells.get(origin)
        if cell is None or cell.targets != (parcel.targets or None):
            return self._begin(origin, parcel)
        return cell if cell.mandatory is parcel.mandatory else self._begin(origin, parcel)

    def _begin(self, origin: Origin, parcel: Parcel) -> Cell:
        if len(self._cells) + len(self._full) >= CELLS_MAX:
            self._enter_publishes()
        elif not self._cells and self._acked_queue is None:
            self._book.touch(self)
        if origin in self._cells:
            self._full.append(self._cells[origin])
        exchange = origin.exchange
        found = self._topology.find(exchange)
        if exchange not in self.published and found is not None:
            self.published[exchange] = Published(found)
        targets = parcel.targets or None
        cell = self._cells[origin] = Cell(origin, targets, mandatory=parcel.mandatory)
        return cell

    def _count_mixed(self, cell: Cell, parcel: Parcel) -> None:
        """Messages of several origins, which mostly are those of one exchange."""
        exchanges = Counter(map(exchange_of, parcel.origins))
        cell.count += exchanges.pop(cell.origin.exchange)
        for origin in dict.fromkeys(parcel.origins) if exchanges else ():
            self._begin(origin, parcel).count += exchanges.pop(origin.exchange, 0)

    def _leave_behind(self) -> None:
        """Names may be those of other exchanges from now on."""
        self._enter_publishes()
        self.forget_gone()
        self._epoch = self._topology.epoch

    def forget_gone(self) -> None:
        """Queues and exchanges that are not there any more."""
        of_vhost = self.of_vhost
        self.published = {
            name: published
            for name, published in self.published.items()
            if of_vhost.has(published.exchange)
        }
        vhost = of_vhost.vhost
        self.taken = {
            queue: taken
            for queue, taken in self.taken.items()
            if taken.is_touched or vhost.has(queue)
        }
        self._published_to = {queue for queue in self._published_to if vhost.has(queue)}

    def end(self) -> None:
        """The channel has ended.  What it has not entered yet it will, and then is forgotten."""
        self._channel = None
        self.of_vhost.remove_publishers(self._published_to)
        self._published_to.clear()

    # Into the book

    def enter(self) -> None:
        if self._acked_queue is not None:
            self._turn_to(None)
        self._enter_publishes()
        self._enter_confirms()

    def _enter_publishes(self) -> None:
        cells, self._cells, self._full = (*self._full, *self._cells.values()), {}, []
        self._cell = NO_CELL
        for cell in cells:
            exchange, count = cell.origin.exchange, cell.count
            counted = [0] * len(PUBLISHED)
            counted[PUBLISH] = count
            if not cell.targets:
                counted[RETURN if cell.mandatory else DROP] = count
            self._enter_published(exchange, counted)
            self._unconfirmed[exchange] = self._unconfirmed.get(exchange, 0) + count
            targets = cell.targets or ()
            queues = tuple(each for each in targets if not isinstance(each, ReplyTarget))
            self._enter_routed(exchange, queues, count)

    def _enter_published(self, exchange: str, counted: list[int]) -> None:
        book, published = self._book, self.published.get(exchange)
        book.enter(0, counted, (self.counts, self.of_vhost.counts, book.node))
        if published is not None:
            book.enter(0, counted, (published.counts,))

    def _enter_routed(self, exchange: str, queues: tuple[Target, ...], count: int) -> None:
        """Messages went through an exchange into queues, if it is still there, and they are."""
        book, of_vhost, published = self._book, self.of_vhost, self.published.get(exchange)
        of_exchange = of_vhost.of_exchange(published.exchange) if published is not None else None
        if of_exchange is not None:
            book.enter(0, (count, count * len(queues)), (of_exchange,))
        there = [queue for queue in map(of_vhost.queue_of, queues) if queue is not None]
        book.enter(0, (count,), map(of_vhost.counts_of, there))
        if self._channel is not None:
            self._note_publisher(there)

    def _note_publisher(self, queues: Iterable[ServedQueue]) -> None:
        """The channel is open and has published to some queues; RabbitMQ counts who has, of quorum
        queues."""
        for queue in queues:
            is_quorum = queue.spec.queue_type is QueueType.QUORUM
            if is_quorum and queue not in self._published_to:
                self._published_to.add(queue)
                self.of_vhost.add_publisher(queue)

    def _enter_confirms(self) -> None:
        """Which publishes they are of is not said: of those that are open the first exchange's
        count first, and it comes out even when all are confirmed."""
        confirms = self._confirms
        if self._channel is not None and confirms is None:
            confirms = self._channel.confirms
        if confirms is None:
            self._unconfirmed.clear()
            return
        new = confirms.accepted_count - self._confirmed
        self._confirmed += new
        for exchange, count in tuple(self._unconfirmed.items()):
            if not new:
                break
            some = min(new, count)
            new -= some
            counted = [0] * len(PUBLISHED)
            counted[CONFIRM] = some
            self._enter_published(exchange, counted)
            self._unconfirmed[exchange] -= some
            if some == count:
                del self._unconfirmed[exchange]
        if self._channel is not None and confirms.open_count:
            self._book.confirming[self] = None
