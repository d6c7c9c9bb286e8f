"""Wills that are due: on record until their queues have them, so that none is lost with a node.

    connection ends --> the record of its end has its will beside it, as of this node
                    --> which publishes it
                    --> queues and retained messages have it: it is on record no more
    node is lost    --> the wills on record as of it are put on record as of another

While a cluster has nodes of a version before, a will is not on record: it is published once the end
is, and is lost if its node ends before the queues have it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.base.client_session import DueWill, WillName
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.nodes import KEEPS_WILLS, check_supported
from fluffle.broker.protocols.mqtt.will import decode_record, encode_record
from fluffle.broker.vhosts.client_sessions import forget_will, keep_will

if TYPE_CHECKING:
    from fluffle.broker.base.logs import LimitedLog
    from fluffle.broker.core.services import Services
    from fluffle.broker.protocols.mqtt.will import PendingWill, Wills

Place: TypeAlias = tuple[str, WillName]
"""Virtual host, and the name of a will there."""

TAKEN_AT_ONCE = 64
"""Most wills that are published, or adopted, in one turn without their clients."""

TAKEN_BYTES_MAX = 256 * 1024
"""Size of their records from which on a turn takes no more."""

AWAITED_MAX = 10_000
"""Most wills of a node that are on record until their queues have them: a queue without a majority
may not have them for days."""

AWAITED_BYTES_MAX = 32 * 1024 * 1024
"""Size of their records from which on no more are."""


class ChangeWithWill:
    """Change with which a will is due: it is on record beside the change."""

    __slots__ = ("_decide", "_unkept", "_wills")

    def __init__(
        self, wills: DueWills, decide: Callable[[], tuple[Change, PendingWill | None]]
    ) -> None:
        """`decide` returns the change, and the will that is due with it."""
        self._wills = wills
        self._decide = decide
        self._unkept: PendingWill | None = None
        """Will that may not be on record."""

    def decide(self) -> Change:
        """Return both as one change; raise what the decision raises."""
        self._unkept = None
        change, pending = self._decide()
        if pending is None:
            return change
        kept = self._wills.keep(pending)
        if kept is None:
            self._unkept = pending
            return change
        return change.joined(kept)  # mutant: MQ63

    def done(self) -> None:
        """Publish a will that could not be on record: the change has come true."""
        pending, self._unkept = self._unkept, None
        if pending is not None:
            self._wills.publish(pending)


class DueWills:
    """Wills that are due and that this node is to publish, or may have to."""

    __slots__ = ("_awaited", "_awaited_bytes", "_services", "_warnings", "publish")

    def __init__(self, services: Services, wills: Wills, warnings: LimitedLog) -> None:
        self._services = services
        self._warnings = warnings
        self.publish = wills.publish
        self._awaited: dict[Place, int] = {}
        """Size of the record of each will that is published, and that queues may not have yet."""
        self._awaited_bytes = 0

    def keep(self, pending: PendingWill) -> Change | None:
        """Return the change that has a will on record as due, for this node to publish; None as
        long as not all nodes know what that is."""
        services, (vhost_name, client_id) = self._services, pending.key
        try:
            known = check_supported(KEEPS_WILLS, services.nodes)
        except PreconditionFailed:
            return None
        will = DueWill(services.owners.node, encode_record(pending))
        name = client_id, pending.message_key.hex()
        change = keep_will(services.vhosts[vhost_name], name, will)
        return change._replace(rests_on=(*change.rests_on, *known))

    def changed(self, vhost: str, name: WillName) -> None:
        """A will is due: publish it if it is this node's."""
        place, will = (vhost, name), self._find(vhost, name)
        if will is None or will.node != self._services.owners.node or place in self._awaited:
            return
        pending = decode_record((vhost, name[0]), will.record)
        if pending is None:  # it is for a later version
            return
        if len(self._awaited) >= AWAITED_MAX or self._awaited_bytes >= AWAITED_BYTES_MAX:
            self._warnings.warn("will_not_awaited", vhost=vhost, user=pending.user)
            self.publish(pending)
            self._forget(place)
            return
        self._awaited[place] = size = len(will.record)
        self._awaited_bytes += size
        self.publish(pending, partial(self._published, place))

    def restore(self) -> None:
        """Publish what an earlier process of this node may not have published."""
        self._in_parts(self._places_of(self._services.owners.node), self._publish_part)

    def node_lost(self, node: str, is_lost: Callable[[], bool]) -> None:
        """Have the wills of a node that is dead be this node's, for as long as `is_lost`."""
        self._in_parts(self._places_of(node), partial(self._adopt_part, node, is_lost))

    def _places_of(self, node: str) -> list[Place]:
        return [
            (vhost.name, name)
            for vhost in self._services.vhosts.values()
            for name, will in vhost.client_sessions.due_wills.items()
            if will.node == node
        ]

    def _find(self, vhost_name: str, name: WillName) -> DueWill | None:
        vhost = self._services.vhosts.get(vhost_name)
        return None if vhost is None else vhost.client_sessions.due_wills.get(name)

    def _in_parts(
        self, places: list[Place], take: Callable[[list[Place], Callable[[], None]], None]
    ) -> None:
        """Call `take` with some of these wills, and with what it calls to go on with the others,
        which is in another turn."""

        def go_on() -> None:
            self._services.runtime.call_later(0, partial(self._in_parts, places, take))

        part: list[Place] = []
        part_bytes = 0
        while places and len(part) < TAKEN_AT_ONCE and part_bytes < TAKEN_BYTES_MAX:
            part.append(places.pop())
            will = self._find(*part[-1])
            part_bytes += 0 if will is None else len(will.record)
        if part:
            take(part, go_on)

    def _publish_part(self, part: list[Place], go_on: Callable[[], None]) -> None:
        for place in part:
            self.changed(*place)
        go_on()

    def _adopt_part(
        self,
        node: str,
        is_lost: Callable[[], bool],
        part: list[Place],
        go_on: Callable[[], None],
    ) -> None:
        own = self._services.owners.node

        def decide() -> Change:
            change = NOTHING
            for vhost_name, name in part if is_lost() else ():
                will = self._find(vhost_name, name)
                if will is not None and will.node == node:
                    vhost = self._services.vhosts[vhost_name]
                    change = change.joined(keep_will(vhost, name, will._replace(node=own)))
            return change

        self._services.metadata.ensure(decide, go_on)

    def _published(self, place: Place) -> None:
        """The queues of a will have it, or will not."""
        self._awaited_bytes -= self._awaited.pop(place)
        self._forget(place)

    def _forget(self, place: Place) -> None:
        vhost_name, name = place

        def decide() -> Change:
            will = self._find(vhost_name, name)
            if will is None or will.node != self._services.owners.node:  # mutant: MQ75
                return NOTHING
            return forget_will(self._services.vhosts[vhost_name], name)

        self._services.metadata.ensure(decide)
