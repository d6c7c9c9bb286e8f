"""`identity.json`: whose data a directory holds, and how often that node has been started.

The counter is raised and safe on disk before the node says a word to another, so that no two lives
of one node are taken for one, and a disk that was wiped or rolled back is known by it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from fluffle.broker.cluster.links.identity import Boot, Identity, marked
from fluffle.broker.config import IDENTITY_FILE, ClusterConfig
from fluffle.broker.starting import StartFailed


class Owned(NamedTuple):
    """What the file says."""

    node: str
    cluster: str
    """With the mark of those who found it, as at the first start."""
    boot: int
    """How often it has been started."""


def begin_life(data_dir: Path, node: str, cluster: ClusterConfig, nonce: bytes) -> Identity:
    """Who a node is in the life that begins, for which `nonce` was drawn.  StartFailed."""
    founders = cluster.peers if node in cluster.peers else ()
    owned = raise_boot(data_dir, node, marked(cluster.name, founders))
    return Identity(owned.cluster, node, Boot(owned.boot, nonce))


def refuse_alone(data_dir: Path) -> None:
    """StartFailed if these are the data of a node of a cluster."""
    if found := read_identity(data_dir):
        raise StartFailed(
            f"{data_dir} holds the data of node '{found.node}' of a cluster; name its nodes with "
            "--peers, or another place with --data-dir"
        )


def raise_boot(data_dir: Path, node: str, cluster: str) -> Owned:
    """Count this start of `node`; what is so from now on.  Waits for the disk.

    `cluster` is marked with those who found it; what the first start was told of them counts.
    StartFailed if the data are another's, or the file cannot be read.
    """
    owned = read_identity(data_dir) or Owned(node, cluster, 0)
    if owned.node != node:
        raise StartFailed(
            f"{data_dir} holds the data of node '{owned.node}', not of '{node}'; correct --node, "
            "or name another place with --data-dir"
        )
    name, expected = (each.partition(" ")[0] for each in (owned.cluster, cluster))
    if name != expected:
        raise StartFailed(
            f"{data_dir} holds the data of a node of cluster '{name}', not of '{expected}'; "
            "correct --cluster-name, or name another place with --data-dir"
        )
    raised = owned._replace(boot=owned.boot + 1)
    write_identity(data_dir, raised)
    return raised


def write_identity(data_dir: Path, owned: Owned) -> None:
    """From now on this is so.  Waits for the disk.  OSError."""
    write_safely(data_dir / IDENTITY_FILE, json.dumps(owned._asdict()).encode() + b"\n")


def read_identity(data_dir: Path) -> Owned | None:
    """What is there; None if no node of a cluster has ever run in this directory.  StartFailed."""
    file = data_dir / IDENTITY_FILE
    try:
        return _owned_of(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StartFailed(
            f"cannot read {file} ({error}), without which nobody knows how often this node was "
            "started; restore it, or have the cluster forget the node and let it join anew with "
            "an empty --data-dir"
        ) from error


def _owned_of(fields: Any) -> Owned:
    owned = Owned(fields["node"], fields["cluster"], fields["boot"])
    if type(owned.boot) is not int or owned.boot < 1:
        raise ValueError("it was never started")
    return owned


def write_safely(file: Path, content: bytes) -> None:
    """Replace a file: whatever happens, it has the old content or the new one.  OSError."""
    draft = file.with_suffix(".tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
