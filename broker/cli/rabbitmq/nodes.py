"""Status of a node and its cluster, listeners and alarms in RabbitMQ's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from operator import itemgetter

from fluffle.broker.base.features import FEATURES
from fluffle.broker.cli.client import Client, RequestRefused, Row, Unreachable
from fluffle.broker.cli.rabbitmq.plugins import PLUGINS
from fluffle.broker.cli.rabbitmq.verb import (
    Failure,
    Invocation,
    Report,
    RowTable,
    UsageFailure,
    Verb,
)
from fluffle.broker.cli.status import nodes_of

PROTOCOLS: Mapping[str, tuple[str, str]] = {
    "amqp": ("amqp", "AMQP 0-9-1"),
    "amqps": ("amqp/ssl", "AMQP 0-9-1 over TLS"),
    "management": ("http", "HTTP API"),
    "metrics": ("http/prometheus", "Prometheus exporter API over HTTP"),
    "cluster": ("clustering", "inter-node communication"),
}
"""By our names: RabbitMQ's, and what it is for."""


def listeners_of(status: Row) -> list[Row]:
    """Return the listeners; a unix socket is its path, and has port 0."""
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
    except (Unreachable, RequestRefused):
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


def statuses_of(client: Client) -> list[Row]:
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
        except (Unreachable, RequestRefused):
            pass
        if call.time.monotonic() >= end:
            raise Failure(f"{what} in time")
        call.time.sleep(POLL_INTERVAL_S)


def is_up(call: Invocation) -> bool:
    """Whether the node serves: it is one of its cluster, and listens."""
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


def feature_flags(_call: Invocation) -> RowTable:
    return RowTable(("name", "state"), ({"name": name, "state": "enabled"} for name in FEATURES))


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
