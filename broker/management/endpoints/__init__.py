"""What each path does, subject by subject; together they are the table of the API."""

from fluffle.broker.management.endpoints import (
    bindings,
    clients,
    definitions,
    exchanges,
    features,
    health,
    limits,
    nodes,
    overview,
    own,
    permissions,
    policies,
    queues,
    quorum,
    users,
    vhosts,
    whoami,
)
from fluffle.broker.management.openapi import describing
from fluffle.broker.management.table import Table

ENDPOINTS = (
    *whoami.ENDPOINTS,
    *overview.ENDPOINTS,
    *nodes.ENDPOINTS,
    *vhosts.ENDPOINTS,
    *users.ENDPOINTS,
    *permissions.ENDPOINTS,
    *policies.ENDPOINTS,
    *definitions.ENDPOINTS,
    *limits.ENDPOINTS,
    *health.ENDPOINTS,
    *features.ENDPOINTS,
    *exchanges.ENDPOINTS,
    *queues.ENDPOINTS,
    *quorum.ENDPOINTS,
    *bindings.ENDPOINTS,
    *clients.ENDPOINTS,
    *own.ENDPOINTS,
)
TABLE = Table((*ENDPOINTS, describing(ENDPOINTS)))
