"""Pages about running it: the table of options is current, and commands are taken."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fluffle.broker.__main__ import main
from fluffle.broker.config.options import resolve

PAGES = Path(__file__).parent.parent / "docs"
PAGE = (PAGES / "configuration.md").read_text(encoding="utf-8")
WITH_COMMANDS = (
    "clustering.md",
    "configuration.md",
    "deploy/README.md",
    "installation.md",
    "mqtt.md",
    "migration.md",
    "operations.md",
)


def commands_of(page: str) -> list[str]:
    """Arguments of `fluffle` on the page's lines for a shell."""
    text = (PAGES / page).read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return re.findall(r"^(?:[A-Z_]+=\S+ )*fluffle ([^<\n]*)", lines, re.MULTILINE)


COMMANDS = list(dict.fromkeys(words for page in WITH_COMMANDS for words in commands_of(page)))


def test_the_table_is_that_of_the_options() -> None:
    said = CliRunner().invoke(main, ["config", "options"]).output
    _before, heading, shown = PAGE.partition("## All options\n\n")
    assert heading
    assert shown == said, "put there what `fluffle config options` prints"


@pytest.mark.parametrize("words", COMMANDS)
def test_its_commands_are_taken(words: str) -> None:
    name, *rest = shlex.split(words)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    if name == "serve":
        given = command.make_context(name, rest).params
        flags = {key.replace("_", "-"): values for key, values in given.items() if key != "config"}
        resolve(flags, {})
    else:
        while isinstance(command, click.Group):
            name, *rest = rest
            inner = command.get_command(click.Context(command), name)
            assert inner is not None, words
            command = inner
        command.make_context(name, rest)


def test_it_has_commands() -> None:
    assert len(COMMANDS) > 10
