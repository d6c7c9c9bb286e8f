"""What RabbitMQ has as plugins and feature flags, and we have built in."""

from __future__ import annotations

from collections.abc import Mapping

PLUGINS: Mapping[str, str] = {
    "rabbitmq_management": "served where --http says",
    "rabbitmq_management_agent": "a part of it",
    "rabbitmq_prometheus": "served where --metrics says",
    "rabbitmq_peer_discovery_common": "--peers",
    "rabbitmq_peer_discovery_k8s": "--discover, by DNS",
    "rabbitmq_event_exchange": "switched on by --event-exchange",
    "rabbitmq_consistent_hash_exchange": "",
    "rabbitmq_random_exchange": "",
    "rabbitmq_sharding": "the exchange type x-modulus-hash",
    "rabbitmq_recent_history_exchange": "",
    "rabbitmq_delayed_message_exchange": "",
    "rabbitmq_message_deduplication": "",
    "rabbitmq_auth_mechanism_ssl": "",
}
"""Built in, so that they count as enabled; and what there is to say of them."""

FEATURE_FLAGS = (
    "detailed_queues_endpoint",
    "direct_exchange_routing_v2",
    "drop_unroutable_metric",
    "empty_basic_get_metric",
    "implicit_default_bindings",
    "maintenance_mode_status",
    "quorum_queue",
    "quorum_queue_non_voters",
    "rabbit_exchange_type_local_random",
    "rabbitmq_4.0.0",
    "user_limits",
    "virtual_host_metadata",
)
"""Of RabbitMQ 4: what they stand for is there.  The management API says the same."""
