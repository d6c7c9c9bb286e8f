"""Commands for a data directory that is not the one that its node has written to.

moved     the node was stopped, and these are its data: it goes on with them
restored  they may lack what the node did later: they are set aside, and it joins with nothing
"""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path

from fluffle.broker.durability.definitions.node_identity import (
    IDENTITY,
    StoreOwner,
    encoded,
    store_owner_of,
)
from fluffle.raft.config import NodeId
from fluffle.storage.batch import Batch
from fluffle.storage.catalog import Catalog
from fluffle.storage.environment import STORE_FOLDER, data_file, read_environment
from fluffle.storage.errors import StorageError
from fluffle.storage.file_mark import mark_of
from fluffle.storage.store import open_store

SET_ASIDE = f"{STORE_FOLDER}.restored"


COMPACTED = (
    "{data_dir} was made by a tool that writes the store anew (as `mdb_copy -c`): its commits are "
    "counted from 1 again, so that the other nodes would take it for an earlier state; copy the "
    "files as they are"
)


class NotACopy(Exception):
    """There is nothing of which that could be said; says why."""


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
        batch.put(IDENTITY, b"", encoded(owned._replace(mark=mark_of(data_file(data_dir)))))
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
            f"{data_dir} holds the data of a node that is alone: nobody else knows what it lacks, "
            "and it starts with them as they are"
        )
    return owned
