"""Publisher: messages of a session on their way into queues, and what becomes of them.  A hot file.

    key --> route (`route_lookup`) --> checks --> routed batches --> mode: plain, confirmed, tx
    outcomes <-- confirms (`confirms`) <-- commit <-- answers of queues <-------------+

A batch is sorted by where its messages go, so that each queue is asked once: a key is looked up,
checked and routed once however many messages came with it.  The order of the checks: write
permission, exchange, internal (`RouteCache.search`), expiration, CC and BCC (`property_facts`),
topic permission, reply-to, user-id, route.

One message, and its outcome, whatever the protocol:

    publisher = Publisher(session, outcomes)
    publisher.confirm()
    for _ in publisher.publish_message("orders", "new", content, mandatory=True, is_certain=True):
        ...  # only if it goes to very many queues: let others have their turns
    session.confirm()

If it leads to no queue, `outcomes.returned` is called first.  Then, now or once it is safe,
`outcomes.report(confirms)`: the number 1 is among those that `confirms.take()` says are accepted,
or refused.  Who waits no more calls `publisher.end()`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol, cast

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.core.confirms import ConfirmOutcomes, Confirms, PendingPublishes
from fluffle.broker.core.direct_reply_to import ReplyTarget
from fluffle.broker.core.property_facts import (
    PropertyFacts,
    read_facts_in_steps,
    read_lifetimes,
    with_reply_to,
)
from fluffle.broker.core.route_lookup import (
    Answer,
    CachedRoute,
    LookupTooLong,
    PendingEnqueue,
    PublishRoute,
    RoutedBatch,
    all_delayed,
    are_apart,
    batches_by_key,
    batches_by_route,
    keep_in_histories,
    keyed_origins,
    rest_on_absence,
    runs_in_order,
)
from fluffle.broker.core.session import Session
from fluffle.broker.metadata.metadata import UnconfirmedAbsence
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_at
from fluffle.broker.queues.publish_target import (
    BackloggedTarget,
    EnqueueResult,
    PartialResult,
    PublishReceipt,
    PublishTarget,
    QueueTarget,
)
from fluffle.broker.transfer.republish import current_queue
from fluffle.broker.vhosts.vhost import TracedClient, VirtualHost
from fluffle.protocol.properties import raw_properties, replace_properties
from fluffle.protocol.steps import Steps

PROPERTY_BINDINGS_PER_COST = 8
"""Bindings that are matched by properties in the time in which a queue takes a batch."""

ROUTE_COST = 8
"""A route is found in the time in which some queues take a batch."""

COPIES_MAX = 8192
"""Most copies of messages enqueued together, for a millisecond or two."""

TARGETS_AT_ONCE = 512
"""Most queues into which messages are put together, for some milliseconds."""


class SlowedPublisher(Protocol):
    """Client that is slowed where it publishes faster than queues get rid of messages."""

    def on_behind(self, target: BackloggedTarget, count: int) -> None:
        """Slow the client, which has just put `count` messages into a queue that is behind."""


class Messages(Protocol):
    """Messages of whose properties a broker reads the same."""

    contents: list[bytes]
    """Each message's content in canonical form."""
    content_bytes: int
    """The summed length of `contents`."""
    outline: bytes
    """The part of the properties that a broker reads."""


@dataclass(slots=True)
class MessageBatch:
    """`Messages` that came with nothing else."""

    contents: list[bytes]
    content_bytes: int
    outline: bytes


class PublishOutcomes(ConfirmOutcomes, Protocol):
    """Where a publisher says what became of its messages."""

    def returned(self, routed: RoutedBatch) -> None:
        """Messages that were mandatory go to no queue; they count as accepted, too."""


class EnqueueObserver(Protocol):
    """Observer of what a publisher puts into queues."""

    def enqueued(self, routed: RoutedBatch) -> None:
        """Messages have been put into their queues, or returned, or dropped."""


class NoOutcomes:
    """The `PublishOutcomes` of a publisher that nothing is to be said to."""

    __slots__ = ()

    def returned(self, routed: RoutedBatch) -> None:
        """Drop messages that came back."""

    def report(self, confirms: Confirms) -> None:
        """Report nothing."""

    report_later = report


NO_OUTCOMES = NoOutcomes()


class PublishMode(Protocol):
    """Mode of a publisher: what it does with messages that have passed all checks."""

    @property
    def is_immediate(self) -> bool:
        """True if they are in their queues once they are published."""

    @property
    def confirms(self) -> Confirms | None:
        """Numbers of the messages, where they have any."""

    def publish(
        self, publisher: Publisher, routed_batches: Sequence[RoutedBatch], *, persistent: bool
    ) -> None:
        """Take messages."""

    def end(self) -> None:
        """Answer for none of them any more."""


