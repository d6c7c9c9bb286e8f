"""Data directories of a cluster's nodes, changed while their nodes do not run.

    moved      the node was stopped, and these are its data: it goes on with them
    restored   they may lack what the node did later: they are set aside, and it joins with nothing
    salvage    a majority of the other nodes is lost for good: this node goes on alone

To salvage, each group on the disk gets a configuration in which this node is the only voter, as its
next entry.  Whatever the others have confirmed and this disk does not have is gone.  Should one of
them come back, it must not be heard: the cluster gets another mark, so that links with it are
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from fluffle.broker.durability.definitions.node_identity import (
    IDENTITY,
    StoreOwner,
    encode_store_owner,
    store_owner_of,
)
from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.election import TERM_STEP
from fluffle.raft.log import CONFIG, Entry, GroupId, HardState
from fluffle.raft.log_store import Persist, RecoveredGroup, Write
from fluffle.storage.environment import STORE_FOLDER, data_file, read_environment
from fluffle.storage.errors import StorageError
from fluffle.storage.file_mark import mark_of
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Batch, Catalog, open_store

SET_ASIDE = f"{STORE_FOLDER}.restored"

COMPACTED = (
    "{data_dir} was made by a tool that writes the store anew (as `mdb_copy -c`): its commits are "
    "counted from 1 again, so that the other nodes would take it for an earlier state; copy the "
    "files as they are"
)


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
