"""`fluffle queues`, `fluffle exchanges`, `fluffle bindings`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

import click

from fluffle.broker.cli.client import (
    MORE_VOLUMES,
    VOLUMES,
    NodeClient,
    RequestRefused,
    with_volumes,
)
from fluffle.broker.cli.options import (
    MeasuredColumns,
    as_json,
    in_vhost,
    node_names,
    on_node,
    only_vhost,
    print_row,
    prints_rows,
    queue_names,
)
from fluffle.broker.cli.output import ProgressBar, Row, counted

FORCE_SHRINK = """\
What those have confirmed that are given up and this node never got is lost; what was acknowledged
there comes again.  How much that is nobody here knows: those that can be reached have no more.
Their members are deleted when they come back.  The queue is on this node alone then; have it on
others again with `fluffle queues add-member` or `grow`."""


STAY = "are nowhere else and stay"
UNFINISHED = ("under_way", "superseded")
"""Outcomes of a change whose members are not as was asked for."""
WAITING_SHOWN_MAX = 20
"""Queues of which it is said what is still under way."""

MORE = (
    "node", "durable", "auto_delete", "exclusive", "owner", "arguments", "policy",
    "operator_policy", "effective_policy_definition", "single_active_consumer_tag",
    "exclusive_consumer_tag", "group",
    "delivery_limit", "leader", "members", "online",
)  # fmt: skip
"""Columns of a queue, on demand; the last five of quorum queues."""


@click.group()
def queues() -> None:
    """Queues: what is in them, and away with it."""


@queues.command("list")
@prints_rows(
    "vhost",
    "name",
    "type",
    "state",
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "consumers",
    more=MORE,
    measured=MeasuredColumns((*VOLUMES, *MORE_VOLUMES), with_volumes),
)
@only_vhost
def list_queues(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All queues."""
    return client.rows("queues.list", vhost=vhost)


@queues.command()
@click.argument("name", shell_complete=queue_names)
@in_vhost
@as_json
@on_node
def show(client: NodeClient, name: str, vhost: str, *, is_json: bool) -> None:
    """Everything about one queue."""
    print_row(client.call("queues.show", name=name, vhost=vhost), is_json=is_json)


@queues.command()
@click.argument("name", shell_complete=queue_names)
@in_vhost
@on_node
def purge(client: NodeClient, name: str, vhost: str) -> None:
    """Drop the messages that are ready; prints how many."""
    click.echo(client.call("queues.purge", name=name, vhost=vhost)["messages"])


@queues.command()
@click.argument("name", shell_complete=queue_names)
@prints_rows(
    "position",
    "exchange",
    "routing_key",
    "priority",
    "redelivered",
    "delivery_count",
    "payload_bytes",
    "payload",
    more=("acquired_count", "expires_at_ms", "headers", "properties", "payload_encoding"),
)
@in_vhost
@click.option("--count", type=int, default=1, show_default=True, help="How many messages.")
@click.option("--offset", type=int, default=0, show_default=True, help="Behind how many others.")
@click.option("--body-bytes", type=int, help="How much of each body; 1024 unless it is said.")
def peek(
    client: NodeClient, *, name: str, vhost: str, count: int, offset: int, body_bytes: int | None
) -> Iterable[Row]:
    """Look at messages that are ready, from the head on; nothing changes by that."""
    return client.rows(
        "queues.peek", name=name, vhost=vhost, count=count, offset=offset, body_bytes=body_bytes
    )


@queues.command()
@click.argument("name", metavar="FROM", shell_complete=queue_names)
@click.argument("to", metavar="TO", shell_complete=queue_names)
@in_vhost
@click.option(
    "--where", metavar="HEADER=VALUE", multiple=True, help="Only what has this header; all of them."
)
@click.option("--routing-key", metavar="PATTERN", help="Only what a topic binding would match.")
@click.option("--rate", type=int, metavar="NUMBER", help="Not more than so many in a second.")
@click.option("--limit", type=int, metavar="NUMBER", help="Not more than so many.")
@as_json
@on_node
def move(client: NodeClient, *, where: tuple[str, ...], is_json: bool, **more: object) -> None:
    """Move messages that are ready to another queue; says how many, while it works, too.

    What it has not moved when it is interrupted stays where it was.
    """
    last: Row = {"moved": 0}
    try:
        with ProgressBar("moved") as progress:
            for last in client.rows("queues.move", where=list(where), **more):
                progress.at(last["moved"], last["ready"])
    except KeyboardInterrupt:
        raise RequestRefused(
            f"interrupted: at least {last['moved']} messages were moved, all others are where they "
            "were"
        ) from None
    if is_json:
        click.echo(json.dumps({"moved": last["moved"], "skipped": last["skipped"]}))
        return
    text = f"{last['moved']} moved"
    click.echo(f"{text}, {last['skipped']} stay" if last["skipped"] else text)


