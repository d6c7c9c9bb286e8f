"""queues.convert: a classic queue becomes a quorum queue in its place, or stays what it is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

from fluffle.broker.admin.context import NodeContext, Rows
from fluffle.broker.admin.messages import answered
from fluffle.broker.admin.move import soon_after
from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Deferred, QueueHandle
from fluffle.broker.transfer.conversion.changes import begin, give_up
from fluffle.broker.vhosts.vhost import VirtualHost

POLL_INTERVAL_S = 0.1
"""Between two looks at how far it is."""


def convert(
    context: NodeContext, *, name: str, vhost: str, queue_type: str = QueueType.QUORUM.value
) -> Rows:
    """How far it is, now and then; whoever hangs up before it is done gives it up."""
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
            context.metadata.settle(partial(give_up, host, name, successor_id))
    check_converted(context, host, name, successor_id)
    all_of_it = max(ready, copied)
    yield {"copied": all_of_it, "ready": all_of_it, "is_over": True}


def successor_of(host: VirtualHost, name: str, successor_id: int) -> QueueHandle | None:
    """What it is to become, while it has not yet."""
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


CHANGES: Mapping[str, Callable[..., Any]] = {"queues.convert": convert}
