"""The command line: each command is imported when it is asked for.

It says what is wrong in a sentence, never with a traceback.
"""

from collections.abc import Mapping
from importlib import import_module

import click

from fluffle.broker.cli.suggestions import suggestion

COMMANDS: Mapping[str, str] = {
    "serve": "daemon.serve:serve",
    "status": "cli.status:status",
    "node": "cli.node:node",
    "alarms": "cli.node:alarms",
    "users": "cli.users:users",
    "permissions": "cli.permissions:permissions",
    "vhosts": "cli.vhosts:vhosts",
    "queues": "cli.queues:queues",
    "exchanges": "cli.queues:exchanges",
    "bindings": "cli.queues:bindings",
    "connections": "cli.connections:connections",
    "channels": "cli.connections:channels",
    "consumers": "cli.connections:consumers",
    "policies": "cli.policies:policies",
    "operator-policies": "cli.policies:operator_policies",
    "parameters": "cli.policies:parameters",
    "global-parameters": "cli.policies:global_parameters",
    "definitions": "cli.definitions:definitions",
    "cluster": "cli.cluster:cluster",
    "config": "daemon.config:config",
    "rabbitmqctl": "cli.rabbitmq.entry_points:rabbitmqctl",
    "rabbitmq-diagnostics": "cli.rabbitmq.entry_points:rabbitmq_diagnostics",
    "rabbitmq-queues": "cli.rabbitmq.entry_points:rabbitmq_queues",
    "rabbitmq-plugins": "cli.rabbitmq.entry_points:rabbitmq_plugins",
    "rabbitmq-upgrade": "cli.rabbitmq.entry_points:rabbitmq_upgrade",
    "completion": "cli.completion:completion",
    "log": "daemon.log:log",
    "data": "daemon.data:data",
    "salvage": "daemon.salvage:salvage_node",
    "test-server": "testing.server.command:test_server",
    "torture": "torture.command:torture",
    "bench": "bench.command:bench",
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
