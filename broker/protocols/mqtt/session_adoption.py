"""Adoption of sessions of MQTT clients whose node is lost, by the node that leads definitions.

    node lost --> each session, once something is due of it: it is put on record as of this node
              --> its will is published, it ends

The record says whose a session is, so that one node does what is due.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.protocols.mqtt.session_state import NEVER_S
from fluffle.broker.protocols.mqtt.will import decode_record
from fluffle.broker.vhosts.client_sessions import keep_session

if TYPE_CHECKING:
    from fluffle.broker.base.client_session import ClientSession
    from fluffle.broker.base.clock import Timer
    from fluffle.broker.core.services import Services
    from fluffle.broker.protocols.mqtt.due_wills import DueWills
    from fluffle.broker.protocols.mqtt.packet_keeper import PacketRequests
    from fluffle.broker.protocols.mqtt.session_state import SessionKey, SessionState

ADOPTED_AT_ONCE = 256
"""Most sessions of a lost node that are looked at in one turn."""


class LostNode(NamedTuple):
    """Node that is dead, or none of the cluster any more."""

    node: str
    is_lost: Callable[[], bool]
    """Says whether that is still so."""
    at_ms: int
    """When it was lost, in ms of common time."""


class SessionServer(Protocol):
    """Server of MQTT on this node, as far as it has sessions that last."""

    services: Services
    packet_requests: PacketRequests
    due_wills: DueWills

    @property
    def now_ms(self) -> Callable[[], int]:
        """The time that all nodes have in common, since 1970."""

    def kept(self, key: SessionKey) -> ClientSession | None:
        """Return the stored session, if there is one."""

    def is_own(self, key: SessionKey) -> bool:
        """True if a session that lasts is this node's."""

    def restored(self, key: SessionKey, kept: ClientSession) -> SessionState:
        """Return the state of a session that is kept."""


class SessionAdoption:
    """Sessions of lost nodes, of which something will be due."""

    __slots__ = ("_lost", "_resume", "_server", "_timers")

    def __init__(
        self, server: SessionServer, resume: Callable[[SessionState, ClientSession], None]
    ) -> None:
        """`resume`: has a session wait, whose client is away."""
        self._server = server
        self._resume = resume
        self._timers: dict[SessionKey, Timer] = {}
        """Timers by session, for when something is due."""
        self._lost: dict[str, LostNode] = {}
        """Nodes that were lost, by name, though some may be back by now."""

    def __len__(self) -> int:
        """How many sessions are to be adopted in their time."""
        return len(self._timers)

    def node_lost(self, node: str, is_lost: Callable[[], bool]) -> None:
        """Do for a node that is dead, or none of the cluster any more, what is due of its sessions,
        for as long as `is_lost`: publish wills, and end what has lasted long enough."""
        lost = self._lost[node] = LostNode(node, is_lost, self._server.now_ms())
        keys = [
            (vhost.name, client_id)
            for vhost in self._server.services.vhosts.values()
            for client_id, kept in vhost.client_sessions.by_client.items()
            if kept.node == node
        ]
        self._adopt_in_parts(keys, lost)
        self._server.due_wills.node_lost(node, is_lost)  # mutant: MQ77

    def _adopt_in_parts(self, keys: list[SessionKey], lost: LostNode) -> None:
        """Adopt sessions when something is due of them, which it is of those whose clients were
        connected: they are from then on."""
        call_later = self._server.services.runtime.call_later
        for key in keys[-ADOPTED_AT_ONCE:]:
            kept = self._server.kept(key)
            if kept is None or kept.node != lost.node:
                continue
            self._stop_timer(key)
            if not kept.ended_at_ms:
                self._adopt(key, lost)  # mutant: MQ60
            elif (due_ms := self._due_ms(key, kept)) is not None:
                delay_s = max(0, due_ms - self._server.now_ms()) / 1000
                self._timers[key] = call_later(delay_s, partial(self._adopt, key, lost))
        del keys[-ADOPTED_AT_ONCE:]
        if keys:
            call_later(0, partial(self._adopt_in_parts, keys, lost))

    def ended(self, key: SessionKey) -> None:
        """A session lasts no longer, or is gone: adopt it now if its node is lost."""
        self._stop_timer(key)
        kept = self._server.kept(key)
        lost = None if kept is None else self._lost.get(kept.node)
        if lost is not None:
            self._adopt(key, lost)

    def _stop_timer(self, key: SessionKey) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    def _due_ms(self, key: SessionKey, kept: ClientSession) -> int | None:
        """When something is due of a session whose client is away; None if never."""
        pending = decode_record(key, kept.record)
        after_s = kept.expiry_s if pending is None else min(kept.expiry_s, pending.will.delay_s)
        return None if after_s == NEVER_S else kept.ended_at_ms + after_s * 1000

    def _adopt(self, key: SessionKey, lost: LostNode) -> None:
        """Have a session be this node's, unless its own is there again or another was first."""
        self._timers.pop(key, None)

        def decide() -> Change:
            vhost, kept = self._server.services.vhosts.get(key[0]), self._server.kept(key)
            # mutant: MQ58 MQ59
            if vhost is None or kept is None or kept.node != lost.node or not lost.is_lost():
                return NOTHING
            ended_at_ms = kept.ended_at_ms or lost.at_ms
            own = kept._replace(
                node=self._server.services.owners.node,
                ended_at_ms=ended_at_ms,
                number=self._server.packet_requests.session_number(kept),
            )
            return keep_session(vhost, key[1], own)

        self._server.services.metadata.ensure(decide, partial(self._adopted, key))

    def _adopted(self, key: SessionKey) -> None:
        kept = self._server.kept(key)
        if kept is not None and kept.ended_at_ms and self._server.is_own(key):
            self._resume(self._server.restored(key, kept), kept)
