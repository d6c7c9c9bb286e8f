"""`rabbitmqctl` and its sisters, by themselves and behind `fluffle`: the run of one tool.

Arguments, the node that is meant, the verb, RabbitMQ's exit code, and how the output is printed:
tab-separated tables, tables with lines, CSV and JSON.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import click

from fluffle.broker.cli.client import LocalClient, NodeClient, NodeUnreachable, RequestRefused
from fluffle.broker.cli.options import URL_KEY
from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.verb import (
    FLAG,
    NO_USER,
    NOT_FOUND,
    TEXT,
    UNAVAILABLE,
    USAGE,
    Failure,
    Invocation,
    Output,
    Report,
    RowTable,
    UsageFailure,
    Verb,
)

FORMATS = ("table", "pretty_table", "csv", "json", "json_stream", "erlang", "string", "report")
"""The last three print what `table` prints: they are of Erlang, or for people."""

FOR_PROGRAMS = frozenset({"csv", "json", "json_stream"})
"""Nothing else is printed beside these."""


def printed(output: Output, format_name: str, *, has_header: bool) -> Iterator[str]:
    """Yield the lines of what has come of a verb."""
    if isinstance(output, RowTable):
        name = "pretty_table" if output.is_pretty and format_name == "table" else format_name
        yield from LISTS.get(name, table)(output, has_header and output.has_header)
    elif isinstance(output, Report):
        if format_name in ("json", "json_stream"):
            content = output.content
            yield compact({"message": "\n".join(output.lines)} if content is None else content)
        else:
            yield from output.lines


def table(listed: RowTable, has_header: bool) -> Iterator[str]:  # noqa: FBT001 - as all formats
    """Yield cells between tabs; nothing at all without rows."""
    is_first = True
    for row in listed.rows:
        if is_first and has_header:
            yield "\t".join(listed.columns)
        is_first = False
        yield "\t".join(cell(row.get(name)) for name in listed.columns)
    if is_first and listed.has_blank_line:
        yield ""


def pretty_table(listed: RowTable, has_header: bool) -> Iterator[str]:  # noqa: FBT001
    """Yield cells in boxes."""
    rows = [[cell(row.get(name)) for name in listed.columns] for row in listed.rows]
    if not rows:
        return
    shown = [list(listed.columns), *rows] if has_header else rows
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["─" * (width + 2) for width in widths]
    yield f"┌{'┬'.join(lines)}┐"
    for number, row in enumerate(shown):
        if number:
            yield f"├{'┼'.join(lines)}┤"
        cells = (f" {text.ljust(width)} " for text, width in zip(row, widths, strict=True))
        yield f"│{'│'.join(cells)}│"
    yield f"└{'┴'.join(lines)}┘"


def csv_lines(listed: RowTable, has_header: bool) -> Iterator[str]:  # noqa: FBT001
    """Text in quotation marks, numbers without."""
    is_first = True
    for row in listed.rows:
        if is_first and has_header:
            yield csv_line(list(listed.columns))
        is_first = False
        yield csv_line([csv_cell(row.get(name)) for name in listed.columns])


def csv_line(cells: Sequence[object]) -> str:
    output = io.StringIO()
    csv.writer(output, quoting=csv.QUOTE_NONNUMERIC, lineterminator="").writerow(cells)
    return output.getvalue()


def csv_cell(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else cell(value)


def json_array(listed: RowTable, _has_header: bool) -> Iterator[str]:  # noqa: FBT001
    """Yield an array with a line a row; nothing before the first answer, which may be a failure."""
    rows = iter(listed.rows)
    first = list(islice(rows, 1))
    yield "["
    comma = ""
    for row in chain(first, rows):
        yield comma + compact(chosen(row, listed.columns))
        comma = ","
    yield "]"


def json_stream(listed: RowTable, _has_header: bool) -> Iterator[str]:  # noqa: FBT001
    """Yield an object a line."""
    for row in listed.rows:
        yield compact(chosen(row, listed.columns))


def compact(content: Any) -> str:
    """Format as JSON without spaces."""
    return json.dumps(content, separators=(",", ":"))


LISTS: Mapping[str, Callable[[RowTable, bool], Iterator[str]]] = {
    "table": table,
    "pretty_table": pretty_table,
    "csv": csv_lines,
    "json": json_array,
    "json_stream": json_stream,
}


def chosen(row: Row, columns: Sequence[str]) -> Row:
    """Return these columns of a row; what is not known is an empty text, as RabbitMQ has it."""
    found = {name: row.get(name) for name in columns}
    return {name: "" if value is None else value for name, value in found.items()}


def cell(value: Any) -> str:
    """Return a value in a table: what a client chose does not write to the terminal of an
    operator."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value if value.isprintable() else value.encode("unicode_escape").decode()
        case list():
            return f"[{', '.join(map(cell, value))}]"
        case dict():
            pairs = (f'{{"{cell(name)}",{term(each)}}}' for name, each in value.items())
            return f"[{', '.join(pairs)}]"
    return str(value)


