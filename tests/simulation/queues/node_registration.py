"""How a node comes to be known to all in its present life: as `Cluster.enter`, but for the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import set_vhost
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.metadata.nodes import enter, found
from fluffle.raft.config import NodeId
from tests.simulation.process import Process

VHOST = "/"
RETRY_S = 0.1
AGAIN_S = 0.01


class NodeRegistration:
    """Registration of one process in the metadata."""

    def __init__(
        self,
        process: Process,
        metadata: Metadata,
        catalogue: Catalogue,
        names: Sequence[NodeId],
        *,
        call_later: Callable[[float, Callable[[], None]], object],
        entered: Callable[[], None],
    ) -> None:
        """`entered` is called once what all knew then is applied here."""
        self._process = process
        self._metadata = metadata
        self._catalogue = catalogue
        self._founders = {name: ListenAddress(name, 1) for name in names}
        self._call_later = call_later
        self._entered = entered

    def begin(self) -> None:
        self._metadata.change(self._next, self._look, self._later)

    def _next(self) -> Change:
        """All are founders; whoever comes first says so, and what all queues are in."""
        nodes = self._catalogue.nodes.entries
        founding = found(nodes, self._founders)
        if not founding.changes_nothing:
            return founding
        if VHOST not in self._catalogue.vhosts:
            return set_vhost(self._catalogue, VHOST, metadata={})
        return enter(nodes, self._process.node, self._process.boot, b"drawn")

    def _look(self) -> None:
        """Something has become known: maybe that this node is here."""
        known = self._catalogue.nodes.entries.get(self._process.node)
        if known is not None and known.boot == self._process.boot:
            self._entered()
        else:
            self._call_later(AGAIN_S, self.begin)

    def _later(self, _error: BrokerError) -> None:
        self._call_later(RETRY_S, self.begin)
