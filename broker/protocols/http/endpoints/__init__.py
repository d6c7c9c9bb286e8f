"""Endpoints of the management API, subject by subject; together they are its table."""

from fluffle.broker.protocols.http.endpoint_table import EndpointTable
from fluffle.broker.protocols.http.endpoints import (
    bindings,
    clients,
    definitions,
    exchanges,
    extensions,
    features,
    health,
    limits,
    nodes,
    overview,
    permissions,
    policies,
    queues,
    quorum,
    users,
    vhosts,
)
from fluffle.broker.protocols.http.openapi import describing

ENDPOINTS = (
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
    *extensions.ENDPOINTS,
)
TABLE = EndpointTable((*ENDPOINTS, describing(ENDPOINTS)))
