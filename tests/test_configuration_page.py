"""docs/configuration.md: its table is that of the options, and its commands are taken."""

import re
import shlex
from pathlib import Path

import click
import pytest

from fluffle.broker.__main__ import main
from fluffle.broker.option_table import OPTIONS, Option
from fluffle.broker.options import resolve

PAGES = Path(__file__).parent.parent / "docs"
PAGE = (PAGES / "configuration.md").read_text(encoding="utf-8")
LINES = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
COMMANDS = re.findall(r"^(?:[A-Z_]+=\S+ )*fluffle (.*)$", LINES, re.MULTILINE)


def row(option: Option) -> str:
    """The line of the table about one option."""
    usage = f"--{option.name} {option.metavar}".replace("|", "\\|")
    return f"| `{usage}` | {option.help} | {option.default} |"


def test_the_table_is_that_of_the_options() -> None:
    table = ["| option | what for | default |", "|---|---|---|", *map(row, OPTIONS.values())]
    _before, heading, shown = PAGE.partition("## All options\n\n")
    assert heading
    assert shown == "\n".join(table) + "\n", "put the lines of `table` there"


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
