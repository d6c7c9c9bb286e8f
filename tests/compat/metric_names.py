"""Names of metrics of the two brokers, and where they differ for a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.request import urlopen

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

DETAILED = (
    "/metrics/detailed?family=queue_coarse_metrics&family=queue_metrics&family=channel_metrics"
    "&family=queue_delivery_metrics&family=queue_exchange_metrics&family=exchange_metrics"
    "&family=channel_exchange_metrics&family=channel_queue_metrics&family=connection_metrics"
    "&family=channel_queue_exchange_metrics&family=connection_coarse_metrics&family=ra_metrics"
    "&family=node_coarse_metrics&family=node_metrics&family=node_persister_metrics"
    "&family=connection_churn_metrics&family=auth_attempt_metrics&family=vhost_status"
    "&family=exchange_bindings&family=exchange_names"
)
ENDPOINTS = ("/metrics", "/metrics/per-object", DETAILED, "/metrics/memory-breakdown")


class Named(NamedTuple):
    """Kind and labels of a metric."""

    kind: str
    labels: frozenset[str]
    """The names of them, of all samples; several sets of names are in one."""


def families_at(port: int, path: str) -> Iterator[Metric]:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        yield from text_string_to_metric_families(answer.read().decode())


def full_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def names_at(port: int, path: str) -> dict[str, Named]:
    """Metrics by name, without those of Erlang and of the process."""
    return {
        full_name(family).replace("rabbitmq_detailed_", "rabbitmq_"): Named(
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels),
        )
        for family in families_at(port, path)
        if family.name.startswith("rabbitmq")
    }


def excused(names: Mapping[str, object], reasons: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Names without a reason, and reasons without a name."""
    patterns = {pattern: re.compile(pattern) for pattern in reasons}
    unexcused = {
        name for name in names if not any(each.fullmatch(name) for each in patterns.values())
    }
    unused = {
        pattern
        for pattern, each in patterns.items()
        if not any(each.fullmatch(name) for name in names)
    }
    return unexcused, unused


THEIRS: Mapping[str, str] = {
    r"rabbitmq_erlang_(processes|gc|scheduler|net)_.*": "parts of Erlang's machine",
    r"rabbitmq_(channel|connection)_process_.*": "Erlang's processes, and their memory",
    r"rabbitmq_queue_process_reductions_.*": "likewise",
    r"rabbitmq_memory_(?!runtime_allocated).*": "parts of Erlang's machine, tables and processes",
    r"rabbitmq_io_(read|seek|reopen)_.*": "a store that is mapped into memory does not do this",
    r"rabbitmq_io_write_(ops|time_seconds)_total": "LMDB writes and syncs in one; that is counted",
    r"rabbitmq_(schema_db|msg_store|queue_index)_.*": "parts of RabbitMQ's store",
    r"rabbitmq_queue_consumer_(capacity|utilisation)": "nobody keeps how long consumers are busy",
    r"rabbitmq_queue_disk_(reads|writes)_total": "the store writes for all queues together",
    r"rabbitmq_stream_.*": "there are no streams",
    r"rabbitmq_alarms_file_descriptor_limit": "there is no such alarm",
    r"rabbitmq_auth_attempts_detailed_.*": "counters by address grow without end",
    r"rabbitmq_exchange_messages_(confirmed|unroutable_\w+)_total": (
        "counted by channel and exchange, and of an exchange only what goes in"
    ),
    r"rabbitmq_queue_exchange_messages_published_total": (
        "counted by queue and by exchange, and not by both"
    ),
}
"""Metrics that RabbitMQ 4.0.5 has, and fluffle does not."""

OURS: Mapping[str, str] = {
    r"rabbitmq_raft_(term|snapshot_index|last_applied|commit_index|last_written_index)": (
        "names of RabbitMQ 4.2"
    ),
    r"rabbitmq_raft_(max_)?commit_latency_seconds": "names of RabbitMQ 4.2",
    r"rabbitmq_message_size_bytes": "since RabbitMQ 4.1",
    r"rabbitmq_(alarms|unreachable)_.*": "RabbitMQ tells these at one endpoint alone",
}
"""The other way round."""

KINDS: Mapping[str, str] = {
    r"rabbitmq_raft_term_total": (
        "a counter of that name would be called like the gauge of 4.2 in OpenMetrics"
    ),
}
"""Metrics of another type."""

LABELS: Mapping[str, str] = {
    r"rabbitmq_build_info": "which fluffle it is, beside which RabbitMQ it is like",
    r"rabbitmq_identity_info": "the endpoint, as since RabbitMQ 4.1",
    r"rabbitmq_raft_.*": "a node that is alone has no Raft group for its definitions",
    r"rabbitmq_channel_prefetch": "RabbitMQ 4.0 has forgotten it, and tells 0 of all channels",
    r"rabbitmq_queue_messages_published_total": "counted by queue alone",
    r"rabbitmq_global_.*": "RabbitMQ has several protocols, and more types of queues",
}
"""Metrics with other labels."""
