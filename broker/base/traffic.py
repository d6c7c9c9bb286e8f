"""Counters of the messages that have passed through this node since it started.

Plain integers, raised by the parts that do the work: once for a run of messages, never for each of
them. They are read for metrics alone.

A new counter needs a field here, the place that raises it (`runtime.traffic`), a family in
`metrics/collector` (`groups` for Raft and links), and its row in docs/metrics.md.
`statistics/counters` are others: those of the management API, with their history.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from fluffle.storage.histogram import Histogram

SIZES = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 5e7, 1e8)
"""RabbitMQ's bounds of the sizes of messages, in bytes."""


class DropReason(StrEnum):
    """Why messages that died are not in a queue where they should be, as metrics and logs say."""

    CYCLE = "cycle"
    """The dead letters would go round for ever."""
    NO_ROOM = "no_room"
    """The target queue has had no room for long."""
    NO_ROUTE = "no_route"
    """The dead letters are unroutable.  Those that must arrive wait then; delayed messages are
    dropped."""
    REFUSED = "refused"
    """The target queue is full, or its node is unreachable; or it is unknown whether it has
    them."""


class ClientDrop(StrEnum):
    """Why messages are dropped between a client and its queues, where its protocol cannot refuse
    them, as metrics say."""

    NOT_AUTHORIZED = "not_authorized"
    """The client may not publish them."""
    NOT_RETAINED = "not_retained"
    """The store of retained messages has no room; the messages are delivered all the same."""
    PACKET_TOO_LARGE = "packet_too_large"
    """The messages are larger than what the client takes."""
    TOPIC_TOO_LONG = "topic_too_long"
    """The topic is longer than a routing key of AMQP: the messages go to subscribers with topic
    filters alone."""


DISABLED = "disabled"
"""The strategy of queues without a dead-letter exchange, and of those whose exchange is not there,
in RabbitMQ's metrics."""


@dataclass(slots=True, eq=False)
class Deaths:
    """Messages that died in queues."""

    died: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Dead letters by the type of their queue, its strategy or `DISABLED`, and the reason: counted
    when their leader sent them for the first time."""
    confirmed: int = 0
    """Dead letters that had to arrive, and did."""
    dropped: Counter[DropReason] = field(default_factory=Counter)


class Ledger(Protocol):
    """Publishes of a channel in confirm mode, each time they are read."""

    @property
    def assigned_count(self) -> int:
        """Number of publishes that were given a sequence number."""

    @property
    def accepted_count(self) -> int:
        """Number of publishes that were confirmed."""

    @property
    def open_count(self) -> int:
        """Number of publishes that are neither confirmed nor refused."""


@dataclass(slots=True, eq=False)
class Deliveries:
    """Messages on their way to clients, from queues of one type."""

    consumed_auto_ack: int = 0
    consumed_manual_ack: int = 0
    got_auto_ack: int = 0
    got_manual_ack: int = 0
    get_empty: int = 0
    """Times that basic.get found nothing."""
    redelivered: int = 0
    """Deliveries, of all these, of messages that had been delivered before."""
    acknowledged: int = 0
    timed_out: int = 0
    """Messages that went back because their clients held them for too long."""

    @property
    def delivered(self) -> int:
        return (
            self.consumed_auto_ack
            + self.consumed_manual_ack
            + self.got_auto_ack
            + self.got_manual_ack
        )


class TrafficLabels(NamedTuple):
    """Labels of a protocol in RabbitMQ's metrics."""

    messages: str
    logins: str
    """Label of the protocol's logins, the same for all its versions."""


AMQP_091 = TrafficLabels("amqp091", "amqp091")
"""AMQP 0-9-1; clients of RabbitMQ's HTTP API are counted so, too."""


class Logins:
    """Attempts to log in, by one protocol in any of its versions."""

    __slots__ = ("failed", "succeeded")

    def __init__(self) -> None:
        self.succeeded = self.failed = 0

    @property
    def attempted(self) -> int:
        return self.succeeded + self.failed


@dataclass(slots=True, eq=False)
class ClientTraffic:
    """Counters of what the clients of one protocol have published and were given."""

    protocol: str = AMQP_091.messages
    """Label of the protocol in metrics."""
    received: int = 0
    """Messages that publishers sent and that passed all checks."""
    sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    """Sizes of their bodies, where known: those that came and went together count as equally
    large."""
    received_confirm: int = 0
    """Messages on channels in confirm mode that have ended."""
    confirmed: int = 0
    """Messages confirmed on channels that have ended."""
    ledgers: set[Ledger] = field(default_factory=set)
    """Ledgers of the open channels in confirm mode."""
    routed: int = 0
    """Messages put into queues; one that went into three counts three times."""
    unroutable_dropped: int = 0
    unroutable_returned: int = 0
    from_queues: Deliveries = field(default_factory=Deliveries)
    """Deliveries of classic queues."""
    from_quorum_queues: Deliveries = field(default_factory=Deliveries)
    from_qos0_queues: Deliveries = field(default_factory=Deliveries)
    """Deliveries of queues for QoS 0 of MQTT."""
    replies: Deliveries = field(default_factory=Deliveries)
    """Deliveries of direct reply-to, past any queue."""
    past_queues: int = 0
    """Retained messages that were sent to clients, and figures of the broker."""
    sent_bytes: int = 0
    """Octets of the bodies that were sent to clients; counted for MQTT alone."""
    dropped: Counter[ClientDrop] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class Traffic:
    """All counters of a node: those of its connections and queues, and those of each protocol.

    A session takes those of its protocol once, so that to count costs no more than one object.
    """

    connections_opened: int = 0
    """Connections that got as far as a session."""
    connections_closed: int = 0
    """Sessions that have ended, of `connections_opened`."""
    channels_opened: int = 0
    channels_closed: int = 0
    logins: dict[str, Logins] = field(default_factory=dict)
    """Logins by label of their protocol, all versions together; see `logins_of`."""
    protocols: dict[str, ClientTraffic] = field(default_factory=dict)
    """Traffic of clients by the protocol's label in metrics; see `of`."""
    deaths: Deaths = field(default_factory=Deaths)
    duplicates: Counter[str] = field(default_factory=Counter)
    """Messages that queues have dropped because they had had them before, by their type."""

    def __post_init__(self) -> None:
        self.show(AMQP_091)

    def show(self, labels: TrafficLabels) -> None:
        """Have a protocol in metrics from now on, whether any client speaks it or not."""
        self.of(labels)
        self.logins_of(labels)

    def of(self, labels: TrafficLabels) -> ClientTraffic:
        """Return the counters of a protocol; from the first call on they are in metrics."""
        found = self.protocols.get(labels.messages)
        if found is None:
            found = self.protocols[labels.messages] = ClientTraffic(labels.messages)
        return found

    def logins_of(self, labels: TrafficLabels) -> Logins:
        """Return the attempts of a protocol, likewise."""
        found = self.logins.get(labels.logins)
        if found is None:
            found = self.logins[labels.logins] = Logins()
        return found

    @property
    def routed(self) -> int:
        """Messages that clients of all protocols have put into queues."""
        return sum(each.routed for each in self.protocols.values())

    def dropped_duplicates(self, queue_type: str, count: int) -> None:
        """A queue that is led here has dropped some."""
        self.duplicates[queue_type] += count
