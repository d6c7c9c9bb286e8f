"""Nodes: status of one and of its cluster, its process, and settings that change while it runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from operator import itemgetter

from fluffle.broker.base.features import FEATURES
from fluffle.broker.cli.client import NodeClient, NodeUnreachable, RequestRefused
from fluffle.broker.cli.node import LEVELS, ShareOrSize, nodes_of, size_of
from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.features import PLUGINS
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    FLAG,
    TEXT,
    Failure,
    Invocation,
    Report,
    UsageFailure,
    Verb,
)

PROTOCOLS: Mapping[str, tuple[str, str]] = {
    "amqp": ("amqp", "AMQP 0-9-1"),
    "amqps": ("amqp/ssl", "AMQP 0-9-1 over TLS"),
    "mqtt": ("mqtt", "MQTT"),
    "mqtts": ("mqtt/ssl", "MQTT over TLS"),
    "mqtt-ws": ("http/web-mqtt", "MQTT over WebSockets"),
    "mqtt-wss": ("https/web-mqtt", "MQTT over WebSockets and TLS"),
    "management": ("http", "HTTP API"),
    "metrics": ("http/prometheus", "Prometheus exporter API over HTTP"),
    "cluster": ("clustering", "inter-node communication"),
}
"""Protocols by our names: RabbitMQ's name, and its purpose."""

NUMBER = re.compile(r"-[0-9]+$")
"""Suffix in the name of a further address of the same kind."""


def listeners_of(status: Row) -> list[Row]:
    """Return the listeners; a unix socket is its path, and has port 0."""
    return [
        {
            "node": status["node"],
            "protocol": protocol,
            "interface": host,
            "port": port,
            "purpose": purpose,
        }
        for name, (host, port) in status["addresses"].items()
        for protocol, purpose in (PROTOCOLS.get(NUMBER.sub("", name), (name, name)),)
    ]


def listener_line(row: Row) -> str:
    return (
        f"Interface: {row['interface']}, port: {row['port']}, protocol: {row['protocol']}, "
        f"purpose: {row['purpose']}"
    )


def alarm_text(row: Row) -> str:
    """Return an alarm as RabbitMQ describes it."""
    return f"{row['resource'].capitalize()} alarm on node {row['node']}"


NONE = "(none)"
GB = 1_000_000_000
WAIT_TIMEOUT_S = 300.0
POLL_INTERVAL_S = 0.2
"""Between two looks at what is waited for."""

MAINTENANCE = {True: "marked for maintenance", False: "not under maintenance"}


def ping(call: Invocation) -> Report:
    call.client.call("ping")
    return Report(["Ping succeeded"])


def show_version(call: Invocation) -> Report:
    """Report the version that the node behaves like; that of this command where no node answers."""
    try:
        return Report([str(call.client.call("status")["product_version"])])
    except (NodeUnreachable, RequestRefused):
        return Report([version("fluffle")])


def status(call: Invocation) -> Report:
    row = call.client.call("status")
    alarms = list(call.client.rows("alarms.list"))
    return Report(list(status_lines(row, alarms)), status_content(row, alarms))


def status_lines(row: Row, alarms: list[Row]) -> Iterator[str]:
    """Yield the status for people, in RabbitMQ's sections."""
    memory, limit = row["memory_bytes"] or 0, row["memory_bytes_max"]
    yield from section(
        "Runtime",
        f"OS PID: {row['pid']}",
        f"Uptime (seconds): {row['uptime_s']}",
        f"Is under maintenance?: {'true' if row['maintenance'] else 'false'}",
        f"RabbitMQ version: {row['product_version']}",
        f"Node name: {row['node']}",
        f"Platform: {row['platform']} {row['version']}",
    )
    yield from section("Plugins", "Enabled plugins:", "", *(f" * {name}" for name in PLUGINS))
    yield from section("Data directory", f"Node data directory: {row['data_dir']}")
    yield from section("Alarms", *(map(alarm_text, alarms) if alarms else [NONE]))
    yield from section(
        "Memory",
        f"Total memory used: {memory / GB:.4f} gb",
        "Calculation strategy: rss",
        f"Memory high watermark setting: computed to: {limit / GB:.4f} gb",
    )
    yield from section(
        "Free Disk Space",
        f"Low free disk space watermark: {row['disk_free_bytes_min'] / GB:.4f} gb",
        f"Free disk space: {(row['disk_free_bytes'] or 0) / GB:.4f} gb",
    )
    yield from section(
        "Totals",
        f"Connection count: {row['connections']}",
        f"Queue count: {row['queues']}",
        f"Virtual host count: {row['vhosts']}",
    )
    yield from section("Listeners", *map(listener_line, listeners_of(row)))