@dataclass(slots=True, eq=False)
class Publisher:
    """Publisher of a session: checks messages, sorts them by their queues, and enqueues them."""

    session: Session
    _outcomes: PublishOutcomes
    _: KW_ONLY
    number: int = 0
    """Number of its channel; 0 where the protocol has no channels."""
    mode: PublishMode = field(default_factory=lambda: PLAIN)
    """Takes the messages that have passed all checks."""
    observer: EnqueueObserver | None = None
    reply_to: str = ""
    """Name for direct reply-to that reaches the client; empty if it has none."""
    is_open: bool = True
    _unfinished: Steps[bool] | None = field(default=None, init=False)
    """The work that is left to be done of putting messages into very many queues."""

    def confirm(self) -> None:
        """Number messages from now on, and say what becomes of each."""
        self.mode = ConfirmMode(self.session, self._outcomes)

    def end(self) -> None:
        """Publish nothing more, and say nothing more; what has begun is done to its end."""
        self.is_open = False
        if self._unfinished is not None:
            self.session.background_tasks.finish(self._unfinished)
            self._unfinished = None
        self.mode.end()
        self.mode = PLAIN
        self._outcomes = NO_OUTCOMES  # no cycle is left to the collector

    @property
    def traced(self) -> TracedClient:
        """The client that publishes, as tracers see it."""
        session, is_transactional = self.session, not self.mode.is_immediate
        return TracedClient(session.name, self.number, session.user.name, is_transactional)

    # Messages of one route

    def publish_batch(
        self,
        route: CachedRoute,
        facts: PropertyFacts,
        batch: Messages,
        lifetimes_ms: Lifetimes,
        *,
        is_certain: bool,
        annotations: bytes = b"",
        keys: Sequence[bytes] = (),
    ) -> int:
        """Publish messages that came with the same key, and return the cost.

        They have these annotations if there are any, and else those of the route; and keys of
        their own by which queues know them, if there are any.

        Nothing has been done if it raises.  AccessRefused for a routing key, PreconditionFailed as
        `_prepared`, UnconfirmedAbsence unless it `is_certain` that what is not here is nowhere,
        LookupTooLong for messages that `publish_batch_in_steps` must take.
        """
        route_cache = self.session.route_cache
        if not route.is_admitted:
            route_cache.admit(route)
        routes: Sequence[PublishRoute] = ()
        if facts.more_routing_keys or route.needs is not None:
            steps = route_cache.lookup_each(route, facts, batch.outline, len(batch.contents))
            routes = route_cache.run_at_once(steps)
        if not is_certain and rest_on_absence(route, routes):
            raise UnconfirmedAbsence
        is_too_much = exceed_one_step(routes) if routes else len(route.targets) > TARGETS_AT_ONCE
        if is_too_much and self.mode.is_immediate:
            raise LookupTooLong
        routed_batches = self._sorted(
            *(route, facts, batch, routes),
            lifetimes_ms=lifetimes_ms,
            annotations=annotations,
            keys=keys,
        )
        self._count_published(routed_batches, facts)
        self.mode.publish(self, routed_batches, persistent=facts.persistent)
        if len(routes) > 1:
            return 1 + ROUTE_COST * len(routes)
        property_bindings = route.needs.property_bindings if route.needs is not None else 0
        return 1 + len(routed_batches[0].targets) + property_bindings // PROPERTY_BINDINGS_PER_COST

    def _sorted(
        self,
        route: CachedRoute,
        facts: PropertyFacts,
        batch: Messages,
        routes: Sequence[PublishRoute],
        *,
        lifetimes_ms: Lifetimes,
        annotations: bytes,
        keys: Sequence[bytes],
    ) -> list[RoutedBatch]:
        """Sort messages into batches by their queues; no `routes` if the cached one says it, no
        `annotations` if its origin has them."""
        contents, content_bytes = batch.contents, batch.content_bytes
        if facts.is_special:
            raw = facts.stored
            if raw is None or (routes and all_delayed(routes)):
                raw = batch.outline
            contents = self._prepared(facts, raw, contents)
            content_bytes = sum(map(len, contents))
        origin = route.origin
        if facts.blind_keys or annotations:
            origin = self.session.vhost.origin(
                origin.exchange,
                origin.routing_key,
                blind_keys=facts.blind_keys,
                annotations=annotations or origin.annotations,
            )
        origins = keyed_origins(origin, keys) if keys else [origin] * len(contents)
        if route.needs is not None and route.needs.is_kept:
            keep_in_histories(origin, facts, contents, routes)
        if len(routes) > 1:
            routed_batches = batches_by_route(
                origins, contents, routes, lifetimes_ms, mandatory=route.mandatory
            )
        else:
            routed = RoutedBatch(
                routes[0].targets if routes else route.targets,
                origins,
                contents,
                content_bytes,
                places=range(len(contents)),
                mandatory=route.mandatory,
                expiration_ms=lifetimes_ms,
            )
            routed_batches = [routed]
        if facts.retains:  # all have one topic, which keeps its last message
            session, last = self.session, len(contents) - 1
            (holding,) = (each for each in routed_batches if each.places[-1] == last)
            holding.retained_target = session.retained.target(
                session.vhost.name, origin.exchange, session.user.name, session.traffic.dropped
            )
        return routed_batches

    def _prepared(self, facts: PropertyFacts, raw: bytes, contents: list[bytes]) -> list[bytes]:
        """The contents as they are stored: with these properties, and the name of the requester.

        Raises PreconditionFailed for a reply-to without a consumer and for another's user-id.
        """
        if facts.wants_reply:
            if not self.reply_to:
                raise PreconditionFailed("fast reply consumer does not exist")
            raw = with_reply_to(raw, self.reply_to)
        user = self.session.user
        if facts.user_id not in (None, user.name) and not user.may_impersonate:
            raise PreconditionFailed(
                f"user_id property set to '{facts.user_id}' but authenticated user was "
                f"'{user.name}'"
            )
        return [replace_properties(content, raw) for content in contents]

    def _count_published(self, routed_batches: Sequence[RoutedBatch], facts: PropertyFacts) -> None:
        """Count messages that have passed all checks, and have them traced."""
        # RabbitMQ 4.0.5 counts before its checks, and so a refused message too; of a batch that is
        # refused it would have seen the first alone
        session = self.session
        for routed in routed_batches:
            session.traffic.received += len(routed.contents)
        tracer = session.vhost.tracer
        if tracer is not None:
            tracer.published(self.traced, routed_batches, facts.more_routing_keys)

    def enqueue(self, routed: RoutedBatch, *, persistent: bool) -> Answer:
        """Put messages into their queues, or return them.

        REJECTED when any queue rejects them, as RabbitMQ has it, though the others keep them; else
        pending when any is yet to answer; else RECORDED when any queue records them.
        """
        session = self.session
        if routed.targets_left:
            enqueue_into(session.client, routed, routed.targets_left, persistent=persistent)
        if routed.retained_target is not None:
            enqueue_into(session.client, routed, (routed.retained_target,), persistent=persistent)
        answer, count = routed.answer, len(routed.contents)
        if (
            answer is not EnqueueResult.ACCEPTED
            and session.commits.is_behind
            and waits_for_commit(answer)
        ):
            session.client.on_disk_behind()
        traffic = session.traffic
        if routed.targets:
            session.has_put = True  # mutant: CO4
            traffic.routed += count * len(routed.targets)
        elif routed.mandatory:
            traffic.unroutable_returned += count
            self._outcomes.returned(routed)
        else:
            traffic.unroutable_dropped += count
        if self.observer is not None:
            self.observer.enqueued(routed)
        return answer

    # Messages of several routes

    def publish_mixed(
        self,
        keys: Sequence[bytes],
        routes: Mapping[bytes, CachedRoute],
        facts: PropertyFacts,
        batch: Messages,
        lifetimes_ms: Lifetimes,
    ) -> int | None:
        """Publish messages, each with its key, up to the first whose route is not there; the cost.

        None, and nothing has been done, if those of each key must be published by themselves.
        """
        is_plain = not (facts.is_special or facts.retains or facts.more_routing_keys)
        if not is_plain or not are_apart(routes.values()):
            return None
        routed_batches = batches_by_key(keys, batch.contents, routes, lifetimes_ms)
        if exceed_one_step(routed_batches):
            return None
        if routed_batches:
            self._count_published(routed_batches, facts)
            self.mode.publish(self, routed_batches, persistent=facts.persistent)
        return sum(1 + len(routed.targets) for routed in routed_batches)

    # Messages that may go to very many queues

    def publish_message(
        self,
        exchange: str,
        routing_key: str,
        content: bytes,
        *,
        mandatory: bool,
        is_certain: bool,
        topic: str | None = None,
        annotations: bytes = b"",
    ) -> Steps[None]:
        """Publish one message, given as canonical content; `topic` as for `RouteCache.search`.

        Raises as `publish_batch`.
        """
        raw, contents = raw_properties(content), [content]
        route = yield from self.session.route_cache.search(
            None,
            exchange,
            routing_key,
            mandatory=mandatory,
            topic=topic,
            annotations=annotations,
        )
        facts = yield from read_facts_in_steps(raw)
        lifetimes_ms = read_lifetimes(contents) if facts.expires else None
        batch = MessageBatch(contents, len(content), raw)
        yield from self.publish_batch_in_steps(
            route, facts, batch, lifetimes_ms, is_certain=is_certain
        )

    def publish_batch_in_steps(
        self,
        route: CachedRoute,
        facts: PropertyFacts,
        batch: Messages,
        lifetimes_ms: Lifetimes,
        *,
        is_certain: bool,
        annotations: bytes = b"",
        keys: Sequence[bytes] = (),
    ) -> Steps[None]:
        """Publish as `publish_batch` does, whatever it takes to find where messages go.

        If the caller gives it up before its end, the publisher has ended.
        """
        route_cache, contents = self.session.route_cache, batch.contents
        if not route.is_admitted:
            route_cache.admit(route)
        routes = [PublishRoute(route.targets, (), route.misses)]
        if facts.more_routing_keys or route.needs is not None:
            routes = yield from route_cache.lookup_each(route, facts, batch.outline, len(contents))
        if not is_certain and rest_on_absence(route, routes):
            raise UnconfirmedAbsence
        try:
            if len(routes) > 1:
                routed_batches = self._sorted(
                    *(route, facts, batch, routes),
                    lifetimes_ms=lifetimes_ms,
                    annotations=annotations,
                    keys=keys,
                )
                yield from self._publish_sorted_in_steps(routed_batches, facts)
                return
            at_once_max = messages_at_once(routes[0].targets)
            for start in range(0, len(contents), at_once_max):
                some = contents[start : start + at_once_max]
                span = MessageBatch(some, sum(map(len, some)), batch.outline)
                these_ms = lifetimes_at(lifetimes_ms, range(start, start + len(some)))
                routes = [self._there_now(routes[0])]
                routed_batches = self._sorted(
                    *(route, facts, span, routes),
                    lifetimes_ms=these_ms,
                    annotations=annotations,
                    keys=keys[start : start + len(some)],
                )
                yield from self._publish_sorted_in_steps(routed_batches, facts)
                yield
        except GeneratorExit:
            self.end()
            raise

    def _publish_sorted_in_steps(
        self, routed_batches: list[RoutedBatch], facts: PropertyFacts
    ) -> Steps[None]:
        """Count and publish them: put them into some queues at a time, and answer when all have
        them.

        If the publisher ends meanwhile, the rest is done in the background: a message that is in
        some of its queues gets into all of them.
        """
        self._count_published(routed_batches, facts)
        if self.mode.is_immediate:
            client, vhost = self.session.client, self.session.vhost
            self._unfinished = enqueue_in_steps(
                client, vhost, routed_batches, persistent=facts.persistent
            )
            for _ in self._unfinished:  # not `yield from`: `end` has it go on when this is given up
                yield
            self._unfinished = None
        if self.is_open:
            self.mode.publish(self, routed_batches, persistent=facts.persistent)

    def _there_now(self, route: PublishRoute) -> PublishRoute:
        """Return the same route without queues that have gone while others had their turn."""
        found = (current_target(self.session.vhost, target) for target in route.targets)
        there = tuple(target for target in found if target is not None)
        return PublishRoute(there, route.histories, route.misses)