@queues.command()
@click.argument("name", shell_complete=queue_names)
@in_vhost
@click.option(
    "--type", "queue_type", default="quorum", show_default=True, help="What it is to become."
)
@as_json
@on_node
def convert(client: NodeClient, *, name: str, vhost: str, queue_type: str, is_json: bool) -> None:
    """Have a classic queue become a quorum queue in its place, with all its messages.

    It stays what it is, with all of them, if that is interrupted.
    """
    last: Row = {}
    with ProgressBar("copied") as progress:
        for last in client.rows("queues.convert", name=name, vhost=vhost, queue_type=queue_type):
            progress.at(last["copied"], last["ready"])
    print_answer({"copied": last["copied"]}, f"{last['copied']} copied", is_json=is_json)


@queues.command()
@click.argument("name", shell_complete=queue_names)
@in_vhost
@click.option("--drop-damaged", is_flag=True, help="Give up what cannot be read.")
@on_node
def repair(client: NodeClient, *, name: str, vhost: str, drop_damaged: bool) -> None:
    """Have a crashed queue go on behind damaged messages; prints how many are dropped."""
    result = client.call("queues.repair", name=name, vhost=vhost, drop_damaged=drop_damaged)
    click.echo(result["messages"])


@queues.command()
@click.argument("name", shell_complete=queue_names)
@in_vhost
@click.option("--if-unused", is_flag=True, help="Only if it has no consumers.")
@click.option("--if-empty", is_flag=True, help="Only if no message is ready in it.")
@on_node
def delete(client: NodeClient, *, name: str, vhost: str, if_unused: bool, if_empty: bool) -> None:
    """Remove a queue with its messages; prints how many were ready, or `unknown`."""
    result = client.call(
        "queues.delete", name=name, vhost=vhost, if_unused=if_unused, if_empty=if_empty
    )
    messages = result["messages"]
    click.echo("unknown" if messages is None else messages)


@queues.command()
@click.argument("name", shell_complete=queue_names)
@prints_rows("node", "role", "wanted", "running")
@in_vhost
def members(client: NodeClient, *, name: str, vhost: str) -> Iterable[Row]:
    """On which nodes a quorum queue is."""
    return client.rows("queues.members", name=name, vhost=vhost)


@queues.command("add-member")
@click.argument("name", shell_complete=queue_names)
@click.argument("node", shell_complete=node_names)
@in_vhost
@on_node
def add_member(client: NodeClient, *, name: str, node: str, vhost: str) -> None:
    """Have a quorum queue on one node more."""
    client.call("queues.add_member", name=name, node=node, vhost=vhost)


@queues.command("delete-member")
@click.argument("name", shell_complete=queue_names)
@click.argument("node", shell_complete=node_names)
@in_vhost
@on_node
def delete_member(client: NodeClient, *, name: str, node: str, vhost: str) -> None:
    """Have a quorum queue on one node less."""
    client.call("queues.delete_member", name=name, node=node, vhost=vhost)


@queues.command()
@click.argument("name", shell_complete=queue_names)
@click.argument("node", shell_complete=node_names)
@in_vhost
@on_node
def transfer(client: NodeClient, *, name: str, node: str, vhost: str) -> None:
    """Have another member lead a quorum queue."""
    client.call("queues.transfer", name=name, node=node, vhost=vhost)


@queues.command()
@click.argument("node", shell_complete=node_names)
@as_json
@on_node
def grow(client: NodeClient, node: str, *, is_json: bool) -> None:
    """Have all quorum queues on one node more; returns once they count on it."""
    results = print_results(client.rows("queues.grow", node=node))
    changed, already = results["changed"], results["unchanged"]
    text = f"{counted(changed, 'has', 'have')} got a member on {node}"
    if not results:
        text = f"there is no quorum queue that could get a member on {node}"
    if already:
        text += f", {already} {'has' if already == 1 else 'have'} had one"
    print_answer({"queues": changed, "already": already}, text, is_json=is_json)


