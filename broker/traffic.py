"""What has passed through this node since it started.

Plain integers, raised by whoever does the work: once for a run of messages, never for each of them.
Nobody looks at them but who asks for metrics.
"""

from typing import Protocol


class Ledger(Protocol):
    """Publishes of a channel in confirm mode, each time somebody asks."""

    @property
    def assigned_count(self) -> int:
        """All of them."""

    @property
    def accepted_count(self) -> int:
        """Those that were confirmed."""

    @property
    def open_count(self) -> int:
        """Those that are neither confirmed nor refused."""


class Deliveries:
    """Messages on their way to clients, from queues of one type."""

    __slots__ = (
        "acknowledged",
        "consumed_auto_ack",
        "consumed_manual_ack",
        "get_empty",
        "got_auto_ack",
        "got_manual_ack",
        "redelivered",
    )

    def __init__(self) -> None:
        self.consumed_auto_ack = 0
        self.consumed_manual_ack = 0
        self.got_auto_ack = 0
        self.got_manual_ack = 0
        self.get_empty = 0
        """Times that basic.get found nothing."""
        self.redelivered = 0
        """Of all these, those that had been delivered before."""
        self.acknowledged = 0

    @property
    def delivered(self) -> int:
        return (
            self.consumed_auto_ack
            + self.consumed_manual_ack
            + self.got_auto_ack
            + self.got_manual_ack
        )


class Traffic:
    """All counters of a node."""

    __slots__ = (
        "channels_closed",
        "channels_opened",
        "confirmed",
        "connections_closed",
        "connections_opened",
        "from_queues",
        "from_quorum_queues",
        "ledgers",
        "logins_failed",
        "logins_succeeded",
        "received",
        "received_confirm",
        "replies",
        "routed",
        "unroutable_dropped",
        "unroutable_returned",
    )

    def __init__(self) -> None:
        self.connections_opened = 0
        """Connections that got as far as connection.open-ok."""
        self.connections_closed = 0
        """Of these, those that have ended."""
        self.channels_opened = 0
        self.channels_closed = 0
        self.logins_succeeded = 0
        self.logins_failed = 0
        self.received = 0
        """Messages that publishers sent and that passed all checks."""
        self.received_confirm = 0
        """Messages on channels in confirm mode that have ended."""
        self.confirmed = 0
        """As `received_confirm`, of those that were confirmed."""
        self.ledgers: set[Ledger] = set()
        """Of the channels in confirm mode that are open."""
        self.routed = 0
        """Messages put into queues; one that went into three counts three times."""
        self.unroutable_dropped = 0
        self.unroutable_returned = 0
        self.from_queues = Deliveries()
        """What classic queues delivered."""
        self.from_quorum_queues = Deliveries()
        self.replies = Deliveries()
        """What direct reply-to delivered, past any queue."""