def term(value: Any) -> str:
    """Return a value inside a table of arguments: text in quotation marks."""
    return json.dumps(value) if isinstance(value, str) else cell(value)


class TargetNodeClient:
    """A client that checks the name of the node before it asks for anything."""

    def __init__(self, client: NodeClient, name: str) -> None:
        self._client = client
        self._name = name
        self._is_checked = False

    @property
    def data_dir(self) -> Path:
        return self._client.data_dir

    @property
    def pid(self) -> int:
        """Process as in `NodeClient.pid`; Failure."""
        self._check()
        return self._client.pid

    def call(self, verb: str, **arguments: object) -> Row:
        """Call a verb as `NodeClient.call` does; Failure."""
        self._check()
        return self._client.call(verb, **arguments)

    def rows(self, verb: str, **arguments: object) -> Iterator[Row]:
        """Return rows as `NodeClient.rows` does; Failure."""
        self._check()
        return self._client.rows(verb, **arguments)

    def _check(self) -> None:
        if self._is_checked:
            return
        found = str(self._client.call("status")["node"])
        if not is_meant(self._name, found):
            raise Failure(
                f"unable to perform an operation on node '{self._name}': it is '{found}' that "
                "answers; name the data directory of the other with --data-dir"
            )
        self._is_checked = True


def is_meant(name: str, node: str) -> bool:
    """True if a name is a node's: the host may be left out."""
    return name in (node, node.partition("@")[0])


GLOBAL: Mapping[str, str] = {
    "node": TEXT,
    "quiet": FLAG,
    "silent": FLAG,
    "timeout": TEXT,
    "vhost": TEXT,
    "formatter": TEXT,
    "table-headers": FLAG,
    "longnames": FLAG,
    "dry-run": FLAG,
    "erlang-cookie": TEXT,
    "script-name": TEXT,
    "data-dir": TEXT,
    "url": TEXT,
    "verbose": FLAG,
    "print-stacktrace": FLAG,
    "help": FLAG,
}
"""Options of every verb, needed or not; any FLAG may be switched off by `no-` in front of it."""

SHORT: Mapping[str, str] = {
    "n": "node",
    "q": "quiet",
    "s": "silent",
    "t": "timeout",
    "p": "vhost",
    "l": "longnames",
    "h": "help",
    "u": "user",
    "N": "number",
    "a": "all",
    "m": "minimal",
    "e": "enabled",
    "E": "implicitly-enabled",
    "v": "verbose",
}


class ParsedArguments(NamedTuple):
    """Words and options of a command line, in the order in which they came."""

    words: Sequence[str]
    options: Mapping[str, str]


def parse_arguments(arguments: Sequence[str], of_verb: Mapping[str, str]) -> ParsedArguments:
    """UsageFailure for what is no option."""
    known = {**GLOBAL, **of_verb}
    words: list[str] = []
    options: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            words.extend(rest)
        elif not argument.startswith("-") or argument == "-" or argument[1:2].isdigit():
            words.append(argument)
        else:
            take(argument, rest, known, options)
    name = options.get("formatter", "table")
    if name not in FORMATS:
        raise UsageFailure(f"there is no formatter '{name}'; there are {', '.join(FORMATS)}")
    return ParsedArguments(words, options)


def take(
    argument: str, rest: Iterator[str], known: Mapping[str, str], options: dict[str, str]
) -> None:
    """Take one option, and its value."""
    text, equals, value = argument.partition("=")
    name = text[2:] if text.startswith("--") else SHORT.get(text[1:], text[1:])
    name = name.replace("_", "-")
    if name.startswith("no-") and known.get(name[3:]) == FLAG:
        options[name] = "true"
    elif name not in known:
        raise UsageFailure(f"Invalid options for this command\n{text} : undefined")
    elif known[name] == FLAG:
        options[name] = "true"
    else:
        given = value if equals else next(rest, None)
        if given is None:
            raise UsageFailure(f"{text} is given no value")
        options[name] = given


