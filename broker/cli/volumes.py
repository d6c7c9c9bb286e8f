"""Columns of queues that are measured when they are asked for, by a verb of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fluffle.broker.cli.client import Client, Row

VOLUMES = (
    "message_bytes", "message_bytes_ready", "message_bytes_unacknowledged", "message_bytes_ram",
    "message_bytes_persistent", "messages_ram", "messages_ready_ram", "messages_unacknowledged_ram",
    "messages_persistent", "memory", "head_message_timestamp",
)  # fmt: skip
"""Measured columns that rabbitmqctl has."""

MORE_VOLUMES = (
    "messages_paged_out", "message_bytes_paged_out", "messages_ready_high",
    "messages_ready_normal", "messages_ready_returned", "messages_dlx", "message_bytes_dlx",
)  # fmt: skip
"""Measured columns that only RabbitMQ's management API has; the last five are of quorum queues."""


def with_volumes(client: Client, rows: Iterable[Row], vhost: str | None) -> Iterator[Row]:
    """Queues with how much is in each, and null for what no node knows."""
    measured = client.rows("queues.volumes", vhost=vhost)
    volumes = {(row["vhost"], row["name"]): row for row in measured}
    nothing = dict.fromkeys((*VOLUMES, *MORE_VOLUMES))
    return ({**nothing, **volumes.get((row["vhost"], row["name"]), {}), **row} for row in rows)
