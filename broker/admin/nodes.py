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
from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows
from fluffle.broker.admin.threads import in_thread
from fluffle.broker.alarms.disk import free_bytes
from fluffle.broker.alarms.memory import resident_bytes
from fluffle.broker.cluster.links.limits import LinkLimits
from fluffle.broker.config.config import AUTH_MECHANISMS
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.routing.exchange import EXCHANGE_TYPES

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


def list_nodes(context: NodeContext) -> Rows:
    """All of the cluster, by name; those that say nothing with no more than that."""
    rows: list[Row] = []
    for told in rows_everywhere(context, what="nodes.row"):
        if isinstance(told, Deferred):
            yield told
        else:
            rows.append(told["row"] if "row" in told else away(context, told["node"]))
    yield from sorted(rows, key=lambda row: str(row["name"]))


def away(context: NodeContext, node: str) -> Row:
    """A node of which no more is known than others know."""
    cluster = context.cluster
    is_drained = cluster is not None and cluster.room.is_set_aside(node)
    return {
        "name": node,
        "type": "disc",
        "running": context.company.is_alive(node),
        "being_drained": is_drained,
        "cluster_links": [],
    }


def row(context: NodeContext) -> Row:
    """This node."""
    config = context.config
    return {
        "name": config.node_name,
        "type": "disc",
        "running": True,
        "being_drained": context.maintenance is not None and context.maintenance.is_draining,
        "os_pid": str(os.getpid()),
        "uptime": context.runtime.clock.now_ms() - context.started_ms,
        "processors": process_stats.processors(),
        "run_queue": len(context.connections.busy),
        **limits(context),
        **work(context),
        "exchange_types": exchange_types(),
        "auth_mechanisms": auth_mechanisms(context),
        "applications": applications(context),
        "contexts": list(contexts(context)),
        "log_files": ["<stderr>"],
        "db_dir": str(config.data_dir.absolute()),
        "config_files": [],
        "enabled_plugins": enabled_plugins(context),
        "net_ticktime": LinkLimits().silent_after_ms // 1000,
        "rates_mode": "none" if context.statistics is None else "basic",
        "partitions": [],
        "cluster_links": list(cluster_links(context)),
    }


def limits(context: NodeContext) -> Row:
    """What there is of things that run out."""
    marks, alarms = context.alarms.watermarks, context.alarms
    return {
        "mem_used": resident_bytes() or 0,
        "mem_limit": marks.memory_bytes_max,
        "mem_alarm": alarms.is_raised("memory"),
        "mem_calculation_strategy": "rss_anon",
        "disk_free": free_bytes(context.config.data_dir) or 0,
        "disk_free_limit": marks.disk_free_bytes_min,
        "disk_free_alarm": alarms.is_raised("disk"),
        "fd_used": process_stats.open_files(),
        "fd_total": process_stats.open_files_max(),
        "sockets_used": len(context.connections),
        "sockets_total": context.config.limits.connections_max or process_stats.open_files_max(),
        "proc_used": process_stats.threads(),
        "proc_total": process_stats.threads_max(),
    }


def work(context: NodeContext) -> Row:
    """What it has done since it started."""
    done = context.runtime.commits.done
    return {
        "gc_num": process_stats.collections(),
        "context_switches": process_stats.context_switches(),
        "io_sync_count": done.commits,
        "io_sync_avg_time": done.seconds * 1000 / done.commits if done.commits else 0.0,
        "io_write_count": done.changes,
        "io_write_bytes": done.written_bytes,
        **({} if context.statistics is None else context.statistics.churn()),
    }


def exchange_types() -> list[Row]:
    return [
        {"name": name, "description": describe_type(name), "enabled": True}
        for name in sorted(EXCHANGE_TYPES)
    ]


def describe_type(name: str) -> str:
    if name in STANDARD_TYPES:
        return f"AMQP {name} exchange, as per the AMQP specification"
    words = name.removeprefix("x-").replace("-", " ").replace("jms", "JMS")
    return f"{words[0].upper()}{words[1:]} exchange"


def auth_mechanisms(context: NodeContext) -> list[Row]:
    offered = context.config.auth_mechanisms
    return [
        {
            "name": name,
            "description": f"SASL {name} authentication mechanism",
            "enabled": name in offered,
        }
        for name in sorted(AUTH_MECHANISMS)
    ]


def applications(context: NodeContext) -> list[Row]:
    """This and what it is made of, as far as it is there."""
    versions = {
        "fluffle": context.config.version,
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


def contexts(context: NodeContext) -> Iterator[Row]:
    """Where HTTP is spoken."""
    for name, description in SITES.items():
        if (address := context.addresses.get(name)) is not None:
            host, port = address
            yield {"description": description, "path": "/", "ip": host, "port": str(port)}


def enabled_plugins(context: NodeContext) -> list[str]:
    """Those of RabbitMQ that stand for what is on here."""
    asked = [plugin for name, plugin in PLUGINS.items() if name in context.addresses]
    if context.config.event_exchange:
        asked.append("rabbitmq_event_exchange")
    return sorted((*ALWAYS_ENABLED, *asked))


def cluster_links(context: NodeContext) -> Iterator[Row]:
    """To the other nodes, as far as there are any."""
    cluster = context.cluster
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


def listeners(context: NodeContext) -> Rows:
    """Where this node takes connections."""
    encrypted = {"amqps": PROTOCOLS["amqps"]}
    if context.config.management_tls:
        encrypted["management"] = "https"
    for name, (host, port) in context.addresses.items():
        yield {
            "node": context.config.node_name,
            "protocol": encrypted.get(name) or PROTOCOLS.get(name, name.partition("-")[0]),
            "ip_address": host,
            "port": port,
            "tls": name in encrypted,
            "socket_opts": {},
        }


def memory(context: NodeContext) -> DeferredRow:
    """What is in memory, in parts that make the whole: `rss`.

    The system walks through all pages to tell that, which takes long where there are many.
    """
    return in_thread(process_stats.resident_by_file, partial(memory_row, context))


def memory_row(context: NodeContext, by_file: Mapping[str, int]) -> Row:
    """`store` is the map of the disk, which the system takes back when it needs it, and which no
    limit counts; `binary` are messages that wait for the disk."""
    data_dir = str(context.config.data_dir.absolute())
    rss = sum(by_file.values())
    own = by_file.get(process_stats.NOTHING, 0)
    store = sum(size for name, size in by_file.items() if name.startswith(f"{data_dir}/"))
    binary = min(context.runtime.commits.waiting_bytes, own)
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