# Modes


class PlainMode:
    """Mode of a publisher that hears only of messages that are returned."""

    __slots__ = ()
    is_immediate = True
    confirms = None

    def publish(
        self, publisher: Publisher, routed_batches: Sequence[RoutedBatch], *, persistent: bool
    ) -> None:
        """Put messages into their queues, or return them."""
        for routed in routed_batches:
            publisher.enqueue(routed, persistent=persistent)

    def end(self) -> None:
        """End: there is nothing to answer."""


PLAIN: PublishMode = PlainMode()


class ConfirmMode:
    """Mode of a publisher whose messages have numbers, and are each confirmed."""

    __slots__ = ("_outcomes", "_session", "confirms")
    is_immediate = True

    def __init__(self, session: Session, outcomes: PublishOutcomes) -> None:
        self._session = session
        self._outcomes = outcomes
        self.confirms = Confirms()
        session.traffic.ledgers.add(self.confirms)

    def publish(
        self, publisher: Publisher, routed_batches: Sequence[RoutedBatch], *, persistent: bool
    ) -> None:
        """Enqueue as in plain mode, and confirm: at the end of the batch, or once all are safe."""
        answers, count = list[Answer](), 0
        self._session.wants_confirms = True
        for routed in routed_batches:
            answers.append(publisher.enqueue(routed, persistent=persistent))
            count += len(routed.contents)
        accepted = answers.count(EnqueueResult.ACCEPTED)
        if accepted == len(answers):
            self.confirms.assign_accepted(count)
            self._session.confirming[self] = None
        elif accepted + answers.count(EnqueueResult.RECORDED) == len(answers):
            self._defer(count)
        else:
            self._confirm_each(routed_batches, answers)

    def _defer(self, count: int) -> None:
        """Confirm the next `count` messages once they are on disk."""
        commits = self._session.commits
        self.confirms.defer(count, commits.ticket)
        commits.wait(self, commits.ticket)

    def _confirm_each(
        self, routed_batches: Sequence[RoutedBatch], answers: Sequence[Answer]
    ) -> None:
        """Say what became of each message, for they fare differently."""
        confirms = self.confirms
        awaited: dict[int, list[tuple[int, int]]] = {}
        for at, count in runs_in_order(routed_batches):
            answer = answers[at]
            if answer is EnqueueResult.REJECTED:
                confirms.refuse(confirms.assign(count))
            elif answer is EnqueueResult.RECORDED:
                self._defer(count)
            elif answer is EnqueueResult.ACCEPTED:
                confirms.assign_accepted(count)
            else:
                awaited.setdefault(at, []).append((confirms.assign(count), count))
        for at, numbers in awaited.items():
            pending = answers[at]
            assert isinstance(pending, PendingEnqueue)
            commits = self._session.commits if pending.is_recorded else None
            PendingPublishes(confirms, self._outcomes, numbers).wait(pending.receipts, commits)
        if confirms.accepted or confirms.refused:
            self._session.confirming[self] = None

    def report(self) -> None:
        """Say what is known at the end of a batch."""
        self._outcomes.report(self.confirms)

    def on_durable(self, ticket: int) -> None:
        """Confirm what a commit has made safe, unless the publisher has ended meanwhile."""
        if self.confirms.accept_durable(ticket):
            self._outcomes.report(self.confirms)

    def end(self) -> None:
        """Confirm nothing any more, and count what was confirmed."""
        confirms, traffic = self.confirms, self._session.traffic
        self._session.confirming.pop(self, None)
        traffic.received_confirm += confirms.assigned_count
        traffic.confirmed += confirms.accepted_count
        traffic.ledgers.discard(confirms)
        confirms.end()


