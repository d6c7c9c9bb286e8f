"""Message interceptors: headers that a node adds to all messages, if that is configured.

To those that clients publish: when they came, and through which node.  To those that clients are
given: when that was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fluffle.broker.config.config import OVERWRITE, Config, InterceptorConfig
from fluffle.protocol.headers import PropertyOverlay
from fluffle.protocol.properties import (
    Properties,
    decode_properties,
    is_bare,
    raw_properties,
    replace_properties,
)
from fluffle.protocol.spec import ProtocolError

if TYPE_CHECKING:
    from fluffle.broker.base.clock import Clock

RECEIVED, ROUTED_BY, SENT = "timestamp_in_ms", "x-routed-by", "x-opt-rabbitmq-sent-time"
ADDED_HEADERS = (RECEIVED, ROUTED_BY, SENT)

WallMs = Callable[[], int]
"""The time of day."""


class Interceptors:
    """Interceptors of a node, for the messages of every channel."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self, config: InterceptorConfig, node: str, wall_ms: WallMs) -> None:
        is_wanted = config.received is not None or config.routing_node is not None
        self.incoming = IncomingInterceptor(config, node, wall_ms) if is_wanted else None
        self.outgoing = OutgoingInterceptor(wall_ms) if config.sent else None


def interceptors_of(config: Config, clock: Clock) -> Interceptors | None:
    """Interceptors of a node; None if it leaves messages as they are."""
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

    def intercepted(self, contents: list[bytes], outline: bytes) -> tuple[list[bytes], bytes]:
        """Contents and their outline with the headers.  Messages that come here again get them
        again: with a later time, or as they were if nothing is overwritten."""
        try:
            decode_properties(outline)
        except ProtocolError:  # all of them are alike: publishing says what is wrong with them
            return contents, outline
        stamp = self._stamp(self._wall_ms())
        if not is_bare(outline):
            outline = stamp.on(outline)
        return intercepted(contents, stamp), outline

    def _stamp(self, now_ms: int) -> PropertyOverlay:
        """Overlay of the properties of messages that came now."""
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
