"""queues.*: what is in them, and away with it.

An operator may do to any queue what a client may, to those that are exclusive to another, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fluffle.broker.chores import in_pieces
from fluffle.broker.control.parts import Later, Parts, Pending, Result, Row, Rows, Work
from fluffle.broker.deciding import delete_queue
from fluffle.broker.definitions.values import plain
from fluffle.broker.errors import BrokerError, NotFound, PreconditionFailed
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Damage
from fluffle.broker.queues.served import Later as Asked
from fluffle.broker.queues.served import ServedQueue, Tally
from fluffle.broker.vhost import VirtualHost

ASKED_AT_ONCE = 100
"""Queues that are led elsewhere, whose leaders are asked."""


def list_queues(parts: Parts, *, vhost: str | None = None) -> Rows:
    """Those of a virtual host, or all."""
    for each in parts.vhosts(vhost):
        for queues in in_pieces(tuple(each.queues.values()), ASKED_AT_ONCE):
            yield from told(queues)
            yield from (queue_row(each, queue) for queue in queues if each.has(queue))


def told(queues: Iterable[ServedQueue]) -> Iterator[Asked[None]]:
    """What has to be waited for until this node knows how these queues are."""
    asked = [tally for queue in queues if isinstance(tally := queue.tally, Asked)]
    if not asked:
        return
    all_told: Asked[None] = Asked()
    left = len(asked)

    def count(_tally: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            all_told.answer(None)

    for each in asked:
        each.then(count, count)
    yield all_told


def queue_row(vhost: VirtualHost, queue: ServedQueue) -> Row:
    """What RabbitMQ calls these things."""
    spec = queue.spec
    return {
        "vhost": vhost.name,
        "name": spec.name,
        "type": spec.queue_type.value,
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "exclusive": spec.exclusive,
        "owner": queue.owner.name if queue.owner else None,
        "arguments": plain(spec.arguments),
        "messages": queue.ready_count + queue.in_flight,
        "messages_ready": queue.ready_count,
        "messages_unacknowledged": queue.in_flight,
        "consumers": queue.consumer_count,
        "state": state_of(queue),
    }


def state_of(queue: ServedQueue) -> str:
    """In RabbitMQ's words."""
    if queue.absence is not None:
        return "down"
    return "running" if queue.damage is None else "crashed"


def show(parts: Parts, *, name: str, vhost: str) -> Row | Later:
    """One queue, with what leads to it."""
    host = parts.vhost(vhost)
    queue = existing_queue(host, name)
    tally = queue.tally
    if not isinstance(tally, Asked):
        return queue_row(host, queue)
    asked = Pending()
    tally.then(lambda _tally: asked.answer(queue_row(host, queue)), asked.answer)
    return asked.result


def purge(parts: Parts, *, name: str, vhost: str) -> Row | Later:
    """Drop the ready messages; how many there were."""
    count = existing_queue(parts.vhost(vhost), name).purge()
    if not isinstance(count, Asked):
        return {"messages": count}
    asked = Pending()
    count.then(lambda messages: asked.answer({"messages": messages}), asked.answer)
    return asked.result


def repair(parts: Parts, *, name: str, vhost: str, drop_damaged: bool = False) -> Later:
    """Drop the damaged messages that a crashed queue came upon; how many, and where the first."""
    queue = existing_queue(parts.vhost(vhost), name)
    damage = queue.damage
    if damage is None or not isinstance(queue, Queue):
        raise PreconditionFailed(f"queue '{name}' in vhost '{vhost}' has not crashed")
    if not drop_damaged and damage.is_of_settled:
        raise PreconditionFailed(
            f"what was acknowledged in queue '{name}' in vhost '{vhost}' cannot be read "
            f"({damage.place}: {damage.what}); with --drop-damaged such messages come again"
        )
    if not drop_damaged:
        count = damage.count or "some"
        raise PreconditionFailed(
            f"{count} messages of queue '{name}' in vhost '{vhost}' cannot be read "
            f"({damage.place}: {damage.what}); they can only be dropped, with --drop-damaged"
        )
    return parts.later(drop_damage(parts, vhost, queue, damage))


def drop_damage(parts: Parts, vhost: str, queue: Queue, first: Damage) -> Work:
    """One batch of messages after the other, as long as the next cannot be read either."""
    dropped = 0
    while (damage := queue.damage) is not None:
        count = queue.drop_damaged()
        if not count and queue.damage is not None:
            raise PreconditionFailed(
                f"{dropped} messages were dropped, but it cannot be told how many more of queue "
                f"'{queue.name}' in vhost '{vhost}' are damaged ({damage.place}: {damage.what}); "
                "purge or delete it"
            )
        dropped += count
        yield None
    return {"messages": dropped, "place": first.place, "reason": first.what}


def delete(
    parts: Parts, *, name: str, vhost: str, if_unused: bool = False, if_empty: bool = False
) -> Result:
    """A queue with its messages, how many there were; its consumers are cancelled."""
    messages = 0

    def decide() -> Change:
        nonlocal messages
        host = parts.vhost(vhost)
        queue = existing_queue(host, name)
        host.check_deletable(queue, unused=if_unused, empty=if_empty)
        messages = queue.ready_count
        return delete_queue(host, queue)

    tally = existing_queue(parts.vhost(vhost), name).tally
    if not isinstance(tally, Asked):
        return parts.change(decide, lambda: {"messages": messages})
    going = Pending()

    def counted(_tally: Tally) -> None:
        try:
            parts.metadata.change(
                decide, lambda: going.answer({"messages": messages}), going.answer
            )
        except BrokerError as error:
            going.answer(error)

    tally.then(counted, going.answer)
    return going.result


def existing_queue(vhost: VirtualHost, name: str) -> ServedQueue:
    """NotFound."""
    queue = vhost.queues.get(name)
    if queue is None:
        raise NotFound(f"no queue '{name}' in vhost '{vhost.name}'")
    return queue


READS: Mapping[str, Callable[..., Any]] = {"queues.list": list_queues, "queues.show": show}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "queues.purge": purge,
    "queues.repair": repair,
    "queues.delete": delete,
}
