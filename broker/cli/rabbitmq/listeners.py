"""The listeners of a node in RabbitMQ's words, and what else its status says in them."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.cli.client import Row

PROTOCOLS: Mapping[str, tuple[str, str]] = {
    "amqp": ("amqp", "AMQP 0-9-1"),
    "amqps": ("amqp/ssl", "AMQP 0-9-1 over TLS"),
    "management": ("http", "HTTP API"),
    "metrics": ("http/prometheus", "Prometheus exporter API over HTTP"),
    "cluster": ("clustering", "inter-node communication"),
}
"""By our names: RabbitMQ's, and what it is for."""


def listeners_of(status: Row) -> list[Row]:
    """Those of ports; a unix socket is its path, and has port 0."""
    return [
        {
            "node": status["node"],
            "protocol": PROTOCOLS.get(name, (name, name))[0],
            "interface": host,
            "port": port,
            "purpose": PROTOCOLS.get(name, (name, name))[1],
        }
        for name, (host, port) in status["addresses"].items()
    ]


def listener_line(row: Row) -> str:
    return (
        f"Interface: {row['interface']}, port: {row['port']}, protocol: {row['protocol']}, "
        f"purpose: {row['purpose']}"
    )


def alarm_text(row: Row) -> str:
    """As RabbitMQ tells of one."""
    return f"{row['resource'].capitalize()} alarm on node {row['node']}"
