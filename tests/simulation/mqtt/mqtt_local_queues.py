"""Clients of MQTT whose queues are at one node: for QoS 0, and of sessions without expiry.

- What was published with QoS 0 comes at most once, and as QoS 0.
- A session without a queue but that of QoS 0 is there as long as the disk of the queue's node.
- A session that ends with its connection is never present.  As long as the connection is there, all
  comes that is acknowledged, of QoS 2 once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.base.queue_names import subscription_queue
from fluffle.protocol.mqtt.packets import Publish
from fluffle.protocol.mqtt.reader import Publishes
from tests.simulation.facts import Violation
from tests.simulation.mqtt.mqtt_members import SimulatedPublisher, SimulatedSubscriber, number_of

if TYPE_CHECKING:
    from tests.simulation.mqtt.mqtt_clients import Clients


class PublisherOfQos0(SimulatedPublisher):
    """Publisher of numbered messages, of which nothing is acknowledged."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients, "p0", 0)

    @property
    def is_done(self) -> bool:
        return True

    def go_on(self) -> None:
        clients = self.node
        is_wanted = not all(each.is_done for each in clients.qos0_subscribers)
        if (clients.is_over and is_wanted) or (not clients.is_over and clients.wants_message()):
            number = self.next_number
            self.next_number += 1
            self.send(Publish(self.topic_of(number), self.payload_of(number)))


class SubscriberOfQos0(SimulatedSubscriber):
    """Subscriber of QoS 0 with a session that lasts."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients, "s0", "+", 0)
        self._queue_id = 0
        """Its queue, as it was when it has subscribed last; 0 is none."""
        self._home: tuple[str, int] | None = None
        """Node of that queue, and the file that it had on its disk."""
        self._disks: dict[str, int] = {}
        """Disks of all nodes when it has asked for the subscription first, since it had it last."""
        self._has_heard = False
        """True if it was sent a message since all is well again."""

    @property
    def is_done(self) -> bool:
        return self.is_subscribed and not self.held and self._has_heard

    def lacking(self) -> list[str]:
        return [] if self._has_heard else ["any message of QoS 0"]

    def ask(self) -> None:
        self._disks = self._disks or self.node.disks()
        super().ask()

    def subscribed(self) -> None:
        """Note where its queue is, which may be one that was there before: its node may have
        another disk by now, and not say yet that the queue is gone."""
        super().subscribed()
        assert self.line is not None
        queue = self.line.node.catalogue.vhosts["/"].queues.get(subscription_queue(self.name, 0))
        if queue is None:
            self._queue_id, self._home = 0, None
        elif queue.definition.id != self._queue_id:
            home = queue.definition.home
            self._queue_id, self._home = queue.definition.id, (home, self._disks[home])
        self._disks = {}

    def let_in(self, *, present: bool) -> None:
        home = self._home
        if home is None or self.node.disks()[home[0]] != home[1]:
            self.may_be_lost = True
        super().let_in(present=present)

    def take(self, packet: Publishes, payload: bytes) -> None:
        super().take(packet, payload)
        sender = payload.partition(b"/")[0]
        if self.node.is_over and sender == b"p0" and number_of(payload) >= self.node.served_of_qos0:
            self._has_heard = True


class CleanSubscriber(SimulatedSubscriber):
    """Subscriber whose session ends with its connection."""

    def __init__(self, clients: Clients, qos: int) -> None:
        super().__init__(clients, f"e{qos}", "+", qos)

    def connect(self) -> None:
        clean_start = self.node.other_chance.random() < 0.5
        self.line = self.node.begin(self.name, clean_start=clean_start, expiry_s=0, receive_max=2)
        self.is_let_in = False

    def let_in(self, *, present: bool) -> None:
        if present:
            raise Violation(f"mqtt: {self.name} has a session that has ended")
        self.may_be_lost = True
        super().let_in(present=present)
