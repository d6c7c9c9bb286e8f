"""nodes.*: each node of the cluster, by RabbitMQ's names, whichever node is asked.

`nodes.row`, `nodes.memory` and `nodes.listeners` are of the node that is asked; `nodes.list` has
the rows of all.  What RabbitMQ tells of the insides of Erlang is left out, unless something here
stands for it: threads for its processes, connections that have more to do than fits into their turn
for its queue of those that may run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fluffle.broker.admin import process_stats
from fluffle.broker.admin.all_nodes import rows as rows_everywhere
from fluffle.broker.admin.context import Later, Parts, Row, Rows
from fluffle.broker.admin.threads import in_thread
from fluffle.broker.alarms.disk import free_bytes
from fluffle.broker.alarms.memory import resident_bytes
from fluffle.broker.cluster.links.limits import LinkTuning
from fluffle.broker.config.config import AUTH_MECHANISMS
from fluffle.broker.queues.queue_api import Later as Asked
from fluffle.broker.routing.exchange import TYPES

PROTOCOLS: Mapping[str, str] = {
    "amqp": "amqp",
    "amqps": "amqp/ssl",
    "cluster": "clustering",
    "management": "http",
    "metrics": "http/prometheus",
}
"""By what this node calls them: RabbitMQ's names of what is spoken on a port."""

SITES: Mapping[str, str] = {"management": "RabbitMQ Management", "metrics": "RabbitMQ Prometheus"}
"""Of those, where HTTP is spoken."""

PLUGINS: Mapping[str, str] = {
    "management": "rabbitmq_management",
    "metrics": "rabbitmq_prometheus",
}
ALWAYS_ENABLED = (
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_delayed_message_exchange",
    "rabbitmq_jms_topic_exchange",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
)
"""RabbitMQ's plugins that do what is here without one."""

STANDARD_TYPES = ("direct", "fanout", "headers", "topic")
LIBRARIES = ("lmdb", "msgpack", "pamqp", "aiohttp", "uvloop")
"""What a node may be made of besides itself."""


def list_nodes(parts: Parts) -> Rows:
    """All of the cluster, by name; those that say nothing with no more than that."""
    rows: list[Row] = []
    for told in rows_everywhere(parts, what="nodes.row"):
        if isinstance(told, Asked):
            yield told
        else:
            rows.append(told["row"] if "row" in told else away(parts, told["node"]))
    yield from sorted(rows, key=lambda row: str(row["name"]))


def away(parts: Parts, node: str) -> Row:
    """A node of which no more is known than others know."""
    cluster = parts.cluster
    is_drained = cluster is not None and cluster.room.is_set_aside(node)
    return {
        "name": node,
        "type": "disc",
        "running": parts.company.is_alive(node),
        "being_drained": is_drained,
        "cluster_links": [],
    }


def row(parts: Parts) -> Row:
    """This node."""
    config = parts.config
    return {
        "name": config.node_name,
        "type": "disc",
        "running": True,
        "being_drained": parts.maintenance is not None and parts.maintenance.is_draining,
        "os_pid": str(os.getpid()),
        "uptime": parts.clock.now_ms() - parts.started_ms,
        "processors": process_stats.processors(),
        "run_queue": len(parts.connections.busy),
        **limits(parts),
        **work(parts),
        "exchange_types": exchange_types(),
        "auth_mechanisms": auth_mechanisms(parts),
        "applications": applications(parts),
        "contexts": list(contexts(parts)),
        "log_files": ["<stderr>"],
        "db_dir": str(config.data_dir.absolute()),
        "config_files": [],
        "enabled_plugins": enabled_plugins(parts),
        "net_ticktime": LinkTuning().silent_after_ms // 1000,
        "rates_mode": "none" if parts.statistics is None else "basic",
        "partitions": [],
        "cluster_links": list(cluster_links(parts)),
    }


def limits(parts: Parts) -> Row:
    """What there is of things that run out."""
    marks, alarms = parts.alarms.watermarks, parts.alarms
    return {
        "mem_used": resident_bytes() or 0,
        "mem_limit": marks.memory_bytes_max,
        "mem_alarm": alarms.is_raised("memory"),
        "mem_calculation_strategy": "rss_anon",
        "disk_free": free_bytes(parts.config.data_dir) or 0,
        "disk_free_limit": marks.disk_free_bytes_min,
        "disk_free_alarm": alarms.is_raised("disk"),
        "fd_used": process_stats.open_files(),
        "fd_total": process_stats.open_files_max(),
        "sockets_used": len(parts.connections),
        "sockets_total": parts.config.limits.connections_max or process_stats.open_files_max(),
        "proc_used": process_stats.threads(),
        "proc_total": process_stats.threads_max(),
    }


