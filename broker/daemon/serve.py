"""`fluffle serve`: from the options to a node that runs."""

import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.option_values import OptionError
from fluffle.broker.config.options import CONFIG, resolve

logger = logging.getLogger(__name__)


class InvalidOption(click.ClickException):
    """An option that cannot be used: one line, and the exit code of every other usage error."""

    exit_code = click.UsageError.exit_code


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the table, as texts, each as often as it was given."""
    for option in reversed(list(OPTIONS.values())):  # the last one applied is shown first
        alone: dict[str, Any] = {"is_flag": False, "flag_value": "yes"} if option.is_switch else {}
        declare = click.option(
            f"--{option.name}",
            metavar=option.metavar,
            help=option.description,
            multiple=True,
            **alone,
        )
        command = declare(command)
    return command


@click.command()
@click.option(
    "--config", metavar="FILE", multiple=True, help="More options, in TOML or a rabbitmq.conf."
)
@with_options
def serve(**flags: Any) -> None:
    """Run a node in the foreground until SIGTERM or Ctrl-C.

    Each option is also a variable of the environment, FLUFFLE_LOG_LEVEL for --log-level, and a key
    of the TOML file, log-level = "debug".  A flag comes before a variable, that before the file.

    An option that may be given many times takes one value on each line of its variable, and in the
    file an array: user = ["alice:secret", "bob:secret"].
    """
    from fluffle.broker.base.logs import configure, event  # noqa: PLC0415  --help needs none of it
    from fluffle.broker.daemon.daemon import end_process, run  # noqa: PLC0415  asyncio is slow, and
    from fluffle.broker.node import Node  # noqa: PLC0415

    names = (CONFIG, *OPTIONS)
    try:
        settings = resolve({name: flags[name.replace("-", "_")] for name in names}, os.environ)
    except OptionError as error:
        raise InvalidOption(str(error)) from error
    configure(settings.config.log_format, settings.config.log_level, sys.stderr)
    for variable in settings.unknown_variables:
        event(logger, logging.WARNING, "unknown_variable", variable=variable)
    for remark in settings.remarks:
        event(
            logger,
            logging.WARNING,
            "setting_ignored",
            setting=remark.source,
            reason=remark.reason,
        )
    sys.exit(run(settings.config, partial(Node, on_fatal=end_process)))
