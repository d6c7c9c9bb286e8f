"""Endpoints of the management API, subject by subject; together they are its table."""

from fluffle.broker.protocols.http.endpoint import EndpointTable
from fluffle.broker.protocols.http.endpoints import (
    clients,
    definitions,
    exchanges,
    extensions,
    health,
    overview,
    policies,
    queues,
    users,
    vhosts,
)
from fluffle.broker.protocols.http.openapi import describing

ENDPOINTS = (
    *overview.ENDPOINTS,
    *overview.NODE_ENDPOINTS,
    *vhosts.ENDPOINTS,
    *users.ENDPOINTS,
    *users.PERMISSION_ENDPOINTS,
    *policies.ENDPOINTS,
    *definitions.ENDPOINTS,
    *users.LIMIT_ENDPOINTS,
    *health.ENDPOINTS,
    *overview.FEATURE_ENDPOINTS,
    *exchanges.ENDPOINTS,
    *queues.ENDPOINTS,
    *queues.QUORUM_ENDPOINTS,
    *exchanges.BINDING_ENDPOINTS,
    *clients.ENDPOINTS,
    *extensions.ENDPOINTS,
)
TABLE = EndpointTable((*ENDPOINTS, describing(ENDPOINTS)))
