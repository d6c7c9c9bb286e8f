"""nodes.*: each node of the cluster by RabbitMQ's names; node.*: what changes of the node asked.

`nodes.row`, `nodes.memory` and `nodes.listeners` are of the node that is asked; `nodes.list` has
the rows of all.  What RabbitMQ tells of the insides of Erlang is left out, unless something here
stands for it: threads for its processes, connections that have more to do than fits into their turn
for its queue of those that may run.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fluffle.broker.admin.all_nodes import rows as rows_everywhere
from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows, in_thread
from fluffle.broker.admin.maintenance import Maintenance
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.logs import set_level
from fluffle.broker.cluster.links.keepalive import LinkLimits
from fluffle.broker.config.config import AUTH_MECHANISMS, memory_bytes
from fluffle.broker.config.listeners import kind_of
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.routing.exchange import EXCHANGE_TYPES

PROTOCOLS: Mapping[str, str] = {
    "cluster": "clustering",
    "management": "http",
    "metrics": "http/prometheus",
}
"""RabbitMQ's names of the protocols of listeners that are not for clients, by the names of their
addresses."""

SITES: Mapping[str, str] = {"management": "RabbitMQ Management", "metrics": "RabbitMQ Prometheus"}
"""Descriptions of the HTTP listeners, by name."""

PLUGINS: Mapping[str, str] = {
    "management": "rabbitmq_management",
    "metrics": "rabbitmq_prometheus",
}
CLIENT_PLUGINS: Mapping[str, tuple[str, ...]] = {
    "mqtt": ("rabbitmq_mqtt",),
    "web-mqtt": ("rabbitmq_mqtt", "rabbitmq_web_mqtt"),
}
"""Plugins that listeners for clients stand for, by the protocol of a `ListenerKind`."""
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
"""Libraries that a node may use, listed with their versions."""


def list_nodes(context: NodeContext) -> Rows:
    """All of the cluster, by name; those that say nothing with no more than that."""
    rows: list[Row] = []
    for answer in rows_everywhere(context, what="nodes.row"):
        if isinstance(answer, Deferred):
            yield answer
        else:
            rows.append(answer["row"] if "row" in answer else away(context, answer["node"]))
    yield from sorted(rows, key=lambda row: str(row["name"]))


def away(context: NodeContext, node: str) -> Row:
    """A node of which no more is known than others know."""
    cluster = context.cluster
    is_drained = cluster is not None and cluster.room.is_set_aside(node)
    return {
        "name": node,
        "type": "disc",
        "running": context.cluster_view.is_alive(node),
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
        "processors": processors(),
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
    """Limits of a node and what it uses of them: memory, disk, files, sockets."""
    marks, alarms, measures = context.alarms.watermarks, context.alarms, context.runtime.measures
    return {
        "mem_used": measures.resident_bytes() or 0,
        "mem_limit": marks.memory_bytes_max,
        "mem_alarm": alarms.is_raised("memory"),
        "mem_calculation_strategy": "rss_anon",
        "disk_free": measures.free_bytes() or 0,
        "disk_free_limit": marks.disk_free_bytes_min,
        "disk_free_alarm": alarms.is_raised("disk"),
        "fd_used": open_files(),
        "fd_total": open_files_max(),
        "sockets_used": len(context.connections),
        "sockets_total": context.config.limits.connections_max or open_files_max(),
        "proc_used": threads(),
        "proc_total": threads_max(),
    }


def work(context: NodeContext) -> Row:
    """Work of a node since it started: garbage collections, writes, churn."""
    done = context.runtime.commits.done
    return {
        "gc_num": garbage_collections(),
        "context_switches": context_switches(),
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
    """Plugins of RabbitMQ that correspond to what is enabled here."""
    asked = {plugin for name, plugin in PLUGINS.items() if name in context.addresses}
    kinds = filter(None, map(kind_of, context.addresses))
    asked |= {plugin for kind in kinds for plugin in CLIENT_PLUGINS.get(kind.protocol, ())}
    if context.config.event_exchange:
        asked.add("rabbitmq_event_exchange")
    return sorted((*ALWAYS_ENABLED, *asked))


def cluster_links(context: NodeContext) -> Iterator[Row]:
    """Rows of the links to other nodes, as far as there are any."""
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
    for name, (host, port) in context.addresses.items():
        if (kind := kind_of(name)) is not None:
            protocol, is_encrypted = kind.shown, kind.is_encrypted
        else:
            is_encrypted = name == "management" and context.config.management_tls
            protocol = "https" if is_encrypted else PROTOCOLS[name]
        yield {
            "node": context.config.node_name,
            "protocol": protocol,
            "ip_address": host,
            "port": port,
            "tls": is_encrypted,
            "socket_opts": {},
        }


def memory(context: NodeContext) -> DeferredRow:
    """Row of the memory in use by kind; the parts add up to `rss`.

    The system walks through all pages to tell that, which takes long where there are many.
    """
    return in_thread(resident_by_file, partial(memory_row, context))


def memory_row(context: NodeContext, by_file: Mapping[str, int]) -> Row:
    """`store` is the map of the disk, which the system takes back when it needs it, and which no
    limit counts; `binary` are messages that wait for the disk."""
    data_dir = str(context.config.data_dir.absolute())
    rss = sum(by_file.values())
    own = by_file.get(NOTHING, 0)
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


def maintenance_of(context: NodeContext) -> Maintenance:
    """Raise PreconditionFailed where the node has no listener."""
    if context.maintenance is None:
        raise PreconditionFailed("this node has no clients to be kept from")
    return context.maintenance


def drain(context: NodeContext) -> DeferredRow:
    """Drain the node: it serves no client, and stays a member of its groups."""
    maintenance = maintenance_of(context)
    return DeferredRow(lambda answer: maintenance.do(maintenance.drain(), answer))


def revive(context: NodeContext) -> DeferredRow:
    """Take that back."""
    maintenance = maintenance_of(context)
    return DeferredRow(lambda answer: maintenance.do(maintenance.revive(), answer))


LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": logging.CRITICAL + 10,
}
"""RabbitMQ's words, as far as there is a difference here."""


