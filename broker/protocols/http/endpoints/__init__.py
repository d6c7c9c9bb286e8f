"""Endpoints of the management API, subject by subject; together they are its table.

What a new one needs stands in `endpoint_table`; a new subject is named here.
"""

from fluffle.broker.protocols.http.endpoint_table import EndpointTable
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

ENDPOINTS = tuple(
    endpoint
    for subject in (
        overview, vhosts, users, policies, definitions, health, exchanges, queues, clients,
        extensions,
    )
    for endpoint in subject.routes.endpoints
)  # fmt: skip
TABLE = EndpointTable((*ENDPOINTS, describing(ENDPOINTS)))
