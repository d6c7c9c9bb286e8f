"""What a node says of itself before a client has logged in."""

from fluffle.broker.config.config import Config
from fluffle.protocol.types import FieldTable
from fluffle.protocol.wire import to_table

CAPABILITIES = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)
"""Those of RabbitMQ, in its order."""


def server_properties(config: Config) -> FieldTable:
    """What connection.start says of us: clients choose their behaviour by product and version."""
    return to_table(
        {
            "capabilities": dict.fromkeys(CAPABILITIES, True),
            "cluster_name": config.cluster.name if config.cluster else config.node_name,
            "copyright": "fluffle contributors",
            "information": "Licensed under Apache-2.0",
            "platform": config.platform,
            "product": config.product,
            "version": config.product_version,
            "fluffle_version": config.version,
        }
    )
