"""In which life of a node its data are: a start is the next one.

It is safe on disk before the node says a word to another, so that no two lives of one node are
taken for one, and whoever knew a life that this disk does not remember is believed.
"""

from __future__ import annotations

from typing import NamedTuple

from fluffle.broker.cluster.links.identity import Boot, Identity, Lives, marked
from fluffle.broker.config import ClusterConfig, Config
from fluffle.broker.queues.replicated.encoding import VERSION
from fluffle.broker.recording.identity import Owned, OwnIdentity
from fluffle.broker.starting import StartFailed


class Life(NamedTuple):
    """One of a node."""

    identity: Identity
    lives: Lives
    """Those that its disk remembers, this one at the end."""


def begin_life(kept: OwnIdentity, config: Config, cluster: ClusterConfig, nonce: bytes) -> Life:
    """Who a node is in the life that begins, for which `nonce` was drawn; it is not on disk yet.

    What the first start was told of those who found the cluster counts.  StartFailed if the data
    are another's.
    """
    node = config.node_name
    mark = marked(cluster.name, cluster.peers if node in cluster.peers else ())
    owned = kept.owned or Owned(node, mark, 0, ())
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
    lives = Lives(owned.boot, owned.nonces).followed_by(nonce)
    kept.put(owned._replace(boot=lives.count, nonces=lives.nonces))
    return Life(Identity(owned.cluster, node, Boot(lives.count, nonce), VERSION), lives)
