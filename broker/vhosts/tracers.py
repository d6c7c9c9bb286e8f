"""Tracers of a virtual host: they see what its clients publish, are given and purge on this node.

The firehose is one (`core.firehose`).  Each is there under a name, and knows nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.broker.queues.queue_api import DeliveryBatch, QueueHandle


class TracedClient(NamedTuple):
    """Client that publishes, is given messages, or purges a queue."""

    connection: str
    channel: int
    """0 where its protocol has none."""
    user: str
    is_transactional: bool = False
    """Whether what it publishes waits for a commit."""


class TracedBatch(Protocol):
    """Messages that go to the same queues, as `RoutedBatch` has them."""

    @property
    def origins(self) -> Sequence[Origin]: ...

    @property
    def contents(self) -> Sequence[bytes]: ...

    @property
    def places(self) -> Sequence[int]:
        """Where each message stands among those that are published together."""

    @property
    def targets(self) -> Sequence[PublishTarget]: ...

    @property
    def mandatory(self) -> bool: ...


class Tracer(Protocol):
    """Sees what clients of a virtual host on this node publish, are given and purge."""

    def published(
        self,
        client: TracedClient,
        routed_batches: Sequence[TracedBatch],
        more_routing_keys: Sequence[str],
    ) -> None:
        """A client has published messages, which are about to be put into queues.  All have
        `more_routing_keys`, of CC and BCC."""

    def delivered(
        self, client: TracedClient, delivery_batch: DeliveryBatch, first_tag: int
    ) -> None:
        """A client is about to be given messages of a queue, with delivery tags from this one."""

    def purging(self, client: TracedClient, queue: QueueHandle) -> Callable[[], None]:
        """A client purges a queue: what comes from now on stays.  What is returned is called once
        that is done, if it is."""


class Tracers:
    """Several tracers used as one."""

    __slots__ = ("_tracers",)

    def __init__(self, tracers: Sequence[Tracer]) -> None:
        self._tracers = tracers

    def published(
        self,
        client: TracedClient,
        routed_batches: Sequence[TracedBatch],
        more_routing_keys: Sequence[str],
    ) -> None:
        for each in self._tracers:
            each.published(client, routed_batches, more_routing_keys)

    def delivered(
        self, client: TracedClient, delivery_batch: DeliveryBatch, first_tag: int
    ) -> None:
        for each in self._tracers:
            each.delivered(client, delivery_batch, first_tag)

    def purging(self, client: TracedClient, queue: QueueHandle) -> Callable[[], None]:
        all_done = [each.purging(client, queue) for each in self._tracers]

        def done() -> None:
            for each in all_done:
                each()

        return done


class TracedVhost(Protocol):
    """Virtual host that tracers see."""

    tracers: dict[str, Tracer]
    tracer: Tracer | None
    """All of them as one."""


def set_tracer(vhost: TracedVhost, name: str, tracer: Tracer | None) -> None:
    """Have this tracer under a name from now on, or none."""
    if tracer is not None:
        vhost.tracers[name] = tracer
    else:
        vhost.tracers.pop(name, None)
    tracers = tuple(vhost.tracers.values())
    vhost.tracer = tracers[0] if len(tracers) == 1 else Tracers(tracers) if tracers else None
