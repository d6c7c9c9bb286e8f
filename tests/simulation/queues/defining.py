"""What clients and operators of one node ask of definitions, as they do where nobody simulates.

Whoever asks waits for nothing: it looks at what is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from fluffle.broker import deciding
from fluffle.broker.control.members import Redefine
from fluffle.broker.deciding import redefinition
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.deciding import set_vhost
from fluffle.broker.errors import BrokerError
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.changing import Metadata
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.vhost import VirtualHost
from fluffle.protocol.types import FieldTable
from tests.simulation.queues.entering import VHOST


class Defining:
    """At one node."""

    def __init__(self, catalogue: Catalogue, metadata: Metadata, everywhere: Metadata) -> None:
        """`everywhere` answers once all have it, `metadata` once it is so here."""
        self._catalogue = catalogue
        self._metadata = metadata
        self._everywhere = everywhere

    @property
    def vhost(self) -> VirtualHost | None:
        return self._catalogue.vhosts.get(VHOST)

    def change(self, decide: Callable[[VirtualHost], Change]) -> None:
        """Have definitions changed."""
        vhost = self.vhost
        if vhost is not None:
            with contextlib.suppress(BrokerError):
                self._everywhere.change(partial(decide, vhost), done, failed)

    def declare(self, name: str, arguments: FieldTable) -> None:
        """Unless it is there, whatever it is like."""
        declared = Declaration(name, durable=True, arguments=arguments)
        if self.vhost is not None and name not in self.vhost.queues:
            self.change(lambda vhost: deciding.declare_queue(vhost, declared, None))

    def delete(self, name: str) -> None:
        def decide(vhost: VirtualHost) -> Change:
            queue = vhost.queues.get(name)
            return NOTHING if queue is None else deciding.delete_queue(vhost, queue)

        self.change(decide)

    def redefine_queue(self, name: str, redefine: Redefine) -> None:
        """An operator wants it otherwise."""

        def decide(vhost: VirtualHost) -> Change:
            queue = vhost.queues.get(name)
            if queue is None:
                return NOTHING
            after = redefine(queue.definition)
            return NOTHING if after == queue.definition else redefinition(VHOST, after)

        self.change(decide)

    def touch(self, number: int) -> None:
        """A change that makes no difference."""
        tags = {"tags": [f"{number}"]}
        self._metadata.change(
            lambda: set_vhost(self._catalogue, VHOST, metadata=tags), done, failed
        )


def done() -> None:
    """Whoever waited for it looks at what is there."""


def failed(_error: BrokerError) -> None:
    """It may have been somebody else's turn, or too late."""