def set_memory_watermark(
    context: NodeContext, *, share: float | None = None, size_bytes: int | None = None
) -> Row:
    """Set how large this process may be, in bytes or as a share of the memory."""
    limit = limit_bytes(share, size_bytes)
    context.alarms.move_memory_watermark(limit)
    return {"memory_bytes_max": limit}


def set_disk_free_limit(
    context: NodeContext, *, share: float | None = None, size_bytes: int | None = None
) -> Row:
    """Set how much of the disk must be free, in bytes or as a share of the memory."""
    limit = limit_bytes(share, size_bytes)
    context.alarms.move_disk_watermark(limit)
    return {"disk_free_bytes_min": limit}


def limit_bytes(share: float | None, size_bytes: int | None) -> int:
    """PreconditionFailed for both, for neither, and for what is below zero."""
    if (share is None) == (size_bytes is None):
        raise PreconditionFailed("give a number of bytes, or a share of the memory")
    limit = size_bytes if size_bytes is not None else int((share or 0) * memory_bytes())
    if limit < 0:
        raise PreconditionFailed("a limit is not below zero")
    return limit


def set_log_level(_parts: NodeContext, *, level: str) -> Row:
    """Set the level of all that this process logs."""
    if level not in LEVELS:
        raise PreconditionFailed(f"there is no level '{level}'; there are {', '.join(LEVELS)}")
    set_level(LEVELS[level])
    return {}


PROCESS = Path("/proc/self")
THREADS_MAX = Path("/proc/sys/kernel/threads-max")
NOTHING = ""
"""The name of memory that is of no file."""


def open_files(process: Path = PROCESS) -> int:
    """Number of open files; 0 where the system does not say.  Linux does from 6.2 on without
    listing them."""
    folder = process / "fd"
    try:
        return folder.stat().st_size or sum(1 for _ in folder.iterdir())
    except OSError:
        return 0


def open_files_max() -> int:
    """How many there may be."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit


def threads_max(file: Path = THREADS_MAX) -> int:
    """Most threads that the machine allows; 0 where the system does not say."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def threads() -> int:
    """Number of threads that Python knows of."""
    return threading.active_count()


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def context_switches() -> int:
    """Since the process began."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_nvcsw + used.ru_nivcsw


def garbage_collections() -> int:
    """Number of garbage collections since the start."""
    return sum(each["collections"] for each in gc.get_stats())


def resident_by_file(process: Path = PROCESS) -> dict[str, int]:
    """Bytes that are in memory, by the file that they are of; of none: `NOTHING`."""
    found: dict[str, int] = {}
    try:
        lines = (process / "smaps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return found
    for name, size_bytes in mappings(lines):
        found[name] = found.get(name, 0) + size_bytes
    return found


def mappings(lines: list[str]) -> Iterator[tuple[str, int]]:
    """The file of each, and how much of it is resident.  See proc(5)."""
    name = NOTHING
    for line in lines:
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            *_, path = ["", *rest.split(None, 4)[4:]]
            name = path.strip() if path.strip().startswith("/") else NOTHING
        elif first == "Rss:":
            yield name, int(rest.split()[0]) * 1024


READS: Mapping[str, Callable[..., Any]] = {
    "nodes.list": list_nodes,
    "nodes.row": row,
    "nodes.memory": memory,
    "nodes.listeners": listeners,
}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "node.drain": drain,
    "node.revive": revive,
    "node.memory_watermark": set_memory_watermark,
    "node.disk_free_limit": set_disk_free_limit,
    "node.log_level": set_log_level,
}