@queues.command()
@click.argument("node", shell_complete=node_names)
@as_json
@on_node
def shrink(client: NodeClient, node: str, *, is_json: bool) -> None:
    """Have all quorum queues on one node less, but those that are nowhere else; returns once none
    needs it any more."""
    results = print_results(client.rows("queues.shrink", node=node))
    changed, stay = results["changed"] + results["unchanged"], results["refused"]
    text = f"{counted(changed, 'has', 'have')} lost the member on {node}"
    if not results:
        text = f"no quorum queue has a member on {node}"
    if stay:
        text += f", {stay} {'is nowhere else and stays' if stay == 1 else STAY}"
    print_answer({"queues": changed, "nowhere_else": stay}, text, is_json=is_json)


def print_results(rows: Iterable[Row]) -> Counter[str]:
    """Return how many queues there are of each result.  Refused, with what is still under way, or
    is not wanted any more."""
    results: Counter[str] = Counter()
    waiting: list[str] = []
    for row in rows:
        results[row["result"]] += 1
        if row["result"] in UNFINISHED and len(waiting) < WAITING_SHOWN_MAX:
            waiting.append(f"queue '{row['name']}' in vhost '{row['vhost']}' {row['error']}")
    if more := sum(results[each] for each in UNFINISHED) - len(waiting):
        waiting.append(f"and so it is with {more} more")
    if waiting:
        raise RequestRefused("\n".join(waiting))
    return results


@queues.command("force-shrink")
@click.argument("name", required=False, shell_complete=queue_names)
@click.option("--all", "is_all", is_flag=True, help="All that have lost most of their members.")
@only_vhost
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_node
def force_shrink(
    client: NodeClient, *, name: str | None, vhost: str | None, is_all: bool, yes: bool
) -> None:
    """Have a quorum queue go on with its member here alone, when most are lost for good."""
    if is_all == (name is not None):
        raise click.UsageError("write NAME, or --all")
    rows = list(client.rows("queues.check_force_shrink", name=name, vhost=vhost))
    if name is not None and rows[0]["refused"]:
        raise click.ClickException(rows[0]["refused"])
    for row in rows:
        given_up = ", ".join(row["given_up"])
        click.echo(
            f"queue '{row['name']}' in vhost '{row['vhost']}' ends here with entry "
            f"{row['last_index']}; given up: {given_up}"
        )
    if not rows:
        click.echo("no queue with a member here has lost most of its members")
        return
    click.echo(FORCE_SHRINK)
    if not yes:
        click.confirm("Go on?", abort=True)
    for row in rows:
        client.call("queues.force_shrink", name=row["name"], vhost=row["vhost"])


@queues.command()
@prints_rows("virtual_host", "name", "type", if_none=lambda _client: "this node can be stopped")
def critical(client: NodeClient) -> Iterable[Row]:
    """Queues that would lose their majority if this node stopped now."""
    return client.rows("queues.critical")


@queues.command()
@as_json
@on_node
def rebalance(client: NodeClient, *, is_json: bool) -> None:
    """Have all nodes lead equally many quorum queues."""
    row = client.call("queues.rebalance")
    text = f"{counted(row['queues'], 'is', 'are')} given another leader"
    print_answer(row, text, is_json=is_json)


def print_answer(row: Row, text: str, *, is_json: bool) -> None:
    """Print an answer in words, or as numbers."""
    click.echo(json.dumps(row) if is_json else text)


@click.group()
def exchanges() -> None:
    """Exchanges: which there are."""


@exchanges.command("list")
@prints_rows(
    "vhost", "name", "type", "durable", "auto_delete", "internal", more=["arguments", "policy"]
)
@only_vhost
def list_exchanges(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All exchanges; the default one has no name."""
    return client.rows("exchanges.list", vhost=vhost)


@click.group()
def bindings() -> None:
    """Bindings: what leads where."""


@bindings.command("list")
@prints_rows(
    "vhost",
    "source_name",
    "destination_name",
    "destination_kind",
    "routing_key",
    "arguments",
    more=["source_kind"],
)
@only_vhost
def list_bindings(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All bindings, those that the default exchange has by itself included."""
    return client.rows("bindings.list", vhost=vhost)
