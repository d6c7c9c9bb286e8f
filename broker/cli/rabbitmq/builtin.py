"""What RabbitMQ has as plugins, and we have built in."""

from __future__ import annotations

from collections.abc import Mapping

PLUGINS: Mapping[str, str] = {
    "rabbitmq_management": "served where --management says",
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
    "rabbitmq_jms_topic_exchange": "",
    "rabbitmq_message_deduplication": "",
    "rabbitmq_auth_mechanism_ssl": "",
}
"""Built in, so that they count as enabled; and what there is to say of them."""
