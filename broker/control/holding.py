"""messages.held: who has messages of a queue in hands, and for how long.

Each node knows of its own clients: `everywhere.rows` asks all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.control.parts import Parts, Row, Rows
from fluffle.broker.control.queues import existing_queue
from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.server.describing import channel_name

if TYPE_CHECKING:
    from fluffle.broker.queues.handout import Handout, Holder

SHOWN_MAX = 1000
"""Runs of messages, those held for longest in each channel first."""


def held(parts: Parts, *, name: str, vhost: str) -> Rows:
    """Messages that one holder was handed at one time, and has not settled."""
    queue = existing_queue(parts.vhost(vhost), name)
    left = SHOWN_MAX
    for connection in parts.connections:
        for channel in tuple(connection.channels):
            for run in channel.unacked.open_runs():
                if left and is_of(run.holder, vhost, name, channel.session.vhost.name):
                    left -= 1
                    yield {
                        "queue": queue.name,
                        "connection": connection.name,
                        "channel": channel_name(connection, channel),
                        "user": channel.session.user.name,
                        **run_row(run, parts.clock.wall_ms()),
                    }


def is_of(holder: Holder, vhost: str, name: str, where: str) -> bool:
    return where == vhost and holder.queue.name == name


def run_row(run: Handout, now_ms: int) -> Row:
    """`held_ms`: None where no timeout counts, so that nobody has noted it."""
    holder = run.holder
    return {
        "consumer_tag": holder.tag if isinstance(holder, Consumer) else None,
        "messages": len(run.contents) - run.head - len(run.holes or ()),
        "delivery_tag": run.first_tag + run.head,
        "redelivered": run.redelivered,
        "routing_keys": list(dict.fromkeys(routing_keys(run))),
        "held_ms": max(0, now_ms - run.handed_at_ms) if run.handed_at_ms else None,
    }


def routing_keys(run: Handout) -> Iterator[str]:
    """Of the first few that are held."""
    held = (at for at in range(run.head, len(run.origins)) if run.holds(at))
    for at, _ in zip(held, range(5), strict=False):
        yield run.origins[at].routing_key


READS: Mapping[str, Callable[..., Any]] = {"messages.held": held}
