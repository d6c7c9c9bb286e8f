"""In which life of a node its data are: a start is the next one.

It is safe on disk before the node says a word to another, so that no two lives of one node are
taken for one, and a node that knew a life that this disk does not remember is believed.  The file
is marked as well: a copy of it, made within a life, would remember that life and lack the end of
it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.links.identity import Boot, Boots, Identity
from fluffle.broker.config.config import ClusterConfig, Config
from fluffle.broker.config.start_error import StartFailed
from fluffle.broker.durability.definitions.node_identity import NodeIdentity, StoreOwner
from fluffle.broker.queues.quorum.encoding import VERSION
from fluffle.raft.config import NodeId
from fluffle.storage.file_mark import FileMark

logger = logging.getLogger(__name__)


class BootRecord(NamedTuple):
    """The present boot of a node, as its data directory records it."""

    identity: Identity
    lives: Boots
    """Those that its disk remembers, this one at the end."""


class DiskAtStart(NamedTuple):
    """The state of a disk before anything is written to it in a life."""

    commit: int
    """The number of the last commit on it."""
    mark: FileMark | None
    """The mark that sets its file apart; None where there is no file, as in memory."""


def begin_boot(
    kept: NodeIdentity, config: Config, cluster: ClusterConfig, nonce: bytes, disk: DiskAtStart
) -> BootRecord:
    """The identity of a node in the life that begins, for which `nonce` was drawn; it is not on
    disk yet.

    Of which cluster it is says its disk alone.  StartFailed if the data are another's, or not those
    that the node has written but a copy.
    """
    node = config.node_name
    owned = kept.owned or StoreOwner(node, cluster.name, 0, ())
    if owned.node != node:
        raise StartFailed(
            f"{config.data_dir} holds the data of node '{owned.node}', not of '{node}'; correct "
            "--node, or name another place with --data-dir"
        )
    name = owned.cluster.partition(" ")[0]
    if name != cluster.name:
        raise StartFailed(
            f"{config.data_dir} holds the data of a node of cluster '{name}', not of "
            f"'{cluster.name}'; correct --cluster-name, or name another place with --data-dir"
        )
    if owned.mark is not None and disk.mark is not None and owned.mark.is_other(disk.mark):
        raise StartFailed(copied(config.data_dir, node))
    if disk.mark is not None and not disk.mark.is_conclusive:
        event(logger, logging.WARNING, "copies_not_recognised", data_dir=config.data_dir)
    lives = Boots(owned.boot, owned.nonces, owned.began).followed_by(nonce, disk.commit)
    kept.put(
        owned._replace(boot=lives.count, nonces=lives.nonces, began=lives.began, mark=disk.mark)
    )
    return BootRecord(Identity(owned.cluster, node, Boot(lives.count, nonce), VERSION), lives)


def copied(data_dir: Path, node: NodeId) -> str:
    """Advice for the operator where there is a copy of what a node has written."""
    return (
        f"{data_dir} holds a copy of what node '{node}' has written, not the file itself. If it "
        "may lack anything that the node did later (a backup, a copy made while it ran), run "
        f"`fluffle data restored --data-dir {data_dir}`: the node joins with nothing, and gets "
        "definitions and quorum queues from the others; its classic queues, and all others that "
        "are on it alone, are lost with that, unless you save them as that command says. Only if "
        "the node was stopped and its data moved here since, run "
        f"`fluffle data moved --data-dir {data_dir}`"
    )
