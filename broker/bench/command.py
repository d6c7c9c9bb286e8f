"""`fluffle bench`: from options to a run, its figures and an exit code."""

from __future__ import annotations

import json
import secrets
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fluffle.broker.bench.load import Plan, Tally

UNAVAILABLE = 69
AT_LEAST_ONE = click.IntRange(min=1)


@click.command()
@click.argument("url", metavar="amqp://USER:PASSWORD@HOST:PORT/VHOST", default="amqp://localhost")
@click.option("--publishers", type=AT_LEAST_ONE, default=1, show_default=True, help="How many.")
@click.option(
    "--consumers", type=click.IntRange(min=0), default=1, show_default=True, help="How many."
)
@click.option(
    "--queues", "queue_count", type=AT_LEAST_ONE, default=1, show_default=True, help="How many."
)
@click.option("--queue", "name", metavar="NAME", help="Of the queue, or the start of the names.")
@click.option(
    "--queue-type",
    type=click.Choice(["classic", "quorum"]),
    default="classic",
    show_default=True,
    help="Both are durable.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long is published.",
)
@click.option(
    "--size", "body_bytes", type=click.IntRange(min=8), default=100, show_default=True,
    help="Bytes of a body.",
)  # fmt: skip
@click.option(
    "--rate",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Messages a second, all told; else as fast as confirms come.",
)
@click.option(
    "--window", type=AT_LEAST_ONE, default=200, show_default=True,
    help="How many publishes of each publisher may be unconfirmed.",
)  # fmt: skip
@click.option(
    "--prefetch", type=click.IntRange(1, 65535), default=200, show_default=True,
    help="How many messages each consumer may hold.",
)  # fmt: skip
@click.option("--transient", is_flag=True, help="Messages that need not survive a restart.")
@click.option("--keep", is_flag=True, help="Leave the queues, and what is in them.")
@click.option("--json", "is_json", is_flag=True, help="Print the figures as JSON.")
def bench(url: str, *, is_json: bool, **options: Any) -> None:
    """Publish and consume as fast as it goes, or at a rate, and say how fast and how late.

    Every publish is confirmed. Queues are made for it (bench.…) and deleted at the end. Latencies
    are percentiles in milliseconds, from the publish to its confirm and to who receives it. Exits
    with 0 if all that was confirmed was received, and 1 if not.
    """
    import asyncio  # noqa: PLC0415  slow, and --help needs none of it

    from fluffle.broker.amqp_client import ConnectionEnded  # noqa: PLC0415
    from fluffle.broker.bench.load import BenchRun  # noqa: PLC0415

    plan = plan_of(url, options)

    async def work() -> dict[str, Any]:
        return await BenchRun(plan, report_nothing if is_json else report_progress).run()

    try:
        figures = asyncio.run(work())
    except ConnectionEnded as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(UNAVAILABLE)
    for line in [json.dumps(figures)] if is_json else lines(figures):
        click.echo(line)
    is_whole = not plan.consumers or figures["received"] >= figures["confirmed"]
    sys.exit(0 if is_whole else 1)


def plan_of(url: str, options: dict[str, Any]) -> Plan:
    """UsageError for what is no such address."""
    from fluffle.broker.amqp_client import ClientOptions, address_of  # noqa: PLC0415
    from fluffle.broker.bench.load import Plan  # noqa: PLC0415  as above

    try:
        at = address_of(url)
    except ValueError as error:
        raise click.UsageError("write amqp://USER:PASSWORD@HOST:PORT/VHOST") from error
    if at.is_encrypted:
        raise click.UsageError("write amqp://USER:PASSWORD@HOST:PORT/VHOST")
    name = options.pop("name") or f"bench.{secrets.token_hex(4)}"
    count = options.pop("queue_count")
    queues = (name,) if count == 1 else tuple(f"{name}.{number}" for number in range(1, count + 1))
    client_options = ClientOptions(user=at.user, password=at.password, vhost=at.vhost)
    return Plan(
        (at.host, at.port),
        client_options,
        queues,
        persistent=not options.pop("transient"),
        **options,
    )


def report_nothing(_tally: Tally, _seconds: float) -> None:
    """Report nothing, for scripts."""


def report_progress(tally: Tally, seconds: float) -> None:
    """Print how far the run is, for people."""
    if sys.stderr.isatty():
        click.echo(
            f"{seconds:5.0f} s  {tally.published} published, {tally.confirmed} confirmed, "
            f"{tally.received} received",
            err=True,
        )


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    rows = [
        f"{name:<10} {figures[name]:>10} {figures[f'{name}_per_s']:>10.0f}/s"
        for name in ("published", "confirmed", "received")
    ]
    if figures["refused"]:
        rows.append(f"{'refused':<10} {figures['refused']:>10}")
    for name, text in (("confirm_ms", "confirm"), ("end_to_end_ms", "end to end")):
        known = {key: value for key, value in figures[name].items() if value is not None}
        shown = "  ".join(f"{key.replace('_', '.')} {value:g}" for key, value in known.items())
        rows.append(f"{text:<10} {shown + ' ms' if shown else 'nothing'}")
    return rows
