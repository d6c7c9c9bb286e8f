"""What was typed behind `rabbitmqctl`: options may stand anywhere, words are what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fluffle.broker.cli.rabbitmq.formats import FORMATS
from fluffle.broker.cli.rabbitmq.verb import FLAG, TEXT, UsageFailure

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
"""What every verb takes, whether it is of use there or not; any FLAG may be switched off by `no-`
in front of it."""

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
    """Words and options, in the order in which they came."""

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
    """One option, and what it is given."""
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
