"""What each path does, subject by subject; together they are the table of the API."""

from fluffle.broker.management.endpoints import own, whoami
from fluffle.broker.management.table import Table

TABLE = Table((*whoami.ENDPOINTS, *own.ENDPOINTS))
