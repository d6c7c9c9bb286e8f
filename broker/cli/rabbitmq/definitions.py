"""Definitions: RabbitMQ's JSON, out and in."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path

from fluffle.broker.cli.definitions import bring, noting_argon2, read, write, write_file
from fluffle.broker.cli.rabbitmq.verb import FLAG, TEXT, Failure, Invocation, Report, Verb

FORMAT: Mapping[str, str] = {"format": TEXT, "timeout": TEXT}
STARTED = (
    "Successfully started definition import. This process is asynchronous and can take some time. "
    "Watch target node logs for completion."
)


def check_format(call: Invocation) -> None:
    """Check the format; Failure for Erlang's."""
    if call.options.get("format", "json").lower() != "json":
        raise Failure("definitions are JSON here; use --format json", 64)


def export_definitions(call: Invocation) -> Report:
    """Export definitions to a file, or to standard output for `-`."""
    check_format(call)
    where = call.words[0]
    rows = call.client.rows("definitions.export")
    first = next(rows)
    entries = noting_argon2(rows, [], without_hashes=False)
    if where == "-":
        output = io.StringIO()
        write(output, first, entries)
        return Report([output.getvalue().rstrip("\n")])
    write_file(Path(where), first, entries)
    return Report([])


def import_definitions(call: Invocation) -> Report:
    """Import definitions from a file, or from standard input; what is there already stays."""
    check_format(call)
    where = call.word(0, "-")
    try:
        if where == "-":
            content = read(sys.stdin)
        else:
            with Path(where).open(encoding="utf-8") as file:
                content = read(file)
    except OSError as error:
        raise Failure(f"cannot read {where}: {error.strerror}", 65) from error
    skipped = list(bring(call.client, content, call.vhost))
    return Report([*(f"skipped {reason}" for reason in skipped), STARTED])


def exporting(call: Invocation) -> str:
    where = call.word(0)
    return "" if where == "-" else f'Exporting definitions in JSON to a file at "{where}" ...'


def importing(call: Invocation) -> str:
    where = call.word(0, "-")
    whence = "standard input" if where == "-" else f'a file at "{where}"'
    return f"Importing definitions in JSON from {whence} ..."


VERBS: Mapping[str, Verb] = {
    "export_definitions": Verb(
        export_definitions, "<file_path | \"-\">", exporting, (1, 1), FORMAT,
        note="JSON only; a file is for its owner alone",
    ),
    "import_definitions": Verb(
        import_definitions, "[<file_path | \"-\">]", importing, (0, 1),
        {**FORMAT, "skip-if-unchanged": FLAG},
        note="it is done when the command returns; says what it skips",
    ),
}  # fmt: skip
