"""`fluffle policies`, `operator-policies`, `parameters` and `global-parameters`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from fluffle.broker.cli.client import NodeClient
from fluffle.broker.cli.options import (
    Command,
    in_vhost,
    on_node,
    only_vhost,
    policy_names,
    prints_rows,
)
from fluffle.broker.cli.output import Row

COLUMNS = ("vhost", "name", "pattern", "apply-to", "definition", "priority")


def policy_options(set_policy: Command) -> Command:
    """Return what there is to say of a policy."""
    options: list[Callable[[Command], Command]] = [
        click.argument("name"),
        click.argument("pattern"),
        click.argument("definition"),
        click.option("--priority", type=int, default=0, help="The highest one counts."),
        click.option(
            "--apply-to",
            "applies_to",
            metavar="WHAT",
            default="all",
            help="queues, classic_queues, quorum_queues, streams, exchanges, or all.",
        ),
        in_vhost,
        on_node,
    ]
    for option in reversed(options):
        set_policy = option(set_policy)
    return set_policy


@click.group()
def policies() -> None:
    """Settings for all queues and exchanges whose names match."""


@policies.command("list")
@prints_rows(*COLUMNS)
@only_vhost
def list_policies(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All policies, those that count first last."""
    return client.rows("policies.list", vhost=vhost)


@policies.command("set")
@policy_options
def set_policy(client: NodeClient, **fields: object) -> None:
    """Have queues and exchanges go by settings, in the place of a policy of that NAME.

    PATTERN is a regular expression that is looked for in their names, DEFINITION a JSON object such
    as '{"max-length": 1000}'.  Of the policies that match, the one with the highest priority counts
    alone.
    """
    client.call("policies.set", **fields)


@policies.command()
@click.argument("name", shell_complete=policy_names)
@in_vhost
@on_node
def clear(client: NodeClient, name: str, vhost: str) -> None:
    """Remove a policy."""
    client.call("policies.clear", name=name, vhost=vhost)


@click.group("operator-policies")
def operator_policies() -> None:
    """Limits that no policy goes beyond."""


@operator_policies.command("list")
@prints_rows(*COLUMNS)
@only_vhost
def list_operator_policies(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All policies of operators, those that count first last."""
    return client.rows("operator_policies.list", vhost=vhost)


@operator_policies.command("set")
@policy_options
def set_operator_policy(client: NodeClient, **fields: object) -> None:
    """Limit what policies may say of queues; see `fluffle policies set`."""
    client.call("operator_policies.set", **fields)


@operator_policies.command("clear")
@click.argument("name")
@in_vhost
@on_node
def clear_operator_policy(client: NodeClient, name: str, vhost: str) -> None:
    """Remove a policy of an operator."""
    client.call("operator_policies.clear", name=name, vhost=vhost)


@click.group()
def parameters() -> None:
    """Parameters of components in a virtual host, as JSON."""


@parameters.command("list")
@prints_rows("vhost", "component", "name", "value")
@only_vhost
def list_parameters(client: NodeClient, vhost: str | None) -> Iterable[Row]:
    """All parameters; policies of operators and limits of virtual hosts are among them."""
    return client.rows("parameters.list", vhost=vhost)


@parameters.command("set")
@click.argument("component")
@click.argument("name")
@click.argument("value")
@in_vhost
@on_node
def set_parameter(client: NodeClient, *, component: str, name: str, value: str, vhost: str) -> None:
    """Give a component a parameter: operator_policy and vhost-limits have some."""
    client.call("parameters.set", component=component, name=name, value=value, vhost=vhost)


@parameters.command("clear")
@click.argument("component")
@click.argument("name")
@in_vhost
@on_node
def clear_parameter(client: NodeClient, *, component: str, name: str, vhost: str) -> None:
    """Remove a parameter."""
    client.call("parameters.clear", component=component, name=name, vhost=vhost)


@click.group("global-parameters")
def global_parameters() -> None:
    """Parameters of the whole cluster, as JSON."""


@global_parameters.command("list")
@prints_rows("name", "value")
def list_global_parameters(client: NodeClient) -> Iterable[Row]:
    """All of them."""
    return client.rows("global_parameters.list")


@global_parameters.command("set")
@click.argument("name")
@click.argument("value")
@on_node
def set_global_parameter(client: NodeClient, *, name: str, value: str) -> None:
    """Keep a value, whatever it is for."""
    client.call("global_parameters.set", name=name, value=value)


@global_parameters.command("clear")
@click.argument("name")
@on_node
def clear_global_parameter(client: NodeClient, name: str) -> None:
    """Keep it no more."""
    client.call("global_parameters.clear", name=name)
