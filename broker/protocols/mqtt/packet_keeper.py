"""Keeper of the packets of QoS 2 that an MQTT session is in the midst of, beside its messages.

    keeper = PacketKeeper(services, ("/", "meter-7"))
    keeper.keep(INCOMING, (7,), then)    # `then` is called once that is durable
    keeper.forget(INCOMING, (7,))

On a node that is alone they are in the commit of the messages of the same turn, so that a message
is there with its packet, or neither is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.vhosts import client_sessions

if TYPE_CHECKING:
    from fluffle.broker.core.services import Services
    from fluffle.broker.protocols.mqtt.session_state import SessionKey
    from fluffle.broker.vhosts.vhost import VirtualHost


class PacketKeeper:
    """Keeper of the packets of QoS 2 of one session that lasts."""

    __slots__ = ("_key", "_services")

    def __init__(self, services: Services, key: SessionKey) -> None:
        self._services = services
        self._key = key

    def keep(self, direction: str, packet_ids: Sequence[int], then: Callable[[], None]) -> None:
        """Note packets, with the messages of this turn, and call `then` once that is durable."""
        commits = self._services.runtime.commits
        self._settle(
            client_sessions.keep_packets, direction, packet_ids, partial(when_safe, commits, then)
        )

    def forget(self, direction: str, packet_ids: Sequence[int]) -> None:
        """Forget packets: nobody waits for it."""
        self._settle(client_sessions.forget_packets, direction, packet_ids, nothing)

    def _settle(
        self,
        change: Callable[[VirtualHost, str, str, Sequence[int]], Change],
        direction: str,
        packet_ids: Sequence[int],
        done: Callable[[], None],
    ) -> None:
        vhost_name, client_id = self._key

        def decide() -> Change:
            vhost = self._services.vhosts.get(vhost_name)
            return NOTHING if vhost is None else change(vhost, client_id, direction, packet_ids)

        self._services.metadata.settle(decide, done)


def nothing() -> None:
    """What is left to be done where nothing is."""
