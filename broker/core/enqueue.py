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
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.direct_reply_to import ReplyTarget
from fluffle.broker.core.pending_publishes import PendingPublishes
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.queue_api import (
    EnqueueResult,
    PartialResult,
    PublishReceipt,
    PublishTarget,
    QueueTarget,
)
from fluffle.broker.transfer.republish import current_queue
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.methods import return_frame
from fluffle.protocol.properties import split_content
from fluffle.protocol.spec import ReplyCode
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel

TARGETS_AT_ONCE = 512
"""Into so many queues messages are put together, for some milliseconds."""


class RoutedBatch:
    """Messages of one batch that go to the same queues, in order."""

    __slots__ = (
        "answer", "content_bytes", "contents", "expiration_ms", "left", "mandatory", "origins",
        "places", "targets",
    )  # fmt: skip

    def __init__(
        self,
        targets: tuple[PublishTarget, ...],
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
        self.answer: Answer = EnqueueResult.ACCEPTED
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


class PendingEnqueue:
    """Messages of a routed batch that not all of their queues have taken, or not yet."""

    __slots__ = ("is_recorded", "receipts")

    def __init__(
        self, receipts: list[PublishReceipt | PartialResult], *, is_recorded: bool
    ) -> None:
        self.receipts = receipts
        """At least one."""
        self.is_recorded = is_recorded
        """Whether they must be safe here, too."""


Answer: TypeAlias = EnqueueResult | PendingEnqueue
"""Answer of all queues of a routed batch together."""


class EnqueueRouted(Protocol):
    """Puts messages that have passed all checks into their queues, or returns them."""

    def __call__(self, channel: Channel, routed: RoutedBatch, *, persistent: bool) -> Answer: ...


class PublishRouted(Protocol):
    """Takes messages that have passed all checks."""

    def __call__(
        self, channel: Channel, routed_batches: Sequence[RoutedBatch], *, persistent: bool
    ) -> None: ...


def publish_plain(
    channel: Channel, routed_batches: Sequence[RoutedBatch], *, persistent: bool
) -> None:
    """Put messages into their queues, or return them."""
    for routed in routed_batches:
        channel.enqueue(channel, routed, persistent=persistent)


def publish_confirmed(
    channel: Channel, routed_batches: Sequence[RoutedBatch], *, persistent: bool
) -> None:
    """As `publish_plain`, and confirm: at the end of the batch, or once they are safe."""
    confirms = channel.confirms
    assert confirms is not None
    answers, count = list[Answer](), 0
    for routed in routed_batches:
        answers.append(channel.enqueue(channel, routed, persistent=persistent))
        count += len(routed.contents)
    accepted = answers.count(EnqueueResult.ACCEPTED)
    if accepted == len(answers):
        confirms.settle(count)
        channel.session.confirming[channel] = None
    elif accepted + answers.count(EnqueueResult.RECORDED) == len(answers):
        defer_confirms(channel, confirms, count)
    else:
        confirm_each(channel, confirms, routed_batches, answers)


def defer_confirms(channel: Channel, confirms: Confirms, count: int) -> None:
    """Confirm the next `count` messages once they are on disk."""
    commits = channel.session.commits
    confirms.defer(count, commits.ticket)
    commits.wait(channel, commits.ticket)


def confirm_each(
    channel: Channel,
    confirms: Confirms,
    routed_batches: Sequence[RoutedBatch],
    answers: Sequence[Answer],
) -> None:
    """Tell the publisher what became of each message, for they fare differently."""
    awaited: dict[int, list[tuple[int, int]]] = {}
    for at, count in runs_in_order(routed_batches):
        answer = answers[at]
        if answer is EnqueueResult.REFUSED:
            confirms.refuse(confirms.assign(count))
        elif answer is EnqueueResult.RECORDED:
            defer_confirms(channel, confirms, count)
        elif answer is EnqueueResult.ACCEPTED:
            confirms.settle(count)
        else:
            awaited.setdefault(at, []).append((confirms.assign(count), count))
    for at, numbers in awaited.items():
        pending = answers[at]
        assert isinstance(pending, PendingEnqueue)
        PendingPublishes(channel, numbers).of(pending.receipts, is_recorded=pending.is_recorded)
    channel.session.confirming[channel] = None


def runs_in_order(routed_batches: Sequence[RoutedBatch]) -> list[tuple[int, int]]:
    """Return which batch messages are in, in the order in which they came, and how many follow each
    other."""
    if len(routed_batches) == 1:
        return [(0, len(routed_batches[0].contents))]
    places = sorted(
        (place, at) for at, routed in enumerate(routed_batches) for place in routed.places
    )
    return [(at, sum(1 for _ in same)) for at, same in groupby(map(itemgetter(1), places))]


def enqueue_routed(channel: Channel, routed: RoutedBatch, *, persistent: bool) -> Answer:
    """Put messages into their queues, or return them.

    REFUSED when any queue refuses them, as RabbitMQ has it, though the others keep them; else
    pending when any is yet to answer; else RECORDED when any queue records them.
    """
    if routed.left:
        enqueue_into(channel, routed, routed.left, persistent=persistent)
    answer, contents = routed.answer, routed.contents
    if (
        answer is not EnqueueResult.ACCEPTED
        and channel.session.commits.is_behind
        and waits_for_commit(answer)
    ):
        channel.session.on_disk_behind()
    traffic = channel.session.traffic
    if routed.targets:
        channel.session.has_put = True  # mutant: CO4
        traffic.routed += len(contents) * len(routed.targets)
    elif routed.mandatory:
        traffic.unroutable_returned += len(contents)
        return_unroutable(channel, routed)
    else:
        traffic.unroutable_dropped += len(contents)
    return answer


def enqueue_in_steps(
    channel: Channel, routed_batches: list[RoutedBatch], *, persistent: bool
) -> Steps[bool]:
    """Put messages into their queues, unless these have gone by then; whether none has."""
    vhost, count, are_there = channel.session.vhost, 0, True
    for routed in routed_batches:
        while routed.left:
            at_once_max = TARGETS_AT_ONCE - count
            some, routed.left = routed.left[:at_once_max], routed.left[at_once_max:]
            there = (current_target(vhost, target) for target in some)
            targets = [target for target in there if target is not None]
            are_there &= len(targets) == len(some)
            enqueue_into(channel, routed, targets, persistent=persistent)
            count += len(some)
            if count == TARGETS_AT_ONCE:
                count = 0
                yield
    return are_there


def current_target(vhost: VirtualHost, target: PublishTarget) -> PublishTarget | None:
    """The inlet as `current_queue` finds it; a requester need not be there."""
    return (
        target
        if isinstance(target, ReplyTarget)
        else current_queue(vhost, cast(QueueTarget, target))
    )


def enqueue_into(
    channel: Channel, routed: RoutedBatch, targets: Sequence[PublishTarget], *, persistent: bool
) -> None:
    """Put messages into some of their queues, and note the answer."""
    answer, count = routed.answer, len(routed.contents)
    origins, contents, content_bytes = routed.origins, routed.contents, routed.content_bytes
    for target in targets:
        one = target.enqueue(
            origins,
            contents,
            content_bytes,
            persistent=persistent,
            expiration_ms=routed.expiration_ms,
        )
        if one is not EnqueueResult.ACCEPTED:
            answer = combined_answer(answer, one)
        if target.is_behind:
            channel.session.on_behind(target, count)
    routed.answer = answer


def combined_answer(answer: Answer, one: EnqueueResult | PartialResult | PublishReceipt) -> Answer:
    """What some queues have said, and one more that has not simply taken all."""
    if answer is EnqueueResult.REFUSED or one is EnqueueResult.REFUSED:
        return EnqueueResult.REFUSED
    receipts = [*answer.receipts] if isinstance(answer, PendingEnqueue) else []
    if not isinstance(one, EnqueueResult):
        receipts.append(one)
        one = one.taken if isinstance(one, PartialResult) else EnqueueResult.ACCEPTED
    elif not receipts:
        return one
    is_recorded = one is EnqueueResult.RECORDED or waits_for_commit(answer)
    return PendingEnqueue(receipts, is_recorded=is_recorded)


def waits_for_commit(answer: Answer) -> bool:
    """Whether messages are safe only with the commit that collects."""
    return answer is EnqueueResult.RECORDED or (
        isinstance(answer, PendingEnqueue) and answer.is_recorded
    )


def return_unroutable(channel: Channel, routed: RoutedBatch) -> None:
    """basic.return with 312 for messages that were mandatory and went nowhere."""
    session = channel.session
    for origin, content in zip(routed.origins, routed.contents, strict=True):
        session.output.add(
            return_frame(
                channel.number, ReplyCode.NO_ROUTE, "NO_ROUTE", origin.exchange, origin.routing_key
            )
        )
        session.output.add(split_content(content, channel.number, session.frame_bytes_max))
