"""Options about what one client may do, and what becomes of its messages."""

from __future__ import annotations

from fluffle.broker.config.config import KEEP, OVERWRITE, Limits
from fluffle.broker.config.option import Option
from fluffle.broker.config.option_values import (
    between,
    choice,
    parse_count,
    parse_limit,
    parse_message_size,
    parse_switch,
)

_LIMITS = Limits()


def _limit(name: str, says: str, field: str) -> Option:
    """Of a number without which there is none."""
    return Option(name, "N|none", says, parse_limit, f"limits_{field}", "none")


LIMITS: tuple[Option, ...] = (
    Option(
        "heartbeat",
        "SECONDS",
        "Heartbeat that clients are proposed; 0 for none.",
        between(0, 65_535),
        "limits_heartbeat_s",
        str(_LIMITS.heartbeat_s),
    ),
    Option(
        "frame-max",
        "BYTES",
        "Largest frame of a client.",
        between(_LIMITS.frame_bytes_min, 1 << 31),
        "limits_frame_bytes_max",
        str(_LIMITS.frame_bytes_max),
    ),
    Option(
        "channel-max",
        "N",
        "Channels of one connection.",
        between(1, 65_535),
        "limits_channels_max",
        str(_LIMITS.channels_max),
    ),
    _limit("connection-max", "Connections of clients that this node takes.", "connections_max"),
    _limit("consumer-max-per-channel", "Consumers of one channel.", "consumers_max"),
    _limit(
        "cluster-queue-limit",
        "Queues in all virtual hosts; give it to each node of a cluster.",
        "queues_max",
    ),
    _limit(
        "cluster-exchange-limit",
        "The same of exchanges, those included that are there from the start.",
        "exchanges_max",
    ),
    Option(
        "max-message-size",
        "SIZE",
        "Largest message.",
        parse_message_size,
        "limits_message_bytes_max",
        "16MiB",
    ),
    Option(
        "handshake-timeout",
        "MS",
        "Time for a client to log in, in milliseconds.",
        parse_count,
        "limits_handshake_timeout_ms",
        str(_LIMITS.handshake_timeout_ms),
    ),
)
"""What one client may do; defaults are those of `Limits`."""

STAMPS: tuple[Option, ...] = (
    Option(
        "set-header-timestamp",
        f"{OVERWRITE}|{KEEP}",
        "Tell consumers when a message came: header timestamp_in_ms and property timestamp; "
        "overwrite or keep what the publisher has set.",
        choice(OVERWRITE, KEEP),
        "stamps_received",
    ),
    Option(
        "set-header-routing-node",
        f"{OVERWRITE}|{KEEP}",
        "Tell them which node it came to: header x-routed-by.",
        choice(OVERWRITE, KEEP),
        "stamps_routing_node",
    ),
    Option(
        "set-header-sent-time",
        "yes|no",
        "Tell them when it was sent to them: header x-opt-rabbitmq-sent-time.",
        parse_switch,
        "stamps_sent",
        "no",
        is_switch=True,
    ),
)
"""What a node adds to messages."""
