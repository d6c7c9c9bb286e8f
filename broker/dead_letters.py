"""What has died in a queue is published again, as the queue's arguments say.

At most once, as RabbitMQ does it by default: nobody waits until the queues that get it are sure of
it, and what leads nowhere is gone, or to a queue that has had no room for long.  What has come back
to a queue where it died before is gone too, if no client has rejected it since: it would go round
for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from fluffle.broker.clock import Clock
from fluffle.broker.logs import event
from fluffle.broker.message import Origin, Past
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead import DeadMessages
from fluffle.broker.queues.served import ServedQueue
from fluffle.broker.vhost import VirtualHost
from fluffle.protocol.deaths import Death, DeathReason, died, is_cycle, queues_of
from fluffle.protocol.headers import long_strings
from fluffle.protocol.properties import (
    decode_properties,
    is_persistent,
    raw_properties,
    replace_properties,
)

PATIENCE_MS = 10_000
"""A queue that nobody leads is full once it has been given what one burst of a client may be, too;
it is one that takes nothing after this."""
PAUSE_MS = 1_000
"""Who has not been looked at for this long may have had room meanwhile."""

NOTED_MAX = 1000
"""So much is known to have been logged; then afresh."""

logger = logging.getLogger(__name__)


class Letter(NamedTuple):
    """What becomes of messages with one origin and the same properties."""

    origin: Origin
    raw: bytes
    targets: tuple[ServedQueue, ...]
    persistent: bool
    cycles: tuple[tuple[str, ...], ...]
    """Round which queues it would go, once for each that does not get it."""

    @property
    def way(self) -> tuple[tuple[ServedQueue, ...], bool]:
        """What it must have in common with the one before, to be published with it."""
        return self.targets, self.persistent


class DeadLetters:
    """Of all virtual hosts of a node."""

    __slots__ = ("_clock", "_find", "_full", "_noted")

    def __init__(self, find: Callable[[str], VirtualHost | None], clock: Clock) -> None:
        self._find = find
        self._clock = clock
        self._full: dict[tuple[str, str], tuple[int, int]] = {}
        """By virtual host and name: since when a queue has had no room, and when it was looked at
        last."""
        self._noted: set[tuple[str, str, str]] = set()
        """What has been logged."""

    def publish(self, vhost_name: str, queue: QueueSpec, dead: DeadMessages) -> None:
        """Put messages of a queue into those where its dead-letter exchange leads."""
        vhost = self._find(vhost_name)
        if vhost is None or queue.dead_letter_exchange is None:
            return
        time_ms = dead.time_ms if dead.time_ms is not None else self._clock.wall_ms()
        writer = Writer(vhost, queue, dead.reason, time_ms // 1000)
        known: dict[tuple[Origin, bytes], Letter] = {}
        letters: list[tuple[Letter, bytes]] = []
        for origin, content in zip(dead.origins, dead.contents, strict=True):
            key = origin, raw_properties(content)
            if key not in known:
                known[key] = writer.write(*key)
            letters.append((known[key], replace_properties(content, known[key].raw)))
        for letter in known.values():
            for cycle in letter.cycles:
                self._note("dead_letter_cycle", vhost_name, ", ".join(cycle))
        for (targets, persistent), run in groupby(letters, key=lambda pair: pair[0].way):
            stuck = [target for target in targets if self._is_stuck(vhost_name, target)]
            for target in stuck:
                self._note("dead_letters_dropped", vhost_name, target.name)
            put(list(run), [each for each in targets if each not in stuck], persistent=persistent)

    def _is_stuck(self, vhost: str, target: ServedQueue) -> bool:
        """Whether a queue has had no room for too long."""
        key, now_ms = (vhost, target.name), self._clock.now_ms()
        if not target.is_full:
            self._full.pop(key, None)
            return False
        since_ms, last_ms = self._full.get(key, (now_ms, now_ms))
        if now_ms - last_ms > PAUSE_MS:
            since_ms = now_ms
        self._full[key] = since_ms, now_ms
        return now_ms - since_ms > PATIENCE_MS

    def _note(self, what: str, vhost: str, queues: str) -> None:
        """Messages are gone: said once of each queue, or of those round which they would go."""
        if (what, vhost, queues) in self._noted:
            return
        if len(self._noted) >= NOTED_MAX:
            self._noted.clear()
        self._noted.add((what, vhost, queues))
        event(logger, logging.WARNING, what, vhost=vhost, queues=queues)


class Writer(NamedTuple):
    """Writes into headers how messages have died that did so together."""

    vhost: VirtualHost
    queue: QueueSpec
    reason: DeathReason
    time_s: int

    def write(self, origin: Origin, raw: bytes) -> Letter:
        exchange, own_key = self.queue.dead_letter_exchange, self.queue.dead_letter_routing_key
        assert exchange is not None
        keys = routing_keys(origin, raw)
        death = Death(self.queue.name, self.reason, self.time_s, origin.exchange, keys)
        raw, deaths = died(raw, death, again=origin.past is not Past.NONE)
        past = max(origin.past, Past.DIED)
        if own_key is not None:
            keys, past = (own_key,), Past.REDIRECTED
        targets = self.vhost.route(exchange, keys, decode_properties(raw).headers)
        cycles: tuple[tuple[str, ...], ...] = ()
        if self.reason is not DeathReason.REJECTED:
            ended = [target for target in targets if is_cycle(deaths, target.name)]
            targets = tuple(target for target in targets if target not in ended)
            cycles = tuple((target.name, *queues_of(deaths)) for target in ended)
        new_origin = self.vhost.origin(exchange, keys[0], past)
        return Letter(new_origin, raw, targets, is_persistent(raw), cycles)


def put(
    letters: list[tuple[Letter, bytes]], targets: list[ServedQueue], *, persistent: bool
) -> None:
    """Into each of the queues, in order."""
    origins = [letter.origin for letter, _content in letters]
    contents = [content for _letter, content in letters]
    size_bytes = sum(map(len, contents))
    for target in targets:
        target.enqueue(origins, contents, size_bytes, persistent=persistent)


def routing_keys(origin: Origin, raw: bytes) -> tuple[str, ...]:
    """Under which keys a message was published; those of BCC are not known any more."""
    if origin.past is Past.REDIRECTED:
        return (origin.routing_key,)
    _tag, more = (decode_properties(raw).headers or {}).get("CC", ("A", []))
    return (origin.routing_key, *(long_strings(more) if isinstance(more, list) else ()))