EVERYWHERE = ("nodes", "checks:BEFORE_STOP")

TOOLS: Mapping[str, Sequence[str]] = {
    "rabbitmqctl": (
        *EVERYWHERE, "checks", "users", "users:LIMITS", "vhosts", "objects", "objects:OPERATIONS",
        "policies", "definitions", "features", "nodes:SETTINGS", "membership",
    ),
    "rabbitmq-diagnostics": (
        *EVERYWHERE, "checks", "nodes:DIAGNOSTICS", "objects", "features", "users",
        "users:LIMITS", "policies",
    ),
    "rabbitmq-queues": ("quorum", "checks:BEFORE_STOP"),
    "rabbitmq-plugins": ("features:PLUGIN_VERBS",),
    "rabbitmq-upgrade": ("membership:MAINTENANCE",),
}  # fmt: skip
"""Where their verbs are: modules of this package, each with a table VERBS or the one named.

A new verb is a row of such a table.  It calls verbs of the control socket: rows of `READS` or
`CHANGES` in `admin/`, whose groups are in `dispatch.GROUPS` (and in `all_nodes.OF_A_NODE`, if each
node answers for itself).  Its row in docs/rabbitmqctl.md says what differs from RabbitMQ."""

DATA_DIR_VARIABLE = "FLUFFLE_DATA_DIR"
PASSWORD = re.compile(r"(?<=://)([^/?#\s:]*):[^/?#\s]*@")
"""In a URL, behind the user."""


def verbs_of(tool: str) -> Mapping[str, Verb]:
    """Return the verbs of a tool, in order of their names."""
    found: dict[str, Verb] = {}
    for name in TOOLS[tool]:
        module, _, table = name.partition(":")
        found |= getattr(import_module(f"fluffle.broker.cli.rabbitmq.{module}"), table or "VERBS")
    return dict(sorted(found.items()))


