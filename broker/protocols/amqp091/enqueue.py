"""Messages that have passed all checks go into their queues; what their publisher is told of that.
A hot file.

Queues of this node answer at once: a message is in them, or safe with a commit.  Those that are led
elsewhere give a receipt, and the publisher is told once all of them have answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from fluffle.broker.base.message import Origin
from fluffle.broker.protocols.amqp091.confirms import Confirms
from fluffle.broker.protocols.amqp091.direct_reply_to import ReplyTarget
from fluffle.broker.protocols.amqp091.pending_publishes import Awaited
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.queue_api import Admission, Inlet, Partly, Receipt, Target
from fluffle.broker.transfer.republish import inlet_now
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.methods import return_frame
from fluffle.protocol.properties import split_content
from fluffle.protocol.spec import ReplyCode
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel

TARGETS_AT_ONCE = 512
"""Into so many queues messages are put together, for some milliseconds."""


class Parcel:
    """Messages of one batch that go to the same queues, in order."""

    __slots__ = (
        "answer", "content_bytes", "contents", "expiration_ms", "left", "mandatory", "origins",
        "places", "targets",
    )  # fmt: skip

    def __init__(
        self,
        targets: tuple[Target, ...],
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        places: Sequence[int],
        mandatory: bool,
        expiration_ms: Lifetimes,
    ) -> None:
        self.targets = self.left = targets
        """And `left`: those into which it has not been put yet."""
        self.answer: Answer = Admission.ACCEPTED
        """The answer of the other queues, together."""
        self.origins = origins
        self.contents = contents
        self.content_bytes = content_bytes
        """The summed length of `contents`."""
        self.places = places
        """Where each message stands among those that are published together."""
        self.mandatory = mandatory
        self.expiration_ms = expiration_ms
        """For how long they may wait in a queue, if that is said."""


class Pending:
    """Messages of a parcel that not all of their queues have taken, or not yet."""

    __slots__ = ("is_recorded", "receipts")

    def __init__(self, receipts: list[Receipt | Partly], *, is_recorded: bool) -> None:
        self.receipts = receipts
        """At least one."""
        self.is_recorded = is_recorded
        """Whether they must be safe here, too."""


Answer: TypeAlias = Admission | Pending
"""Of all queues of a parcel together."""


class Putter(Protocol):
    """Puts messages that have passed all checks into their queues, or returns them."""

    def __call__(self, channel: Channel, parcel: Parcel, *, persistent: bool) -> Answer: ...


class Publisher(Protocol):
    """Takes messages that have passed all checks."""

    def __call__(
        self, channel: Channel, parcels: Sequence[Parcel], *, persistent: bool
    ) -> None: ...


def publish_plain(channel: Channel, parcels: Sequence[Parcel], *, persistent: bool) -> None:
    """Put messages into their queues, or return them."""
    for parcel in parcels:
        channel.put(channel, parcel, persistent=persistent)


def publish_confirmed(channel: Channel, parcels: Sequence[Parcel], *, persistent: bool) -> None:
    """As `publish_plain`, and confirm: at the end of the batch, or once they are safe."""
    confirms = channel.confirms
    assert confirms is not None
    answers, count = list[Answer](), 0
    for parcel in parcels:
        answers.append(channel.put(channel, parcel, persistent=persistent))
        count += len(parcel.contents)
    accepted = answers.count(Admission.ACCEPTED)
    if accepted == len(answers):
        confirms.settle(count)
        channel.session.confirming[channel] = None
    elif accepted + answers.count(Admission.RECORDED) == len(answers):
        defer(channel, confirms, count)
    else:
        answer_each(channel, confirms, parcels, answers)


def defer(channel: Channel, confirms: Confirms, count: int) -> None:
    """Confirm the next `count` messages once they are on disk."""
    commits = channel.session.commits
    confirms.defer(count, commits.ticket)
    commits.wait(channel, commits.ticket)


def answer_each(
    channel: Channel,
    confirms: Confirms,
    parcels: Sequence[Parcel],
    answers: Sequence[Answer],
) -> None:
    """Tell the publisher what became of each message, for they fare differently."""
    awaited: dict[int, list[tuple[int, int]]] = {}
    for at, count in in_order(parcels):
        answer = answers[at]
        if answer is Admission.REFUSED:
            confirms.refuse(confirms.assign(count))
        elif answer is Admission.RECORDED:
            defer(channel, confirms, count)
        elif answer is Admission.ACCEPTED:
            confirms.settle(count)
        else:
            awaited.setdefault(at, []).append((confirms.assign(count), count))
    for at, numbers in awaited.items():
        pending = answers[at]
        assert isinstance(pending, Pending)
        Awaited(channel, numbers).of(pending.receipts, is_recorded=pending.is_recorded)
    channel.session.confirming[channel] = None


def in_order(parcels: Sequence[Parcel]) -> list[tuple[int, int]]:
    """Which parcel messages are of, in the order in which they came, and how many follow each
    other."""
    if len(parcels) == 1:
        return [(0, len(parcels[0].contents))]
    places = sorted((place, at) for at, parcel in enumerate(parcels) for place in parcel.places)
    return [(at, sum(1 for _ in same)) for at, same in groupby(map(itemgetter(1), places))]


def put(channel: Channel, parcel: Parcel, *, persistent: bool) -> Answer:
    """Put messages into their queues, or return them.

    REFUSED when any queue refuses them, as RabbitMQ has it, though the others keep them; else
    pending when any is yet to answer; else RECORDED when any queue records them.
    """
    if parcel.left:
        put_into(channel, parcel, parcel.left, persistent=persistent)
    answer, contents = parcel.answer, parcel.contents
    if answer is not Admission.ACCEPTED and channel.session.commits.is_behind and records(answer):
        channel.session.on_disk_behind()
    traffic = channel.session.traffic
    if parcel.targets:
        channel.session.has_put = True  # mutant: CO4
        traffic.routed += len(contents) * len(parcel.targets)
    elif parcel.mandatory:
        traffic.unroutable_returned += len(contents)
        return_unroutable(channel, parcel)
    else:
        traffic.unroutable_dropped += len(contents)
    return answer


def put_in_steps(channel: Channel, parcels: list[Parcel], *, persistent: bool) -> Steps[bool]:
    """Put messages into their queues, unless these have gone by then; whether none has."""
    vhost, count, are_there = channel.session.vhost, 0, True
    for parcel in parcels:
        while parcel.left:
            at_once_max = TARGETS_AT_ONCE - count
            some, parcel.left = parcel.left[:at_once_max], parcel.left[at_once_max:]
            there = (target_now(vhost, target) for target in some)
            targets = [target for target in there if target is not None]
            are_there &= len(targets) == len(some)
            put_into(channel, parcel, targets, persistent=persistent)
            count += len(some)
            if count == TARGETS_AT_ONCE:
                count = 0
                yield
    return are_there


def target_now(vhost: VirtualHost, target: Target) -> Target | None:
    """The inlet as `inlet_now` finds it; a requester need not be there."""
    return target if isinstance(target, ReplyTarget) else inlet_now(vhost, cast(Inlet, target))


def put_into(
    channel: Channel, parcel: Parcel, targets: Sequence[Target], *, persistent: bool
) -> None:
    """Put messages into some of their queues, and note the answer."""
    answer, count = parcel.answer, len(parcel.contents)
    origins, contents, content_bytes = parcel.origins, parcel.contents, parcel.content_bytes
    for target in targets:
        one = target.enqueue(
            origins,
            contents,
            content_bytes,
            persistent=persistent,
            expiration_ms=parcel.expiration_ms,
        )
        if one is not Admission.ACCEPTED:
            answer = joined(answer, one)
        if target.is_behind:
            channel.session.on_behind(target, count)
    parcel.answer = answer


def joined(answer: Answer, one: Admission | Partly | Receipt) -> Answer:
    """What some queues have said, and one more that has not simply taken all."""
    if answer is Admission.REFUSED or one is Admission.REFUSED:
        return Admission.REFUSED
    receipts = [*answer.receipts] if isinstance(answer, Pending) else []
    if not isinstance(one, Admission):
        receipts.append(one)
        one = one.taken if isinstance(one, Partly) else Admission.ACCEPTED
    elif not receipts:
        return one
    is_recorded = one is Admission.RECORDED or records(answer)
    return Pending(receipts, is_recorded=is_recorded)


def records(answer: Answer) -> bool:
    """Whether messages are safe only with the commit that collects."""
    return answer is Admission.RECORDED or (isinstance(answer, Pending) and answer.is_recorded)


def return_unroutable(channel: Channel, parcel: Parcel) -> None:
    """basic.return with 312 for messages that were mandatory and went nowhere."""
    session = channel.session
    for origin, content in zip(parcel.origins, parcel.contents, strict=True):
        session.outlet.add(
            return_frame(
                channel.number, ReplyCode.NO_ROUTE, "NO_ROUTE", origin.exchange, origin.routing_key
            )
        )
        session.outlet.add(split_content(content, channel.number, session.frame_bytes_max))