# Queues


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
    if answer is EnqueueResult.REJECTED or one is EnqueueResult.REJECTED:
        return EnqueueResult.REJECTED
    receipts = [*answer.receipts] if isinstance(answer, PendingEnqueue) else []
    if not isinstance(one, EnqueueResult):
        receipts.append(one)
        one = one.accepted if isinstance(one, PartialResult) else EnqueueResult.ACCEPTED
    elif not receipts:
        return one
    is_recorded = one is EnqueueResult.RECORDED or waits_for_commit(answer)
    return PendingEnqueue(receipts, is_recorded=is_recorded)


def waits_for_commit(answer: Answer) -> bool:
    """True if messages are safe only with the commit that collects."""
    return answer is EnqueueResult.RECORDED or (
        isinstance(answer, PendingEnqueue) and answer.is_recorded
    )


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
        while routed.targets_left:
            at_once_max = TARGETS_AT_ONCE - count
            left = routed.targets_left
            some, routed.targets_left = left[:at_once_max], left[at_once_max:]
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


def exceed_one_step(routes: Collection[PublishRoute] | Collection[RoutedBatch]) -> bool:
    """True if messages go to too many queues to be put into all of them at once."""
    return sum(len(each.targets) for each in routes) > TARGETS_AT_ONCE


def messages_at_once(targets: Sequence[PublishTarget]) -> int:
    """Return the number of messages that may go to these queues together."""
    return max(1, COPIES_MAX // (len(targets) or 1))


def oversized(body_bytes: int, limit_bytes: int) -> PreconditionFailed:
    """The error that a message is beyond the limit, as RabbitMQ says it."""
    return PreconditionFailed(
        f"message size {body_bytes} is larger than configured max size {limit_bytes}"
    )