def run(tool: str, arguments: Sequence[str], url: str = "") -> int:
    """Do what was typed; the exit code.  `url`: of the node, unless they have one."""
    name, rest = split(arguments)
    verbs = verbs_of(tool)
    if name in ("", "help"):
        topic = next(iter(rest), "") if name else ""
        click.echo(usage_of(tool, topic, verbs[topic]) if topic in verbs else overview(tool, verbs))
        return 0 if name == "help" or "--help" in rest or "-h" in rest else USAGE
    if name not in verbs:
        near = get_close_matches(name, verbs, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else overview(tool, verbs)
        click.echo(f"\nCommand '{without_passwords(name)}' not found. \n{hint} \n", err=True)
        return USAGE
    verb = verbs[name]
    try:
        return perform(tool, name, verb, rest, url)
    except UsageFailure as misused:
        click.echo(f"Error (argument validation): {without_passwords(str(misused))}\n", err=True)
        click.echo(f"Arguments given:\n\t{without_passwords(' '.join(arguments))}\n", err=True)
        click.echo(usage_of(tool, name, verb), err=True)
        return misused.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def without_passwords(text: str) -> str:
    """Return what was typed, or is said of it, but for the passwords of URLs."""
    return PASSWORD.sub(r"\1:***@", text)


def split(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the verb, and what else there is: options may come before it."""
    skip = False
    for place, argument in enumerate(arguments):
        if skip or argument.startswith("-"):
            skip = not skip and takes_text(argument)
            continue
        return argument, [*arguments[:place], *arguments[place + 1 :]]
    return "", arguments


def takes_text(argument: str) -> bool:
    """True if what stands behind an option of all verbs is its value."""
    name = argument[2:] if argument.startswith("--") else SHORT.get(argument[1:], "")
    return GLOBAL.get(name) == TEXT


def perform(tool: str, name: str, verb: Verb, arguments: Sequence[str], url: str) -> int:
    """Do a verb; return the exit code.  Raises `UsageFailure`."""
    words, options = parse_arguments(arguments, verb.options)
    options = {"url": url, **options}
    if "help" in options:
        click.echo(usage_of(tool, name, verb))
        return 0
    check_count(verb, words)
    format_name = options.get("formatter", "table")
    is_silent = "silent" in options
    with client_of(options) as found:
        client = TargetNodeClient(found, options["node"]) if options.get("node") else found
        call = Invocation(client, words, options, read_line, time)
        try:
            verb.check(call)
            if not (is_silent or "quiet" in options or format_name in FOR_PROGRAMS):
                print_line(banner_of(verb, call))
            has_header = not (is_silent or "no-table-headers" in options)
            for line in printed(verb.act(call), format_name, has_header=has_header):
                click.echo(line)
        except Failure as failure:
            if isinstance(failure, UsageFailure):
                raise
            return failed(failure, format_name)
        except RequestRefused as refused:
            return failed(failure_of(verb, refused), format_name)
        except NodeUnreachable as unreachable:
            click.echo(
                "Error: unable to perform an operation on the node: "
                f"{unreachable.message}", err=True,
            )  # fmt: skip
            return UNAVAILABLE
    return 0


@contextmanager
def client_of(options: Mapping[str, str]) -> Iterator[NodeClient]:
    """Return a client of the node that was named: a URL comes before a directory.  Raises
    `UsageFailure`."""
    data_dir = options.get("data-dir") or os.environ.get(DATA_DIR_VARIABLE) or "data"
    url = options.get("url") or ("" if "data-dir" in options else os.environ.get("FLUFFLE_URL"))
    if not url:
        with LocalClient(Path(data_dir)) as client:
            yield client
        return
    from fluffle.broker.cli.remote import RemoteClient  # noqa: PLC0415  rarely used

    try:
        remote = RemoteClient(url)
    except click.UsageError as error:
        raise UsageFailure(error.message) from error
    yield remote


def check_count(verb: Verb, words: Sequence[str]) -> None:
    """UsageFailure for too few words or too many."""
    least, most = verb.words
    if len(words) < least:
        raise UsageFailure("not enough arguments.")
    if most is not None and len(words) > most:
        raise UsageFailure("too many arguments.")


def print_line(text: str) -> None:
    if text:
        click.echo(text)


def banner_of(verb: Verb, call: Invocation) -> str:
    """Return what is said before it is done."""
    if callable(verb.banner):
        return verb.banner(call)
    fields = {"vhost": call.vhost, **{k.replace("-", "_"): v for k, v in call.options.items()}}
    if "{node}" in verb.banner:
        fields["node"] = call.node
    words = [*call.words, *("" for _ in range(6))]
    return verb.banner.format(*words, **fields)


def failure_of(verb: Verb, refused: RequestRefused) -> Failure:
    """Return the failure with RabbitMQ's exit code, which scripts look at."""
    if refused.code == NOT_FOUND and refused.message.startswith("user '"):
        return Failure(refused.message, NO_USER)
    text = verb.texts.get(refused.code, refused.message)
    return Failure(text, verb.failures.get(refused.code, UNAVAILABLE))


def failed(failure: Failure, format_name: str) -> int:
    """Print a failure; return the exit code."""
    if format_name == "json" and failure.content is not None:
        click.echo(compact(failure.content), err=True)
    else:
        click.echo(f"Error:\n{failure}", err=True)
    return failure.code


def read_line() -> str:
    """Read a line from standard input, or a password from the terminal."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def usage_of(tool: str, name: str, verb: Verb) -> str:
    """Return how a verb is called."""
    options = (
        f"[--{option}]" if kind == FLAG else f"[--{option} <{option.replace('-', '_')}>]"
        for option, kind in verb.options.items()
    )
    takes = " ".join(filter(None, (verb.takes, *options)))
    lines = [f"Usage\n\n{tool} [--node <node>] [--timeout <s>] [--quiet] {name} {takes}".rstrip()]
    if verb.columns:
        columns = ", ".join(sorted(verb.columns))
        lines.append(f"Arguments and Options\n\n<column>\n\tmust be one of {columns}")
    if verb.note:
        lines.append(f"Otherwise than with RabbitMQ: {verb.note}")
    return "\n\n".join(lines)


def overview(tool: str, verbs: Mapping[str, Verb]) -> str:
    """Return all verbs of all groups."""
    lines = (f"   {name} {verb.takes}".rstrip() for name, verb in verbs.items())
    return "\n".join(
        (
            f"Usage\n\n{tool} [--node <node>] [--timeout <timeout>] [--quiet] <command> [<options>]"
            "\n\nAvailable commands:\n",
            *lines,
            f"\nUse '{tool} help <command>' to learn more about a specific command",
        )
    )


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
