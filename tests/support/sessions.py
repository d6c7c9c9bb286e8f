"""A client without a socket, and its session."""

from __future__ import annotations

from fluffle.broker.access.access import User
from fluffle.broker.base.traffic import AMQP_091
from fluffle.broker.core.client import Handshake
from fluffle.broker.core.session import Session
from fluffle.broker.queues.publish_target import BackloggedTarget
from tests.support.edge import Edge


class FakeClient:
    """Client that is never held up: a `core.client.Client`."""

    name = "127.0.0.1:40000 -> 127.0.0.1:5672"
    ends = ("127.0.0.1", 40_000), ("127.0.0.1", 5672)
    kind = "network"
    protocol = "AMQP 0-9-1"
    traffic_labels = AMQP_091
    is_encrypted = False
    heartbeat_s = read_bytes = written_bytes = 0
    close_reason = "done"

    def __init__(self) -> None:
        self.handshake = Handshake()
        self.behind: list[tuple[str, int]] = []
        """Queues that were behind when it had just put so many messages into them."""

    def on_behind(self, target: BackloggedTarget, count: int) -> None:
        self.behind.append((getattr(target, "name", ""), count))

    def on_disk_behind(self) -> None: ...


def session_of(edge: Edge, user: User | None = None, client: FakeClient | None = None) -> Session:
    """The session of a client that has logged in, by default as guest."""
    return Session(
        user=user or edge.access.users["guest"],
        vhost=edge.vhost,
        services=edge.services,
        client=client or FakeClient(),
    )