def section(title: str, *lines: str) -> Iterator[str]:
    yield from (title, "", *lines, "")


def status_content(row: Row, alarms: list[Row]) -> Row:
    """Return the status for programs, by RabbitMQ's keys."""
    return {
        "pid": row["pid"],
        "os": row["platform"],
        "alarms": alarms,
        "listeners": listeners_of(row),
        "product_name": row["product"],
        "product_version": row["product_version"],
        "rabbitmq_version": row["product_version"],
        "uptime": row["uptime_s"],
        "is_under_maintenance": row["maintenance"],
        "active_plugins": list(PLUGINS),
        "data_directory": row["data_dir"],
        "memory": {"total": {"rss": row["memory_bytes"]}, "strategy": "rss"},
        "vm_memory_calculation_strategy": "rss",
        "vm_memory_high_watermark_limit": row["memory_bytes_max"],
        "disk_free_limit": row["disk_free_bytes_min"],
        "disk_free": row["disk_free_bytes"],
        "totals": {
            "virtual_host_count": row["vhosts"],
            "connection_count": row["connections"],
            "queue_count": row["queues"],
        },
    }


def cluster_status(call: Invocation) -> Report:
    row = call.client.call("status")
    nodes, alarms = nodes_of(call.client, row), list(call.client.rows("alarms.list"))
    name = row["cluster"]["name"] if row["cluster"] else row["node"]
    members = [each["node"] for each in nodes]
    running = [each["node"] for each in nodes if each["state"] == "running"]
    maintained = {each["node"]: MAINTENANCE[bool(each["maintenance"])] for each in nodes}
    statuses = statuses_of(call.client)
    listeners = {each["node"]: listeners_of(each) for each in statuses}
    flags = [{"name": name, "state": "enabled"} for name in FEATURES]
    lines = [
        *section("Basics", f"Cluster name: {name}"),
        *section("Disk Nodes", *members),
        *section("Running Nodes", *running),
        *section("Versions", *map(version_line, statuses)),
        *section(
            "Maintenance status",
            *(f"Node: {node}, status: {text}" for node, text in maintained.items()),
        ),
        *section("Alarms", *(map(alarm_text, alarms) if alarms else [NONE])),
        *section("Network Partitions", NONE),
        *section(
            "Listeners",
            *(f"Node: {node}, {lowered(each)}" for node, own in listeners.items() for each in own),
        ),
        *section("Feature flags", *(f"Flag: {name}, state: enabled" for name in FEATURES)),
    ]  # fmt: skip
    return Report(
        lines,
        {
            "cluster_name": name,
            "disk_nodes": members,
            "ram_nodes": [],
            "running_nodes": running,
            "versions": {
                each["node"]: {
                    "rabbitmq_name": each["product"],
                    "rabbitmq_version": each["product_version"],
                }
                for each in statuses
            },
            "maintenance_status": maintained,
            "alarms": alarms,
            "partitions": {},
            "listeners": listeners,
            "feature_flags": flags,
            "cluster_tags": [],
        },
    )


def statuses_of(client: NodeClient) -> list[Row]:
    """Return the status of each node that answers, by name."""
    found = client.rows("everywhere.rows", what="status")
    return sorted((each["row"] for each in found if "row" in each), key=itemgetter("node"))


def version_line(status: Row) -> str:
    return (
        f"{status['node']}: {status['product']} {status['product_version']} on {status['platform']}"
    )


def lowered(listener: Row) -> str:
    line = listener_line(listener)
    return line[0].lower() + line[1:]


def waited(
    call: Invocation, is_so: Callable[[], bool], what: str, timeout_s: float = WAIT_TIMEOUT_S
) -> None:
    """Look again and again.  Failure once it has taken too long."""
    end = call.time.monotonic() + call.timeout_s(timeout_s)
    while True:
        try:
            if is_so():
                return
        except (NodeUnreachable, RequestRefused):
            pass
        if call.time.monotonic() >= end:
            raise Failure(f"{what} in time")
        call.time.sleep(POLL_INTERVAL_S)


def is_up(call: Invocation) -> bool:
    """True if the node serves: it is one of its cluster, and listens."""
    row = call.client.call("status")
    cluster = row["cluster"]
    has_entered = cluster is None or cluster["has_entered"]
    return bool(has_entered and "amqp" in row["addresses"])


def await_startup(call: Invocation) -> None:
    waited(call, lambda: is_up(call), "the node is not up")


def await_online_nodes(call: Invocation) -> None:
    if not call.words[0].isdecimal():
        raise UsageFailure(f"'{call.words[0]}' is no number of nodes")
    wanted = int(call.words[0])

    def are_there() -> bool:
        row = call.client.call("status")
        running = [each for each in nodes_of(call.client, row) if each["state"] == "running"]
        return len(running) >= wanted

    waited(call, are_there, f"{wanted} nodes are not online")


