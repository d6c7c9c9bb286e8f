"""queues.move and queues.convert: all messages go to another queue, or to one of another type.

The caller hears the progress until the move is done or he hangs up.  A classic queue becomes a
quorum queue in its place, or stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, TypeAlias

from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.admin.messages import answered, check_bounds
from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Deferred, PeekRequest, QueueHandle
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.transfer.conversion import begin, give_up
from fluffle.broker.transfer.mover import INTERRUPTED, MovePlan, Mover, Selection
from fluffle.broker.vhosts.vhost import VirtualHost, check_usable, existing_queue

NUMBER_MAX = (1 << 53) - 1
SEEN_AT_ONCE = 1000
"""Messages that are looked at in one turn, before any is taken."""

Progress: TypeAlias = Row | Deferred[None]


def move(
    context: NodeContext,
    *,
    name: str,
    to: str,
    vhost: str,
    where: list[str] | None = None,
    routing_key: str | None = None,
    rate: int | None = None,
    limit: int | None = None,
) -> Rows:
    """Yield the progress of the move now and then, and the last of it at its end."""
    host = context.vhost(vhost)
    source, target = existing_queue(host, name), existing_queue(host, to)
    check_usable(source, vhost)
    check_usable(target, vhost)
    if source is target:
        raise PreconditionFailed(f"queue '{name}' in vhost '{vhost}' cannot be moved to itself")
    if source.spec.single_active_consumer:
        raise PreconditionFailed(
            f"queue '{name}' in vhost '{vhost}' has a single active consumer, which alone is given "
            "its messages"
        )
    for number, called in ((rate, "rate"), (limit, "limit")):
        if number is not None:
            check_bounds(number, called, 1, NUMBER_MAX)
    selection = Selection(where or (), routing_key)
    return moved(host, source, target, MovePlan(selection, 0, limit, rate), context.runtime)


def moved(
    host: VirtualHost, source: QueueHandle, target: QueueHandle, plan: MovePlan, runtime: Runtime
) -> Rows:
    queue_counts = yield from answered(source.queue_counts)
    for queue in (source, target):
        if queue.unreachable_error is not None:
            raise queue.unreachable_error
    if source.counts_error is not None:
        raise source.counts_error
    quota = queue_counts.ready
    if not plan.selection.is_of_all:
        quota = yield from last_meant(source, plan._replace(quota=quota), runtime)
    mover = Mover(host, source, target, plan._replace(quota=quota), runtime)
    try:
        mover.begin()
        while not mover.is_over:
            yield mover.news()
            yield row_of(mover, queue_counts.ready)
    finally:
        mover.stop(INTERRUPTED)
    if mover.why is not None:
        raise PreconditionFailed(f"{counted(mover.moved)} moved, then stopped: {mover.why}")


def last_meant(
    source: QueueHandle, plan: MovePlan, runtime: Runtime
) -> Generator[Progress, None, int]:
    """How many messages have to be taken, so that those behind the last that is meant are not."""
    looked_at = meant = quota = 0
    while looked_at < plan.quota:
        yield {"moved": 0, "skipped": 0, "ready": plan.quota, "is_over": False}
        yield soon(runtime)  # others are to have their turn
        view = PeekRequest(looked_at, min(SEEN_AT_ONCE, plan.quota - looked_at), 0)
        peeked = yield from answered(source.peek(view))
        places = [
            place
            for place, seen in enumerate(peeked.seen, start=looked_at + 1)
            if plan.selection.takes(seen.routing_key, seen.properties)
        ]
        if plan.limit is not None:
            places = places[: plan.limit - meant]
        meant, quota = meant + len(places), places[-1] if places else quota
        looked_at += len(peeked.seen)
        if peeked.damage or not peeked.seen or meant == plan.limit:
            break
    return quota


def soon(runtime: Runtime) -> Deferred[None]:
    """Answered in another turn."""
    return soon_after(runtime.clients_call_later, 0)


def soon_after(
    call_later: Callable[[float, Callable[[], None]], object], seconds: float
) -> Deferred[None]:
    """Answered after so long."""
    later: Deferred[None] = Deferred()
    call_later(seconds, lambda: later.answer(None))
    return later


def row_of(mover: Mover, ready: int) -> Row:
    """`skipped`: were looked at, and stay."""
    return {"moved": mover.moved, "skipped": mover.held, "ready": ready, "is_over": mover.is_over}


def counted(count: int) -> str:
    return "1 message was" if count == 1 else f"{count} messages were"


POLL_INTERVAL_S = 0.1
"""Between two looks at how far it is."""


def convert(
    context: NodeContext, *, name: str, vhost: str, queue_type: str = QueueType.QUORUM.value
) -> Rows:
    """Yield the progress of the conversion; a caller that hangs up before its end gives it up."""
    host = context.vhost(vhost)
    if queue_type != QueueType.QUORUM:
        raise PreconditionFailed(f"a queue can become a quorum queue, and no '{queue_type}'")
    decide_begin(context, host, name)
    return converted(context, host, name)


def decide_begin(context: NodeContext, host: VirtualHost, name: str) -> Change:
    """NotFound, PreconditionFailed."""
    catalogue = context.catalogue
    return begin(host, name, catalogue.policies.settings_of, catalogue.nodes.entries)


def converted(context: NodeContext, host: VirtualHost, name: str) -> Rows:
    successors: list[QueueDefinition] = []

    def decide() -> Change:
        change = decide_begin(context, host, name)
        definition = change.puts[0].value
        assert isinstance(definition, QueueDefinition)
        assert definition.successor is not None
        successors.append(definition.successor)
        return change

    yield from changed(context, decide)
    queue, successor_id = host.queues[name], successors[-1].id
    is_done = False
    try:
        queue_counts = yield from answered(queue.queue_counts)
        ready, copied = queue_counts.ready, 0
        while (successor := successor_of(host, name, successor_id)) is not None:
            queue_counts = yield from answered(successor.queue_counts)
            copied = max(copied, queue_counts.ready + queue_counts.unacked)
            yield {"copied": copied, "ready": max(ready, copied), "is_over": False}
            yield soon_after(context.runtime.clients_call_later, POLL_INTERVAL_S)
        is_done = True
    finally:
        if not is_done:
            context.metadata.ensure(partial(give_up, host, name, successor_id))
    check_converted(context, host, name, successor_id)
    all_of_it = max(ready, copied)
    yield {"copied": all_of_it, "ready": all_of_it, "is_over": True}


def successor_of(host: VirtualHost, name: str, successor_id: int) -> QueueHandle | None:
    """Return the queue that takes its place, while the conversion goes on."""
    successor = host.successors.get(name)
    return successor if successor is not None and successor.definition.id == successor_id else None


def check_converted(context: NodeContext, host: VirtualHost, name: str, successor: int) -> None:
    """PreconditionFailed."""
    where, queue = f"queue '{name}' in vhost '{host.name}'", host.queues.get(name)
    if queue is None:
        raise PreconditionFailed(f"{where} is gone")
    if queue.definition.id != successor:
        reason = context.converter.reason(successor) if context.converter is not None else None
        home = queue.definition.home
        reason = reason or f"the log of node '{home}' says why"
        raise PreconditionFailed(f"{where} is what it was, with all its messages: {reason}")


def changed(
    context: NodeContext, decide: Callable[[], Change]
) -> Generator[Deferred[None], None, None]:
    """Wait among rows until definitions have been changed.  Raises why they are not."""
    come: Deferred[None] = Deferred()
    outcomes: list[BrokerError | None] = []

    def known(error: BrokerError | None) -> None:
        outcomes.append(error)
        if is_awaited:
            come.answer(None)

    is_awaited = False
    context.metadata.change(decide, partial(known, None), known)
    if not outcomes:
        is_awaited = True
        yield come
    error = outcomes[0]
    if error is not None:
        raise error


CHANGES: Mapping[str, Callable[..., Any]] = {"queues.move": move, "queues.convert": convert}
