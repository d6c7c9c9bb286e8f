"""Entry points: `rabbitmqctl` and its sisters by themselves, and behind `fluffle`."""

from __future__ import annotations

import sys

import click

from fluffle.broker.cli.options import URL_KEY
from fluffle.broker.cli.rabbitmq.tool import TOOLS, run, verbs_of


def command(tool: str) -> click.Command:
    """Build `fluffle rabbitmqctl …`: words are read as RabbitMQ reads them, not as click does."""

    def act(words: tuple[str, ...]) -> None:
        url = click.get_current_context().meta.get(URL_KEY, "")
        sys.exit(run(tool, words, url))

    def verbs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        if context.params.get("words"):
            return []
        return [name for name in verbs_of(tool) if name.startswith(incomplete)]

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, shell_complete=verbs)
    return click.Command(
        tool,
        callback=act,
        params=[words],
        help=f"RabbitMQ's {tool}: the same verbs, words and exit codes.",
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )


rabbitmqctl, rabbitmq_diagnostics, rabbitmq_queues, rabbitmq_plugins, rabbitmq_upgrade = map(
    command, TOOLS
)


def main_rabbitmqctl() -> None:
    rabbitmqctl()


def main_rabbitmq_diagnostics() -> None:
    rabbitmq_diagnostics()


def main_rabbitmq_queues() -> None:
    rabbitmq_queues()


def main_rabbitmq_plugins() -> None:
    rabbitmq_plugins()


def main_rabbitmq_upgrade() -> None:
    rabbitmq_upgrade()
