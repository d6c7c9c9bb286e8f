"""Members of a shared subscription of MQTT.

- Each acknowledged message comes to a member.
- One of QoS 2 comes to one member once, as long as no node ends, nor the member's connection.
- Where nothing fails, each message comes to one member.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fluffle.broker.base.queue_names import shared_queue
from fluffle.protocol.mqtt.reader import Publishes
from tests.simulation.facts import Violation
from tests.simulation.mqtt.mqtt_members import (
    NO_SUBSCRIPTION,
    SimulatedSubscriber,
    missing,
    number_of,
)

if TYPE_CHECKING:
    from tests.simulation.mqtt.mqtt_clients import Clients

SHARE_NAME, TOPICS = "group", "+"
FILTER = f"$share/{SHARE_NAME}/{TOPICS}"


class GroupDelivery(NamedTuple):
    """First delivery of a message to a member of a group."""

    member: str
    qos: int
    connects: int
    """Number of the connection over which the message came, among those of the member."""


class Group:
    """All members, and what they were sent together."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self.members = [
            GroupMember(clients, self, "g1", 1),
            GroupMember(clients, self, "g2", 2),
            CleanMember(clients, self, "g3", 2),
        ]
        self.taken: dict[str, dict[int, GroupDelivery]] = {}
        """First deliveries by publisher and number."""
        self.first_due: dict[str, int] | None = None
        """Numbers by publisher of the first messages that must come; None until a member is there
        whose session lasts."""
        self.subscription = NO_SUBSCRIPTION
        """Subscription of that member."""
        self.is_lost = False
        """True if its queue was on disks of which a majority is lost."""
        self.again = 0
        """Messages that have come again."""

    def lacking(self) -> list[str]:
        """Return the names of some acknowledged messages that have come to no member."""
        if self.first_due is None or self.is_lost:
            return []
        return [
            f"{each.name}/{number}"
            for each in self._clients.publishers
            for number in missing(
                each, self.taken.get(each.name, ()), self.first_due, self.subscription
            )
        ]

    def took(self, member: GroupMember, packet: Publishes, payload: bytes) -> None:
        name, number = payload.partition(b"/")[0].decode(), number_of(payload)
        delivery = GroupDelivery(member.name, packet.qos, member.connects)
        taken = self.taken.setdefault(name, {})
        before = taken.setdefault(number, delivery)
        if before is delivery:
            return
        self.again += 1
        holders = {each.name: each for each in self.members}
        has_stayed = holders[before.member].connects == before.connects
        is_once = packet.qos == before.qos == 2 and has_stayed
        if self._clients.is_calm or (is_once and self._clients.has_no_death):
            raise Violation(f"mqtt: {payload!r} comes to {before}, and to {delivery}")


class GroupMember(SimulatedSubscriber):
    """Member of a group, whose session lasts."""

    def __init__(self, clients: Clients, group: Group, name: str, qos: int) -> None:
        super().__init__(clients, name, FILTER, qos)
        self.group = group

    def subscribed(self) -> None:
        super().subscribed()
        if self.group.first_due is None:
            self.group.first_due = self.first_due
            self.group.subscription = self.subscription

    @property
    def queue(self) -> str:
        return shared_queue(SHARE_NAME, TOPICS)

    def lacking(self) -> list[str]:
        return self.group.lacking()

    def take(self, packet: Publishes, payload: bytes) -> None:
        self.check_sender(packet, payload)
        self.group.took(self, packet, payload)


class CleanMember(GroupMember):
    """Member of a group, whose session ends with its connection."""

    def connect(self) -> None:
        self.line = self.node.begin(self.name, clean_start=True, expiry_s=0, receive_max=2)
        self.is_let_in = False

    def let_in(self, *, present: bool) -> None:
        if present:
            raise Violation(f"mqtt: {self.name} has a session that has ended")
        self.may_be_lost = True
        super().let_in(present=present)

    def subscribed(self) -> None:
        """Do nothing: a session that ends with its connection does not keep the group alive."""
