"""`fluffle config`: what a configuration file says, before a node is started with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.cli.output import Row, json_lines, table
from fluffle.broker.config.config import Config
from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.option_values import OptionError
from fluffle.broker.config.options import CONFIG, resolve
from fluffle.broker.config.rabbitmq_conf.settings import ConfError, IgnoredSetting, MappedSetting
from fluffle.broker.config.rabbitmq_conf.sources import LineVerdict, is_conf, line_verdicts, shown
from fluffle.broker.definitions.file_format import DefinitionsError, files_of, read_file

AS_HERE = "as it is here anyway"


@click.group()
def config() -> None:
    """Configuration files: what a node makes of them."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path, *, as_json: bool) -> None:
    """Say what becomes of each line of a rabbitmq.conf, or whether a TOML file can be used.

    Variables of the environment count as they do for `fluffle serve`. Certificates, keys and
    definitions that it names are read. Exits with 1 if a node would not start with the file.
    """
    path = file.absolute()
    try:
        rows = list(rows_of(path)) if is_conf(path) else []
    except ConfError as error:
        raise click.ClickException(str(error)) from error
    if rows or as_json:
        lines = json_lines(rows) if as_json else table(rows, ("line", "setting", "becomes"))
        click.echo("\n".join(lines))
    try:
        check_named(resolve({CONFIG: [str(path)]}, os.environ).config)
    except (OptionError, StartFailed, DefinitionsError) as error:
        raise click.ClickException(str(error)) from error
    if not as_json:
        click.echo("a node would start with this")


def check_named(config: Config) -> None:
    """Read the files that a node would read at its start, and make of them what it would.

    StartFailed, DefinitionsError.
    """
    from fluffle.broker.cluster.links.tls import LinkCertificates  # noqa: PLC0415  ssl only if it
    from fluffle.broker.process.certificates import certificates_of  # noqa: PLC0415  is used

    if config.tls_listen is not None:
        certificates_of(config, "tls-listen", verify=config.tls_verify)
    if config.mqtt.tls_listen:
        certificates_of(config, "mqtt-tls", verify=config.tls_verify)
    if config.mqtt.ws_tls_listen:
        certificates_of(config, "mqtt-ws-tls", verify="none")
    if config.management_tls:
        certificates_of(config, "management-tls", verify="none")
    cluster = config.cluster
    if cluster is not None and cluster.tls_cert is not None:
        LinkCertificates(cluster.tls_cert, cluster.tls_key, cluster.tls_ca)
    if config.definitions is not None:
        for file in files_of(config.definitions):
            read_file(file)


@config.command()
def options() -> None:
    """Print a table of all options of `fluffle serve`, as Markdown."""
    click.echo("\n".join(reference()))


def reference() -> Iterator[str]:
    """Yield the lines of the table of all options."""
    yield "| option | what for | default |"
    yield "|---|---|---|"
    for option in OPTIONS.values():
        usage = f"--{option.name} {option.metavar}".replace("|", "\\|")
        yield f"| `{usage}` | {option.help} | {option.default} |"


def rows_of(path: Path) -> Iterator[Row]:
    """Yield a row a setting; files beside the first one are named."""
    for judgement in line_verdicts(path, os.environ):
        setting = judgement.setting
        is_first = setting.file == path
        yield {
            "line": str(setting.line) if is_first else f"{setting.file.name}:{setting.line}",
            "setting": f"{setting.name} = {shown(judgement)}",
            "becomes": outcome(judgement),
        }


def outcome(judgement: LineVerdict) -> str:
    """Return the options that a setting becomes, or why there are none."""
    match judgement.verdict:
        case MappedSetting(options):
            words = (
                f"--{name} {'…' if OPTIONS[name].is_secret else text or repr('')}"
                for name, texts in options.items()
                for text in texts
            )
            return " ".join(words) or AS_HERE
        case IgnoredSetting(reason):
            return f"ignored: {reason}"
        case refused:
            return f"refused: {refused.reason}"
