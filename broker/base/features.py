"""Names of RabbitMQ's: feature flags, all of them on for good, and protocols of listeners."""

from __future__ import annotations

from collections.abc import Mapping

FEATURES: Mapping[str, str] = {
    "detailed_queues_endpoint": "queues/detailed beside a list of queues that is short",
    "direct_exchange_routing_v2": "Routing by direct exchanges without a scan",
    "drop_unroutable_metric": "Counts messages that no queue gets",
    "empty_basic_get_metric": "Counts basic.get on empty queues",
    "implicit_default_bindings": "Bindings of the default exchange are not stored",
    "maintenance_mode_status": "Nodes can be drained",
    "quorum_queue": "Queues of type `quorum`",
    "quorum_queue_non_voters": "New members of quorum queues vote once they have caught up",
    "rabbit_exchange_type_local_random": "Exchanges of type `x-local-random`",
    "rabbitmq_4.0.0": "What RabbitMQ 4.0 has",
    "user_limits": "Limits of connections and channels of a user",
    "virtual_host_metadata": "Virtual hosts have a description and tags",
}
"""RabbitMQ's names, as far as there is here what they stand for."""

PROTOCOL_ALIASES: Mapping[str, str] = {
    "amqp091": "amqp",
    "amqp0.9.1": "amqp",
    "amqp0-9-1": "amqp",
    "amqps": "amqp/ssl",
    "https": "http",
    "management": "http",
    "mqtt3.1.1": "mqtt",
    "mqtts": "mqtt/ssl",
    "prometheus": "http/prometheus",
    "web-mqtt": "http/web-mqtt",
}
"""Other names of protocols, each with the name under which a listener is listed."""
