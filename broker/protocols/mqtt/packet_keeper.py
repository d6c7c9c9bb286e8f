"""Keeper of the packets of QoS 2 that an MQTT session is in the midst of, beside its messages.

    keeper = PacketKeeper(services, ("/", "meter-7"), channel)
    keeper.keep(INCOMING, (7,), then)    # `then` is called once that is durable
    keeper.forget(INCOMING, (7,), then)

On a node that is alone they are in the commit of the messages of the same turn, so that a message
is there with its packet, or neither is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.vhosts import client_sessions

if TYPE_CHECKING:
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.services import Services
    from fluffle.broker.protocols.mqtt.session_state import SessionKey
    from fluffle.broker.vhosts.vhost import VirtualHost


class KeepingChannel(Protocol):
    """Channel of an MQTT client, as far as what is kept for it concerns it."""

    def give_up(self, error: Exception) -> None:
        """Close the connection for an error of the broker's own that concerns it alone."""


class PacketKeeper:
    """Keeper of the packets of QoS 2 of one session that lasts."""

    __slots__ = ("_channel", "_key", "_services")

    def __init__(self, services: Services, key: SessionKey, channel: KeepingChannel) -> None:
        """`channel`: where it ends if what is done once packets are noted fails."""
        self._services = services
        self._key = key
        self._channel = channel

    @property
    def goes_with_messages(self) -> bool:
        """True if packets are in one commit with the messages of the turn: on a node that is
        alone."""
        return self._services.read_barrier.is_complete

    def keep(self, direction: str, packet_ids: Sequence[int], then: Callable[[], None]) -> None:
        """Note packets, with the messages of this turn, and call `then` once that is durable."""
        self._settle(client_sessions.keep_packets, direction, packet_ids, then)

    def sent_under(self) -> dict[int, int]:
        """The packets that the client was sent, as far as that is noted."""
        vhost_name, client_id = self._key
        vhost = self._services.vhosts.get(vhost_name)
        return {} if vhost is None else vhost.client_sessions.sent(client_id)

    def keep_sent(self, messages: Mapping[int, int], output: OutputBuffer) -> None:
        """Note under which packets messages are sent, before `output` sends them: after the end of
        the node the client must be sent them under the same.

        In a cluster nothing is held back.
        """
        vhost_name, client_id = self._key
        commits = self._services.runtime.commits

        def decide() -> Change:
            vhost = self._services.vhosts.get(vhost_name)
            if vhost is None:
                return NOTHING
            return client_sessions.keep_sent(vhost, client_id, messages)

        commits.keep_together()
        self._services.metadata.settle(decide)
        if self.goes_with_messages:
            output.hold(commits.ticket)
            commits.wait(output, commits.ticket)

    def forget(self, direction: str, packet_ids: Sequence[int], then: Callable[[], None]) -> None:
        """Forget packets, and call `then` once that is durable: before, their numbers must not be
        used again."""
        self._settle(client_sessions.forget_packets, direction, packet_ids, then)

    def _settle(
        self,
        change: Callable[[VirtualHost, str, str, Sequence[int]], Change],
        direction: str,
        packet_ids: Sequence[int],
        then: Callable[[], None],
    ) -> None:
        commits = self._services.runtime.commits
        vhost_name, client_id = self._key

        def decide() -> Change:
            vhost = self._services.vhosts.get(vhost_name)
            return NOTHING if vhost is None else change(vhost, client_id, direction, packet_ids)

        commits.keep_together()
        guarded = partial(self._guarded, then)
        self._services.metadata.settle(decide, partial(when_safe, commits, guarded))  # mutant: MQ3

    def _guarded(self, then: Callable[[], None]) -> None:
        """Do what was to be done then; an error of it ends its connection, and not the commits."""
        try:
            then()
        except Exception as error:  # noqa: BLE001 - a bug ends one connection
            self._channel.give_up(error)