def work(parts: Parts) -> Row:
    """What it has done since it started."""
    done = parts.commits.done
    return {
        "gc_num": process_stats.collections(),
        "context_switches": process_stats.context_switches(),
        "io_sync_count": done.commits,
        "io_sync_avg_time": done.seconds * 1000 / done.commits if done.commits else 0.0,
        "io_write_count": done.changes,
        "io_write_bytes": done.written_bytes,
        **({} if parts.statistics is None else parts.statistics.churn()),
    }


def exchange_types() -> list[Row]:
    return [
        {"name": name, "description": describe_type(name), "enabled": True}
        for name in sorted(TYPES)
    ]


def describe_type(name: str) -> str:
    if name in STANDARD_TYPES:
        return f"AMQP {name} exchange, as per the AMQP specification"
    words = name.removeprefix("x-").replace("-", " ").replace("jms", "JMS")
    return f"{words[0].upper()}{words[1:]} exchange"


def auth_mechanisms(parts: Parts) -> list[Row]:
    offered = parts.config.auth_mechanisms
    return [
        {
            "name": name,
            "description": f"SASL {name} authentication mechanism",
            "enabled": name in offered,
        }
        for name in sorted(AUTH_MECHANISMS)
    ]


def applications(parts: Parts) -> list[Row]:
    """This and what it is made of, as far as it is there."""
    versions = {
        "fluffle": parts.config.version,
        "python": sys.version.split()[0],
        **{name: found for name in LIBRARIES if (found := version_of(name))},
    }
    return [
        {"name": name, "description": name, "version": versions[name]} for name in sorted(versions)
    ]


@cache
def version_of(library: str) -> str | None:
    """None if it is not there."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def contexts(parts: Parts) -> Iterator[Row]:
    """Where HTTP is spoken."""
    for name, description in SITES.items():
        if (address := parts.addresses.get(name)) is not None:
            host, port = address
            yield {"description": description, "path": "/", "ip": host, "port": str(port)}


def enabled_plugins(parts: Parts) -> list[str]:
    """Those of RabbitMQ that stand for what is on here."""
    asked = [plugin for name, plugin in PLUGINS.items() if name in parts.addresses]
    if parts.config.event_exchange:
        asked.append("rabbitmq_event_exchange")
    return sorted((*ALWAYS_ENABLED, *asked))


def cluster_links(parts: Parts) -> Iterator[Row]:
    """To the other nodes, as far as there are any."""
    cluster = parts.cluster
    if cluster is None:
        return
    for node, carried in sorted(cluster.links.carried.items()):
        (peer_host, peer_port), (host, port), received, sent = carried
        yield {
            "name": node,
            "peer_addr": peer_host,
            "peer_port": peer_port,
            "sock_addr": host,
            "sock_port": port,
            "recv_bytes": received,
            "send_bytes": sent,
            "stats": {"recv_bytes": received, "send_bytes": sent},
        }


def listeners(parts: Parts) -> Rows:
    """Where this node takes connections."""
    encrypted = {"amqps": PROTOCOLS["amqps"]}
    if parts.config.management_tls:
        encrypted["management"] = "https"
    for name, (host, port) in parts.addresses.items():
        yield {
            "node": parts.config.node_name,
            "protocol": encrypted.get(name) or PROTOCOLS.get(name, name.partition("-")[0]),
            "ip_address": host,
            "port": port,
            "tls": name in encrypted,
            "socket_opts": {},
        }


def memory(parts: Parts) -> Later:
    """What is in memory, in parts that make the whole: `rss`.

    The system walks through all pages to tell that, which takes long where there are many.
    """
    return in_thread(process_stats.resident_by_file, partial(memory_row, parts))


def memory_row(parts: Parts, by_file: Mapping[str, int]) -> Row:
    """`store` is the map of the disk, which the system takes back when it needs it, and which no
    limit counts; `binary` are messages that wait for the disk."""
    data_dir = str(parts.config.data_dir.absolute())
    rss = sum(by_file.values())
    own = by_file.get(process_stats.NOTHING, 0)
    store = sum(size for name, size in by_file.items() if name.startswith(f"{data_dir}/"))
    binary = min(parts.commits.waiting_bytes, own)
    return {
        "strategy": "rss",
        "total": {"rss": rss, "allocated": own, "erlang": own},
        "binary": binary,
        "code": rss - own - store,
        "other_proc": own - binary,
        "store": store,
    }


READS: Mapping[str, Callable[..., Any]] = {
    "nodes.list": list_nodes,
    "nodes.row": row,
    "nodes.memory": memory,
    "nodes.listeners": listeners,
}
