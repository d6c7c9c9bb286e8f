"""`fluffle status`."""

from __future__ import annotations

import click

from fluffle.broker.cli.client import Client
from fluffle.broker.cli.options import as_json, on_node, print_row
from fluffle.broker.cli.tables import Row

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command()
@as_json
@on_node
def status(client: Client, *, is_json: bool) -> None:
    """Whether a node runs, what it is, and how it is.

    Exits with 0 when it answers and 69 when it does not, so that it serves as a probe.
    """
    row = client.call("status")
    print_row(row if is_json else for_people(row), is_json=is_json)


def nodes_of(client: Client, row: Row) -> list[Row]:
    """Return those of the cluster of a node whose status this is, or itself if it is alone."""
    if row["cluster"] is not None:
        return list(client.rows("cluster.status"))
    unknown = dict.fromkeys(("address", "boot", "hindrance", "clock_ahead_ms"))
    itself = {"node": row["node"], "state": "running", "role": "alone", "link": True}
    return [{**itself, **unknown, "maintenance": row["maintenance"]}]


def for_people(row: Row) -> Row:
    """Return the status with units."""
    alarms = ", ".join(row["alarms"]) or "none"
    addresses = row["addresses"].items()
    return {
        "node": row["node"],
        "version": f"{row['version']}, behaves like {row['product']} {row['product_version']}",
        "process": f"{row['pid']}, {row['platform']}",
        "up for": duration(row["uptime_s"]),
        **({"cluster": shown_cluster(row["cluster"])} if row["cluster"] else {}),
        "data in": row["data_dir"],
        "listens on": [f"{name} {shown_address(*address)}" for name, address in addresses],
        **({"maintenance": "drained; fluffle node revive"} if row["maintenance"] else {}),
        "alarms": alarms,
        "memory": f"{size(row['memory_bytes'])}, alarm at {size(row['memory_bytes_max'])}",
        "disk": f"{size(row['disk_free_bytes'])} free, alarm at {size(row['disk_free_bytes_min'])}",
        **{name: row[name] for name in ("vhosts", "users", "queues")},
        "crashed queues": row["queues_crashed"],
        **{name: row[name] for name in ("connections", "channels")},
    }


def shown_cluster(row: Row) -> str:
    """Return how it is, in a line."""
    if not row["has_entered"]:
        return f"{row['name']}, waiting to be one of it{shown_awaited(row['awaited'])}"
    leader = f"led by {row['leader']}" if row["leader"] else "without a leader"
    reasons: dict[str, list[str]] = {}
    for each in row["hindered"]:
        reasons.setdefault(each["advice"], []).append(each["reason"])
    hindered = "".join(f"; {', '.join(each)}: {advice}" for advice, each in reasons.items())
    return f"{row['name']}, {row['running']} of {row['nodes']} nodes, {leader}{hindered}"


def shown_awaited(row: Row) -> str:
    """Show what is awaited, and what helps."""
    linked, others = (", ".join(row[name]) or "none" for name in ("linked", "of"))
    notes = (f"linked: {linked} of {others}", *row["hindered"], row["advice"])
    return "".join(f"; {each}" for each in notes)


def shown_address(host: str, port: int) -> str:
    if host.startswith("/"):
        return f"unix:{host}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def size(count_bytes: float | None) -> str:
    """Format a size in the unit that leaves at most three digits."""
    if count_bytes is None:
        return "unknown"
    unit = 0
    while count_bytes >= 1000 and unit < len(UNITS) - 1:
        count_bytes, unit = count_bytes / 1024, unit + 1
    return f"{count_bytes:.3g} {UNITS[unit]}"


def duration(seconds: int) -> str:
    """Days only when there are some."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02}:{minutes:02}:{seconds:02}"
    return f"{days} d {clock}" if days else clock
