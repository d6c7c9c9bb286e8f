"""A node that was alone founds a cluster, by itself, with what is on its disk.

    catalog: facts          -->  the log of the metadata group
    journals by their logs  -->  journals by the ids of their queues
    groups of LONE          -->  the same, with this node as their only member

That is one commit: before it the data are those of a node that was alone, after it those of one of
a cluster, whose first start is still to come.  Others are let in then, with nothing on their disks:
data of two that know nothing of each other cannot be joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.cluster.data_directory import alone_from_here
from fluffle.broker.cluster.links.identity import MARK_LETTERS, marked
from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.cluster.queues.placement import ID_BITS
from fluffle.broker.cluster.single_node_quorum import LONE
from fluffle.broker.config.config import ClusterConfig
from fluffle.broker.durability.definitions.change_codec import encode_proposals
from fluffle.broker.durability.definitions.fact_codec import decode, encode
from fluffle.broker.durability.definitions.node_identity import (
    IDENTITY,
    KNOWN_PEER,
    StoreOwner,
    encode_store_owner,
)
from fluffle.broker.durability.journals.cluster_journals import JOURNAL, journal_item
from fluffle.broker.metadata.change import Change, Fact, Kind
from fluffle.broker.metadata.nodes import found
from fluffle.broker.metadata.state import MetadataState, Proposal, ProposalOutcome, place
from fluffle.broker.process.environment import OpenStore
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.log import DATA, Entry, HardState, SnapshotMeta
from fluffle.raft.log_store import Persist, Write
from fluffle.raft.ranges import Ranges
from fluffle.storage.errors import StorageError
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Batch, Store

FIRST_TERM = 1

NEVER_STARTED = 0
"""Boot counter of a node that never started as a member of a cluster."""

FACTS_MAX = 256
FACT_BYTES_MAX = 1 << 20
"""In one entry; a fact that is larger has one for itself."""

DrawBits = Callable[[int], int]


def take_along(data_dir: Path, open_store: OpenStore, founder: Bootstrap) -> None:
    """Have what a node that was alone has left be that of a cluster.  It must not run.

    StartFailed unless it is the first of the founders: without that one no other node founds any,
    so the others find this cluster, and join it.  `StorageError`.
    """
    node, cluster = founder.node, founder.cluster
    if next(iter(cluster.peers), None) != node:
        raise StartFailed(refusal(data_dir, node, cluster))
    failed: list[StorageError] = []
    store = open_store(failed.append)
    try:
        move(store, founder)
    finally:
        store.close()
    if failed:
        raise failed[0]


def refusal(data_dir: Path, node: NodeId, cluster: ClusterConfig) -> str:
    """Error text for a lone node's data, with the advice what to do instead."""
    if node not in cluster.peers:
        return (
            f"{data_dir} holds the data of a node that was alone, and the cluster that '{node}' is "
            "to join has definitions of its own; name an empty --data-dir (`fluffle definitions "
            "export` before takes definitions along)"
        )
    others = ", ".join(sorted(cluster.peers.keys() - {node}))
    return (
        f"{data_dir} holds the data of a node that was alone, and what it has cannot be joined "
        f"with what others begin with; to keep it, name '{node}' first in the --peers of all nodes "
        f"({node}={cluster.peers[node]}), and start the others ({others}) with an empty --data-dir "
        "each: they join it; else name an empty --data-dir"
    )


class Bootstrap:
    """Bootstrap of a cluster by one node, from what is on its disk."""

    def __init__(self, node: NodeId, cluster: ClusterConfig, draw_bits: DrawBits) -> None:
        self.node = node
        self.cluster = cluster
        self._draw_bits = draw_bits

    @property
    def owned(self) -> StoreOwner:
        """Owner of the data from now on; the first start is still to be counted."""
        mark = f"{self._draw_bits(4 * MARK_LETTERS):0{MARK_LETTERS}x}"
        return StoreOwner(self.node, marked(self.cluster.name, mark), NEVER_STARTED, ())

    def placed(self, definition: QueueDefinition) -> QueueDefinition:
        """A queue of this node, as the cluster knows it."""
        node, here = self.node, ((self.node, 1),)
        if definition.spec.queue_type is QueueType.QUORUM:
            return definition._replace(
                founders=(node,), members=here, lives=here, wanted=(node,), leader=node
            )
        return definition._replace(
            groups=(), id=self._draw_bits(ID_BITS), home=node, successor=None
        )

    def proposals(self, facts: Iterable[Fact]) -> Iterator[Proposal]:
        """The definitions, as changes that it has asked for."""
        known = found({}, self.cluster.peers)
        ordered = (*known.puts, *sorted(facts, key=place))
        for number, puts in enumerate(parts_of(ordered), start=1):
            yield Proposal(self.node, NEVER_STARTED, number, number, Change(puts=puts), ())


def parts_of(facts: Iterable[Fact]) -> Iterator[tuple[Fact, ...]]:
    """Yield facts by the entry: not too many, and not too large together."""
    part: list[Fact] = []
    size_bytes = 0
    for fact in facts:
        fact_bytes = len(encode(fact.kind, fact.value))
        if part and (len(part) == FACTS_MAX or size_bytes + fact_bytes > FACT_BYTES_MAX):
            yield tuple(part)
            part, size_bytes = [], 0
        part.append(fact)
        size_bytes += fact_bytes
    if part:
        yield tuple(part)


def move(store: Store, founder: Bootstrap) -> None:
    """Submit all of it as one batch."""
    log = RaftLog(store, flush=store.flush)
    groups = log.load().groups
    beside, facts = Batch(), []
    for kind, name, fact in facts_of(store):
        beside.remove(kind, name)
        if isinstance(fact.value, QueueDefinition):
            placed = founder.placed(fact.value)
            if fact.value.groups:
                beside.put(JOURNAL, *journal_item(placed.id, fact.value.groups))
            fact = fact._replace(value=placed)
        facts.append(fact)
    beside.remove(KNOWN_PEER, LONE.encode())
    beside.put(IDENTITY, b"", encode_store_owner(founder.owned))
    writes = [definitions(founder, facts)]
    for each in groups:
        writes += alone_from_here(each, LONE, name=founder.node, terms=1)
    log.submit(Persist(1, writes), beside)


def facts_of(store: Store) -> Iterator[tuple[Kind, bytes, Fact]]:
    """Facts of all definitions on disk, each with its kind and stored name."""
    for kind in Kind:
        for name, value in store.catalog.items(kind):
            yield kind, name, Fact(kind, *decode(kind, name, value))


def definitions(founder: Bootstrap, facts: Iterable[Fact]) -> Write:
    """The metadata group, with all that is defined in its log."""
    state, entries = MetadataState(), []
    for index, proposal in enumerate(founder.proposals(facts), start=1):
        if state.apply(proposal) is not ProposalOutcome.APPLIED:
            raise AssertionError("what a node has defined is not whole")
        entries.append(Entry(index, FIRST_TERM, DATA, encode_proposals([proposal])))
    return Write(
        METADATA_GROUP,
        created_as=1,
        install=SnapshotMeta(0, 0, Configuration.initial((founder.node,)), Ranges(), 0, 0),
        entries=entries,
        hard_state=HardState(FIRST_TERM, None),
    )
