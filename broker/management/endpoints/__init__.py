"""What each path does, subject by subject; together they are the table of the API."""

from fluffle.broker.management.endpoints import bindings, exchanges, own, queues, whoami
from fluffle.broker.management.table import Table

TABLE = Table(
    (
        *whoami.ENDPOINTS,
        *exchanges.ENDPOINTS,
        *queues.ENDPOINTS,
        *bindings.ENDPOINTS,
        *own.ENDPOINTS,
    )
)