def environment(call: Invocation) -> Report:
    """Return what there is to say of a configuration: the status; how it came about is in the
    log."""
    row = call.client.call("status")
    return Report([f"{name}: {value}" for name, value in row.items()], row)


def report(call: Invocation) -> Report:
    """Report status, cluster and lists, for a ticket."""
    lines = [*status(call).lines, *cluster_status(call).lines]
    for verb in ("vhosts", "queues", "connections", "channels", "policies", "permissions"):
        rows = call.client.rows(f"{verb}.list")
        lines += [f"Listing {verb} ...", *(str(row) for row in rows), ""]
    return Report(lines)


def node_health_check(_call: Invocation) -> Report:
    return Report(["This command is DEPRECATED and is a no-op. See rabbitmq-diagnostics."])


def server_version(call: Invocation) -> Report:
    return Report([str(call.client.call("status")["product_version"])])


def pinging(call: Invocation) -> str:
    milliseconds = int(call.timeout_s(60.0) * 1000)
    return f"Will ping the node in its data directory. Timeout: {milliseconds} ms."


VERBS: Mapping[str, Verb] = {
    "ping": Verb(ping, "", pinging, note="says whether the node answers, not just its process"),
    "version": Verb(show_version, note="asks the node, if one runs, whom it behaves like"),
    "status": Verb(
        status, "", "Status of node {node} ...",
        note="without what is Erlang's: processes, run queue, a breakdown of memory",
    ),
    "cluster_status": Verb(
        cluster_status, "", "Cluster status of node {node} ...",
        note="listeners and versions are those of the nodes that answer",
    ),
    "await_startup": Verb(await_startup),
    "await_online_nodes": Verb(
        await_online_nodes, "<count>",
        "Will wait for at least {0} nodes to join the cluster.", (1, 1),
    ),
    "environment": Verb(
        environment, "", "Application environment of node {node} ...",
        note="the status; there is no Erlang environment",
    ),
    "report": Verb(report, "", "Reporting server status of node {node} ..."),
    "node_health_check": Verb(node_health_check),
    "server_version": Verb(
        server_version, "", "Asking node {node} for its RabbitMQ version..."
    ),
}  # fmt: skip


UNITS_BYTES: Mapping[str, int] = {
    "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
PREFIXES = ("FLUFFLE_", "RABBITMQ_")
SECRETS = ("PASS", "SECRET", "COOKIE", "URL", "_USER")
"""Words in the name of a variable whose value is hidden."""


def memory_breakdown(call: Invocation) -> Report:
    """Row of the resident memory as a whole: Python does not divide it."""
    unit = call.options.get("unit", "gb").lower()
    if unit not in UNITS_BYTES:
        raise UsageFailure(f"unit '{unit}' is not supported; there are {', '.join(UNITS_BYTES)}")
    used = call.client.call("status")["memory_bytes"] or 0
    text = f"{used}" if unit == "bytes" else f"{used / UNITS_BYTES[unit]:.4f}"
    content = {"resident": {"bytes": used, "percentage": 100.0}}
    return Report([f"resident: {text} {unit} (100.0%)"], content)


def os_env(_call: Invocation) -> Report:
    """Report the environment of this command, which is mostly that of the node."""
    found = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}
    shown = {
        name: "***" if any(secret in name for secret in SECRETS) else value
        for name, value in sorted(found.items())
    }
    return Report([f"{name}={value}" for name, value in shown.items()], shown)


def cipher_suites(call: Invocation) -> Report:
    names = [row["name"] for row in call.client.rows("node.ciphers")]
    return Report(names, names)


def tls_versions(_call: Invocation) -> Report:
    return Report(["tlsv1.3", "tlsv1.2"], {"versions": ["tlsv1.3", "tlsv1.2"]})


def log_location(_call: Invocation) -> Report:
    return Report(["<stderr>"], {"log_files": ["<stderr>"]})


def log_tail(_call: Invocation) -> Report:
    raise Failure(
        "the node logs to its standard error, which whoever has started it keeps: journalctl -u "
        "fluffle, docker logs, kubectl logs"
    )


