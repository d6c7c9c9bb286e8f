"""Enqueueing of messages that have passed all checks, and what their queues answer.  A hot file.

Queues of this node answer at once: a message is in them, or safe with a commit.  Those that are led
elsewhere give a receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Protocol, TypeAlias, cast

from fluffle.broker.base.message import Origin
from fluffle.broker.core.direct_reply_to import ReplyTarget
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import (
    EnqueueResult,
    PartialResult,
    PublishReceipt,
    PublishTarget,
    QueueTarget,
)
from fluffle.broker.transfer.republish import current_queue
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.steps import Steps

TARGETS_AT_ONCE = 512
"""Into so many queues messages are put together, for some milliseconds."""


class SlowedPublisher(Protocol):
    """Client that is slowed where it publishes faster than queues get rid of messages."""

    def on_behind(self, target: PublishTarget, count: int) -> None:
        """Slow the client, which has just put `count` messages into a queue that is behind."""


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
        """Times for which they may wait in a queue, if their properties say so."""


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


def runs_in_order(routed_batches: Sequence[RoutedBatch]) -> list[tuple[int, int]]:
    """Return which batch messages are in, in the order in which they came, and how many follow each
    other."""
    if len(routed_batches) == 1:
        return [(0, len(routed_batches[0].contents))]
    places = sorted(
        (place, at) for at, routed in enumerate(routed_batches) for place in routed.places
    )
    return [(at, sum(1 for _ in same)) for at, same in groupby(map(itemgetter(1), places))]


def enqueue_in_steps(
    client: SlowedPublisher,
    vhost: VirtualHost,
    routed_batches: list[RoutedBatch],
    *,
    persistent: bool,
) -> Steps[bool]:
    """Put messages into their queues, unless these have gone by then; whether none has."""
    count, are_there = 0, True
    for routed in routed_batches:
        while routed.left:
            at_once_max = TARGETS_AT_ONCE - count
            some, routed.left = routed.left[:at_once_max], routed.left[at_once_max:]
            there = (current_target(vhost, target) for target in some)
            targets = [target for target in there if target is not None]
            are_there &= len(targets) == len(some)
            enqueue_into(client, routed, targets, persistent=persistent)
            count += len(some)
            if count == TARGETS_AT_ONCE:
                count = 0
                yield
    return are_there


def current_target(vhost: VirtualHost, target: PublishTarget) -> PublishTarget | None:
    """The target by now, as `current_queue` finds it; a requester need not be there."""
    return (
        target
        if isinstance(target, ReplyTarget)
        else current_queue(vhost, cast(QueueTarget, target))
    )


def enqueue_into(
    client: SlowedPublisher,
    routed: RoutedBatch,
    targets: Sequence[PublishTarget],
    *,
    persistent: bool,
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
            client.on_behind(target, count)
    routed.answer = answer


def combined_answer(answer: Answer, one: EnqueueResult | PartialResult | PublishReceipt) -> Answer:
    """Combine the answer of some queues with one of a queue that has not simply taken all."""
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
