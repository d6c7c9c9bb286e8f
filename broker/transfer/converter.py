"""The queues of this node that are becoming quorum queues: each is seen to where its messages are.

What is to be stands in definitions, wherever it was asked for.  What an earlier life
of this node was about is given up: it has all its messages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from fluffle.broker.base.logs import event
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import QueueClock
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.transfer.conversion import Conversion

REASONS_MAX = 100
"""Reasons remembered at most."""

logger = logging.getLogger(__name__)


class Converter:
    """Converter of queues, one on each node."""

    def __init__(self, runtime: Runtime, time: QueueClock) -> None:
        """`time`: that of queues here."""
        self._runtime = runtime
        self._time = time
        self._metadata: Metadata
        """Once it is open."""
        self._boot: int | None = None
        """Boot of the node; None until definitions are up to date."""
        self._running: dict[tuple[str, str], Conversion] = {}
        self._reasons: dict[int, str] = {}
        """Reasons of failed conversions, by the id of the successor."""

    def open(self, boot: int, metadata: Metadata, vhosts: Iterable[VirtualHost]) -> None:
        """Begin to do what definitions ask for.  `boot`: 0 for a single node."""
        self._boot = boot
        self._metadata = metadata
        for vhost in vhosts:
            for name in list(vhost.successors):
                self.changing(vhost, name)

    def reason(self, successor: int) -> str | None:
        """Why a change that was seen to here has come to nothing."""
        return self._reasons.get(successor)

    def changing(self, vhost: VirtualHost, name: str) -> None:
        """Note that a queue has another successor, or none any more, or has become what it was to
        be."""
        running = self._running.get((vhost.name, name))
        if running is not None:
            running.look()
        queue = vhost.queues.get(name)
        if self._boot is None or not isinstance(queue, Queue) or queue.pause is not None:
            return
        successor = queue.definition.successor
        if successor is None:
            return
        from fluffle.broker.transfer.conversion import (  # noqa: PLC0415  slow, and seldom used
            Conversion,
            give_up,
        )

        if successor.boot != self._boot:
            decide = partial(give_up, vhost, name, successor.id)
            self._metadata.ensure(decide)
            return
        event(logger, logging.INFO, "queue_conversion_started", vhost=vhost.name, queue=name)
        conversion = Conversion(
            vhost,
            queue,
            runtime=self._runtime,
            time=self._time,
            metadata=self._metadata,
            on_end=self._ended,
        )
        self._running[conversion.key] = conversion
        conversion.begin()

    def _ended(self, conversion: Conversion) -> None:
        del self._running[conversion.key]
        vhost, queue = conversion.key
        if conversion.why is None:
            event(logger, logging.INFO, "queue_converted", vhost=vhost, queue=queue)
            return
        event(
            logger, logging.WARNING, "queue_conversion_failed",
            vhost=vhost, queue=queue, reason=conversion.why,
        )  # fmt: skip
        if len(self._reasons) >= REASONS_MAX:
            self._reasons.clear()
        self._reasons[conversion.successor] = conversion.why
