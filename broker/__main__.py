"""The command line: each command is imported when it is asked for.

It says what is wrong in a sentence, never with a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module

import click

RABBITMQCTL: Mapping[str, str] = {
    **{
        f"list_{things}": f"{things} list"
        for things in (
            "users",
            "vhosts",
            "permissions",
            "queues",
            "exchanges",
            "bindings",
            "connections",
            "channels",
            "consumers",
        )
    },
    "list_user_permissions": "permissions list",
    "list_topic_permissions": "permissions topic-list",
    "list_user_limits": "users list",
    "list_vhost_limits": "vhosts list",
    "add_user": "users add",
    "delete_user": "users delete",
    "change_password": "users password",
    "clear_password": "users password",
    "authenticate_user": "users authenticate",
    "set_user_tags": "users tags",
    "set_user_limits": "users limits",
    "clear_user_limits": "users limits",
    "add_vhost": "vhosts add",
    "delete_vhost": "vhosts delete",
    "set_vhost_limits": "vhosts limits",
    "update_vhost_metadata": "vhosts default-queue-type",
    "clear_vhost_limits": "vhosts limits",
    "set_permissions": "permissions set",
    "clear_permissions": "permissions clear",
    "set_topic_permissions": "permissions topic-set",
    "clear_topic_permissions": "permissions topic-clear",
    "purge_queue": "queues purge",
    "delete_queue": "queues delete",
    "close_connection": "connections close",
    "close_all_connections": "connections close",
    "close_all_user_connections": "connections close",
    "export_definitions": "definitions export",
    "import_definitions": "definitions import",
    "ping": "status",
    "cluster_status": "cluster status",
    "join_cluster": "cluster add",
    "forget_cluster_node": "cluster forget",
    "quorum_status": "queues members",
    "add_member": "queues add-member",
    "delete_member": "queues delete-member",
    "grow": "queues grow",
    "shrink": "queues shrink",
    "rebalance": "queues rebalance",
}
"""Verbs of rabbitmqctl and rabbitmq-queues, and the command that does the same here."""


def suggestion(typed: str, commands: Iterable[str]) -> str:
    """The end of a sentence: what to type in its place, if anything looks like it."""
    if typed in RABBITMQCTL:
        return f"; what RabbitMQ calls so is `fluffle {RABBITMQCTL[typed]}`"
    near = get_close_matches(typed, [*commands, *RABBITMQCTL], n=1)
    return f"; did you mean `fluffle {RABBITMQCTL.get(near[0], near[0])}`?" if near else ""


COMMANDS: Mapping[str, str] = {
    "serve": "daemon.serve:serve",
    "status": "cli.node:status",
    "node": "cli.node:node",
    "alarms": "cli.node:alarms",
    "users": "cli.users:users",
    "permissions": "cli.users:permissions",
    "vhosts": "cli.vhosts:vhosts",
    "queues": "cli.queues:queues",
    "exchanges": "cli.queues:exchanges",
    "bindings": "cli.queues:bindings",
    "connections": "cli.connections:connections",
    "channels": "cli.connections:channels",
    "consumers": "cli.connections:consumers",
    "mqtt": "cli.mqtt:mqtt",
    "policies": "cli.policies:policies",
    "operator-policies": "cli.policies:operator_policies",
    "parameters": "cli.policies:parameters",
    "global-parameters": "cli.policies:global_parameters",
    "definitions": "cli.definitions:definitions",
    "cluster": "cli.cluster:cluster",
    "config": "daemon.config:config",
    "rabbitmqctl": "cli.rabbitmq.tool:rabbitmqctl",
    "rabbitmq-diagnostics": "cli.rabbitmq.tool:rabbitmq_diagnostics",
    "rabbitmq-queues": "cli.rabbitmq.tool:rabbitmq_queues",
    "rabbitmq-plugins": "cli.rabbitmq.tool:rabbitmq_plugins",
    "rabbitmq-upgrade": "cli.rabbitmq.tool:rabbitmq_upgrade",
    "completion": "cli.options:completion",
    "log": "daemon.data:log",
    "data": "daemon.data:data",
    "salvage": "daemon.data:salvage_node",
    "test-server": "testing.server.command:test_server",
    "torture": "torture.command:torture",
    "bench": "bench:bench",
}
"""In the order in which they are shown: where in this package they are."""


class LazyGroup(click.Group):
    """A group whose commands cost nothing until they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"fluffle.broker.{module}"), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """With a word on where options belong."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(
                f"there is no option {error.option_name} here; options stand behind their command: "
                f"fluffle COMMAND … {error.option_name} …",
                ctx,
            ) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With a guess at what was meant."""
        if args[0] not in COMMANDS:
            ctx.fail(f"there is no command '{args[0]}'{suggestion(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fluffle", message="%(package)s %(version)s")
@click.option("--url", metavar="URL", help="The management API of a node that is elsewhere.")
@click.pass_context
def main(context: click.Context, url: str | None) -> None:
    """fluffle, an AMQP 0-9-1 message broker that behaves like RabbitMQ.

    `fluffle serve` runs a node; the other commands talk to the node that keeps its data in ./data,
    or where --data-dir says. They exit with 0 when it is done, 1 when the node refuses, 2 when they
    were called wrongly, and 69 when no node runs there.
    """
    if url is not None:
        context.meta["fluffle.url"] = url


if __name__ == "__main__":
    main()
