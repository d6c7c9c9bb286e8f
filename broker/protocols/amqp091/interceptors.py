"""Headers that this node adds to all messages if it is told to: to those that clients publish, when
they came and through whom; to those that clients are given, when that was.

RabbitMQ calls this the interception of messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fluffle.broker.config.config import OVERWRITE, Config, InterceptorConfig
from fluffle.broker.protocols.amqp091.publish_methods import PutBack, on_publishes
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.events import Publishes
from fluffle.protocol.headers import PropertyOverlay
from fluffle.protocol.properties import (
    Properties,
    decode_properties,
    is_bare,
    raw_properties,
    replace_properties,
)

if TYPE_CHECKING:
    from fluffle.broker.base.clock import Clock
    from fluffle.broker.protocols.amqp091.channel import Channel

RECEIVED, ROUTED_BY, SENT = "timestamp_in_ms", "x-routed-by", "x-opt-rabbitmq-sent-time"

WallMs = Callable[[], int]
"""The time of day."""


class Interceptors:
    """Interceptors of a node, for the messages of every channel."""

    __slots__ = ("_incoming", "_outgoing")

    def __init__(self, config: InterceptorConfig, node: str, wall_ms: WallMs) -> None:
        is_told = config.received is not None or config.routing_node is not None
        self._incoming = IncomingInterceptor(config, node, wall_ms) if is_told else None
        self._outgoing = OutgoingInterceptor(wall_ms) if config.sent else None

    def fit(self, channel: Channel) -> None:
        """Give a channel that is new what does it."""
        if self._incoming is not None:
            channel.take = self._incoming.take
        if self._outgoing is not None:
            channel.intercepted = self._outgoing.intercepted


def interceptors_of(config: Config, clock: Clock) -> Interceptors | None:
    """That of a node; None if it leaves messages as they are."""
    if config.stamps == InterceptorConfig():
        return None
    return Interceptors(config.stamps, config.node_name, clock.wall_ms)


class IncomingInterceptor:
    """Stamps what clients publish before anything looks at it."""

    __slots__ = ("_config", "_node", "_wall_ms")

    def __init__(self, config: InterceptorConfig, node: str, wall_ms: WallMs) -> None:
        self._config = config
        self._node = node.encode()
        self._wall_ms = wall_ms

    def take(self, channel: Channel, batch: Publishes, put_back: PutBack) -> int:
        """As `on_publishes`.  What it puts back is stamped again when its turn comes: with a later
        time, or as it was if nothing is overwritten."""
        try:
            decode_properties(batch.outline)
        except ProtocolError:  # all of them are alike: somebody will say what is wrong with them
            return on_publishes(channel, batch, put_back)
        stamp = self._stamp(self._wall_ms())
        contents = intercepted(batch.contents, stamp)
        outline = batch.outline if is_bare(batch.outline) else stamp.on(batch.outline)
        size_bytes = sum(map(len, contents))
        batch = Publishes(batch.channel, batch.methods, contents, size_bytes, outline)
        return len(contents) + on_publishes(channel, batch, put_back)

    def _stamp(self, now_ms: int) -> PropertyOverlay:
        """That of messages that came now."""
        config, over, under = self._config, Properties(headers={}), Properties(headers={})
        if config.received is not None:
            chosen = over if config.received == OVERWRITE else under
            chosen.headers = {RECEIVED: ("l", now_ms)}
            chosen.timestamp = now_ms // 1000
        if config.routing_node is not None:
            chosen = over if config.routing_node == OVERWRITE else under
            chosen.headers = {**(chosen.headers or {}), ROUTED_BY: ("S", self._node)}
        return PropertyOverlay(over, under)


class OutgoingInterceptor:
    """Stamps what clients are given; a message in a queue stays as it is."""

    __slots__ = ("_wall_ms",)

    def __init__(self, wall_ms: WallMs) -> None:
        self._wall_ms = wall_ms

    def intercepted(self, contents: Sequence[bytes]) -> list[bytes]:
        """Canonical contents that are sent now."""
        now = Properties(headers={SENT: ("l", self._wall_ms())})
        return intercepted(contents, PropertyOverlay(now, Properties()))


def intercepted(contents: Sequence[bytes], stamp: PropertyOverlay) -> list[bytes]:
    """Canonical contents, whose properties must be well-formed, with what a stamp adds."""
    raws = [*map(raw_properties, contents)]
    changed = {raw: stamp.on(raw) for raw in {*raws}}
    return [
        replace_properties(content, changed[raw])
        for content, raw in zip(contents, raws, strict=True)
    ]
