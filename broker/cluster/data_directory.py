"""Data directories of a cluster's nodes, changed while their nodes do not run.

    moved      the node was stopped, and these are its data: it goes on with them
    restored   they may lack what the node did later: they are set aside, and it joins with nothing
    salvage    a majority of the other nodes is lost for good: this node goes on alone
    founding   a node that was alone founds a cluster, by itself, with what is on its disk

To salvage, each group on the disk gets a configuration in which this node is the only voter, as its
next entry.  Whatever the others have confirmed and this disk does not have is gone.  Should one of
them come back, it must not be heard: the cluster gets another mark, so that links with it are
refused.

What a node that was alone has becomes that of the founder:

    catalog: facts          -->  the log of the metadata group
    journals by their logs  -->  journals by the ids of their queues
    groups of LONE          -->  the same, with this node as their only member

That is one commit: before it the data are those of a node that was alone, after it those of one of
a cluster, whose first start is still to come.  Others are let in then, with nothing on their disks:
data of two that know nothing of each other cannot be joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.cluster.links.identity import MARK_LETTERS, marked
from fluffle.broker.cluster.ports import LONE, METADATA_GROUP
from fluffle.broker.cluster.queues.placement import ID_BITS
from fluffle.broker.config.config import ClusterConfig
from fluffle.broker.durability.change_codec import encode_proposals
from fluffle.broker.durability.fact_codec import decode, encode
from fluffle.broker.durability.local_journal import JOURNAL, journal_item
from fluffle.broker.durability.node_identity import (
    IDENTITY,
    KNOWN_PEER,
    StoreOwner,
    encode_store_owner,
    store_owner_of,
)
from fluffle.broker.metadata.change import Change, Fact, Kind
from fluffle.broker.metadata.nodes import found
from fluffle.broker.metadata.state import MetadataState, Proposal, ProposalOutcome, place
from fluffle.broker.process.environment import OpenStore
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.election import TERM_STEP
from fluffle.raft.log import CONFIG, DATA, Entry, GroupId, HardState, SnapshotMeta
from fluffle.raft.log_store import Persist, RecoveredGroup, Write
from fluffle.raft.ranges import Ranges
from fluffle.storage.environment import STORE_FOLDER, data_file, read_environment
from fluffle.storage.errors import StorageError
from fluffle.storage.file_mark import mark_of
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Batch, Catalog, Store, open_store

SET_ASIDE = f"{STORE_FOLDER}.restored"

COMPACTED = (
    "{data_dir} was made by a tool that writes the store anew (as `mdb_copy -c`): its commits are "
    "counted from 1 again, so that the other nodes would take it for an earlier state; copy the "
    "files as they are"
)

FIRST_TERM = 1

NEVER_STARTED = 0
"""Boot counter of a node that never started as a member of a cluster."""

FACTS_MAX = 256
FACT_BYTES_MAX = 1 << 20
"""In one entry; a fact that is larger has one for itself."""

DrawBits = Callable[[int], int]


class NotACopy(Exception):
    """Refusal for data that cannot be a copy, with the reason."""


class NothingToRecover(Exception):
    """A data directory with nothing to go on with; says why."""


class RecoveryReport(NamedTuple):
    """Result of making one node a cluster of its own."""

    groups: tuple[GroupId, ...]
    """Groups that go on with the data here."""
    damaged: tuple[GroupId, ...]
    """Groups whose data here is damaged: they are not recovered."""


def accept_moved(data_dir: Path) -> StoreOwner:
    """Have the file that is there be the one that the node writes to, from now on; whose it is.

    NotACopy, StorageError.
    """
    owned = owner_of(data_dir)
    failed: list[StorageError] = []
    store = open_store(data_dir, call_soon=lambda _wake: None, on_fatal=failed.append)
    try:
        if owned.began and store.disk.commit_number < owned.began[-1]:
            raise NotACopy(COMPACTED.format(data_dir=data_dir))
        batch = Batch()
        marked = owned._replace(mark=mark_of(data_file(data_dir)))
        batch.put(IDENTITY, b"", encode_store_owner(marked))
        store.submit(batch)
    finally:
        store.close()
    if failed:
        raise failed[0]
    return owned


def set_aside_restored(data_dir: Path) -> tuple[NodeId | None, Path]:
    """Have the node begin with nothing: whose data these were, and where they are now.

    Whose they were is not known if they cannot be read, as many a copy of what is being written.

    NotACopy, StorageError.
    """
    name: NodeId | None = None
    with suppress(StorageError):
        name = owner_of(data_dir).node
    places = (data_dir / f"{SET_ASIDE}-{number}" for number in count(1))
    place = next(place for place in places if not place.exists())
    try:
        (data_dir / STORE_FOLDER).rename(place)
    except OSError as error:
        raise StorageError(f"cannot set the store in {data_dir} aside: {error.strerror}") from error
    return name, place


def owner_of(data_dir: Path) -> StoreOwner:
    """The node of a cluster whose data are there.  NotACopy, StorageError."""
    if not data_file(data_dir).exists():
        raise NotACopy(f"{data_dir} holds no data of a node of a cluster")
    environment = read_environment(data_dir)
    try:
        owned = store_owner_of(Catalog(environment).items(IDENTITY))
    finally:
        environment.close()
    if owned is None:
        raise NotACopy(
            f"{data_dir} holds the data of a node that is alone: no other knows what it lacks, "
            "and it starts with them as they are"
        )
    return owned


def force_single_node(data_dir: Path, draw_mark: Callable[[], str]) -> RecoveryReport:
    """Make the node that keeps its data there the only one of its cluster.  It must not run.

    NothingToRecover, StorageError.
    """
    failed: list[StorageError] = []
    nothing = NothingToRecover(f"{data_dir} holds no data of a node of a cluster")
    if not (data_dir / STORE_FOLDER).exists():
        raise nothing
    store = open_store(data_dir, call_soon=lambda _wake: None, on_fatal=failed.append)
    try:
        owned = store_owner_of(store.catalog.items(IDENTITY))
        if owned is None:
            raise nothing
        # First: until its groups know that it is alone, no node may hear it either.
        name = owned.cluster.partition(" ")[0]
        marked = Batch()
        cluster = f"{name} {draw_mark()}"
        marked.put(IDENTITY, b"", encode_store_owner(owned._replace(cluster=cluster, mark=None)))
        store.submit(marked)
        log = RaftLog(store, flush=store.flush)
        loaded = log.load()
        writes = [
            write
            for found in loaded.groups
            for write in alone_from_here(found, owned.node, name=owned.node, terms=TERM_STEP)
        ]
        if writes:
            log.submit(Persist(1, writes))
    finally:
        store.close()
    if failed:
        raise failed[0]
    done = tuple(write.group for write in writes)
    damaged = {found.group for found in loaded.groups if found.quarantine is not None}
    return RecoveryReport(done, tuple(sorted(damaged | set(loaded.lost))))


def alone_from_here(
    found: RecoveredGroup, node: NodeId, *, name: NodeId, terms: int
) -> Iterator[Write]:
    """A group goes on with the member of `node`, which is called `name` from now on, so many terms
    later: `TERM_STEP`, if others may have had what is not here.

    Nothing for a member that waits to learn which the others are, for it has nothing, nor for one
    that is damaged.
    """
    if found.quarantine is not None:
        return
    configs = [
        found.snapshot.config,
        *(Configuration.decode(entry.payload) for entry in found.configs),
    ]
    active = configs[-1]
    me = active.member_on(node)
    if me is None or me.incarnation != found.incarnation:
        return
    alone = Configuration((Member(name, me.incarnation),), (), active.top_incarnation)
    last_term = found.terms[-1][1] if found.terms else found.snapshot.term
    term = max(last_term, found.hard_state.term) + terms
    entry = Entry(found.last_index + 1, term, CONFIG, alone.encode())
    yield Write(found.group, entries=[entry], hard_state=HardState(term, None))


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
        found_cluster(store, founder)
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


def found_cluster(store: Store, founder: Bootstrap) -> None:
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
