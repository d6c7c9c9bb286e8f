"""`fluffle status`, `fluffle node` and `fluffle alarms`: one node, while it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import click

from fluffle.broker.cli.client import NodeClient
from fluffle.broker.cli.options import as_json, on_node, print_row, prints_rows
from fluffle.broker.cli.output import Row

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command()
@as_json
@on_node
def status(client: NodeClient, *, is_json: bool) -> None:
    """Show if a node runs, its version and its health.

    Exits with 0 when it answers and 69 when it does not, so that it serves as a probe.
    """
    row = client.call("status")
    print_row(row if is_json else for_people(row), is_json=is_json)


def nodes_of(client: NodeClient, row: Row) -> list[Row]:
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


FACTORS: Mapping[str, int] = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb", "pb"), 1)},
    **{unit: 1024**power for power, unit in enumerate(("k", "m", "g", "t", "p"), 1)},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib", "pib"), 1)},
}
"""Units of amounts of memory and disk, as RabbitMQ's commands have them."""
SIZE = re.compile(r"(\d+)\s*([a-z]*)")


class ShareOrSize(NamedTuple):
    """A share of what there is, or a size in bytes."""

    share: float | None = None
    size_bytes: int | None = None

    def argument(self) -> dict[str, float | int]:
        """Argument for a verb that takes either."""
        given = {"share": self.share, "size_bytes": self.size_bytes}
        return {name: value for name, value in given.items() if value is not None}


def amount_of(text: str) -> ShareOrSize:
    """Parse a share, which is a number with a point, or a size.  ValueError."""
    if re.fullmatch(r"\d*\.\d+", text):
        return ShareOrSize(share=float(text))
    return ShareOrSize(size_bytes=size_of(text))


def size_of(text: str) -> int:
    """Parse a size in bytes.  ValueError."""
    found = SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in FACTORS:
        raise ValueError(f"'{text}' is no size such as 50MB or 2GiB, and no share such as 0.4")
    return int(found[1]) * FACTORS[found[2]]


LEVELS = ("debug", "info", "warning", "error", "critical", "none")


def amount(context: click.Context, parameter: click.Parameter, text: str) -> ShareOrSize:
    """Return a share such as 0.4, or a size such as 2GB."""
    try:
        return amount_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.group()
def node() -> None:
    """This node: drained, or set otherwise, until it ends."""


@node.command()
@on_node
def drain(client: NodeClient) -> None:
    """Take the node out of service: others lead, its clients go; prints how many went.

    They are told 320 CONNECTION_FORCED, and new ones find nobody. It stays a member of its queues,
    and can be stopped then, or revived.
    """
    click.echo(client.call("node.drain")["closed"])


@node.command()
@on_node
def revive(client: NodeClient) -> None:
    """Put it into service again: it takes clients, and leads what it led."""
    client.call("node.revive")


@node.command()
@click.argument("amount", metavar="SHARE|SIZE", callback=amount)
@on_node
def memory_watermark(client: NodeClient, amount: ShareOrSize) -> None:
    """Pause publishers above that much memory: a share of what there is, or a size."""
    client.call("node.memory_watermark", **amount.argument())


@node.command()
@click.argument("amount", metavar="SIZE|SHARE", callback=amount)
@on_node
def disk_free_limit(client: NodeClient, amount: ShareOrSize) -> None:
    """Pause publishers when less than that is free: a size, or a share of the memory."""
    client.call("node.disk_free_limit", **amount.argument())


@node.command()
@click.argument("level", type=click.Choice(LEVELS))
@on_node
def log_level(client: NodeClient, level: str) -> None:
    """Log from this level on."""
    client.call("node.log_level", level=level)


@click.group()
def alarms() -> None:
    """Resources that are low, so that publishers wait."""


@alarms.command("list")
@prints_rows("node", "resource", if_none=lambda _client: "no alarm")
def list_alarms(client: NodeClient) -> Iterable[Row]:
    """Alarms of all nodes, as far as this one has heard."""
    return client.rows("alarms.list")