DIAGNOSTICS: Mapping[str, Verb] = {
    "memory_breakdown": Verb(
        memory_breakdown, "", "Reporting memory breakdown on node {node}...",
        options={"unit": TEXT}, note="one number: resident memory",
    ),
    "os_env": Verb(
        os_env, "", "Listing RabbitMQ-specific environment variables defined on node {node}...",
        note="variables of the command, FLUFFLE_* and RABBITMQ_*; those with secrets are hidden",
    ),
    "cipher_suites": Verb(
        cipher_suites, "", "Listing available cipher suites in OpenSSL format",
        options={"format": TEXT, "all": FLAG}, note="of OpenSSL, whatever --format says",
    ),
    "tls_versions": Verb(tls_versions, "", "Listing all TLS versions supported by the runtime..."),
    "log_location": Verb(
        log_location, "", "Log file location(s) on node {node} ...", options={"all": FLAG},
        note="a node logs to its standard error",
    ),
    "log_tail": Verb(
        log_tail, "", options={"number": TEXT},
        note="refused: a node logs to its standard error, and has no file",
    ),
}  # fmt: skip


NAMED: Mapping[str, str] = {
    "emergency": "critical", "alert": "critical", "notice": "warning",
}  # fmt: skip
"""Levels of RabbitMQ that we have not."""


def share_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def watermark(call: Invocation) -> ShareOrSize:
    """`0.4`, or `absolute 2GB`.  Raises `UsageFailure`."""
    if call.words[0] == "absolute":
        try:
            return ShareOrSize(size_bytes=size_of(call.word(1)))
        except ValueError as error:
            raise UsageFailure(f"Invalid format, {error}", DATA) from error
    share = share_of(call.words[0])
    if share is None or not 0 <= share <= 1:
        raise UsageFailure(
            "Bad argument: The threshold should be a fraction between 0.0 and 1.0", DATA
        )
    return ShareOrSize(share=share)


def free_limit(call: Invocation) -> ShareOrSize:
    """`50MB`, or `mem_relative 1.5`.  Raises `UsageFailure`."""
    if call.words[0] == "mem_relative":
        share = share_of(call.word(1))
        if share is None or share < 0:
            raise UsageFailure("Bad argument: the ratio should be a number", DATA)
        return ShareOrSize(share=share)
    try:
        return ShareOrSize(size_bytes=size_of(call.words[0]))
    except ValueError as error:
        raise UsageFailure(str(error), DATA) from error


def set_memory_watermark(call: Invocation) -> None:
    call.client.call("node.memory_watermark", **watermark(call).argument())


def set_disk_free_limit(call: Invocation) -> None:
    call.client.call("node.disk_free_limit", **free_limit(call).argument())


def level_of(call: Invocation) -> str:
    """Return a level of logging.  Failure."""
    level = NAMED.get(call.words[-1], call.words[-1])
    if level not in LEVELS:
        raise Failure(f"level {level} is not supported. Try one of {', '.join(LEVELS)}")
    return level


def set_log_level(call: Invocation) -> None:
    call.client.call("node.log_level", level=level_of(call))


def rotate_logs(_call: Invocation) -> None:
    raise Failure("This command does not rotate logs anymore [deprecated]")


def set_cluster_name(call: Invocation) -> None:
    """Set the cluster's name as RabbitMQ keeps it, for those who read it there."""
    call.client.call("global_parameters.set", name="cluster_name", value=f'"{call.words[0]}"')


def suspend_listeners(_call: Invocation) -> Report:
    raise Failure("listeners are not closed alone; use rabbitmq-upgrade drain")


def watermark_banner(call: Invocation) -> str:
    absolute = call.word(0) == "absolute"
    threshold = f"{call.word(1)} bytes" if absolute else call.word(0)
    return f"Setting memory threshold on {call.node} to {threshold} ..."


def disk_banner(call: Invocation) -> str:
    is_share = call.word(0) == "mem_relative"
    limit = f"{call.word(1)} times the total RAM" if is_share else f"{call.word(0)} bytes"
    return f"Setting disk free limit on {call.node} to {limit} ..."


SETTINGS: Mapping[str, Verb] = {
    "set_vm_memory_high_watermark": Verb(
        set_memory_watermark, "<fraction> | absolute <value>", watermark_banner, (1, 2),
        check=watermark,
    ),
    "set_disk_free_limit": Verb(
        set_disk_free_limit, "<limit> | mem_relative <ratio>", disk_banner, (1, 2),
        check=free_limit,
    ),
    "set_log_level": Verb(
        set_log_level, "[<category>] <level>",
        lambda call: f'Setting log level to "{call.words[-1]}" ...', (1, 2),
        check=level_of,
        note="of everything: a category is accepted",
    ),
    "rotate_logs": Verb(rotate_logs),
    "set_cluster_name": Verb(
        set_cluster_name, "<name>", "Setting cluster name to {0} ...", (1, 1),
        note="kept as the global parameter cluster_name; nodes know each other by --cluster-name",
    ),
    "suspend_listeners": Verb(suspend_listeners, note="refused: drain closes them, and all else"),
}  # fmt: skip
