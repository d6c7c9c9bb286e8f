"""All verbs of the control socket: the union of the groups' tables."""

from fluffle.broker.control import (
    cluster,
    connections,
    converting,
    definitions,
    forcing,
    members,
    moving,
    peeking,
    permissions,
    policies,
    queues,
    status,
    topology,
    users,
    vhosts,
)
from fluffle.broker.control.dispatch import verbs_of

VERBS = verbs_of(
    reads={
        **status.READS,
        **users.READS,
        **vhosts.READS,
        **permissions.READS,
        **queues.READS,
        **peeking.READS,
        **members.READS,
        **forcing.READS,
        **topology.READS,
        **connections.READS,
        **policies.READS,
        **definitions.READS,
        **cluster.READS,
    },
    changes={
        **users.CHANGES,
        **vhosts.CHANGES,
        **permissions.CHANGES,
        **queues.CHANGES,
        **moving.CHANGES,
        **converting.CHANGES,
        **members.CHANGES,
        **forcing.CHANGES,
        **connections.CHANGES,
        **policies.CHANGES,
        **definitions.CHANGES,
        **cluster.CHANGES,
    },
)
