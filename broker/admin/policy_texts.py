"""What is wrong with a policy or a parameter, for who has typed it.

What decides says it as RabbitMQ does, in several lines and in terms of Erlang.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.metadata import Decide
from fluffle.broker.policies.validation import KEYS
from fluffle.broker.queues.arguments import ARGUMENTS

EXAMPLE = """'{"max-length": 1000}'"""
HEADING = "Validation failed"
BINARY = re.compile(r'<<("(?:[^"\\]|\\.)*")(?:/utf8)?>>')
"""A string, as Erlang prints it."""


def parsed(text: str) -> Any:
    """PreconditionFailed for what is no JSON."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # finds halves of characters in escapes
    except (ValueError, RecursionError) as error:
        raise PreconditionFailed(f"this is no JSON ({error}): {text}") from None
    return value


def parsed_definition(definition: str, pattern: str) -> Any:
    """PreconditionFailed for one that is no JSON, or stands where the pattern belongs."""
    try:
        return parsed(definition)
    except PreconditionFailed:
        if is_object(pattern):
            raise PreconditionFailed(
                "JSON stands where the pattern belongs: it is NAME PATTERN DEFINITION"
            ) from None
        raise PreconditionFailed(
            f"the definition is no JSON: '{definition}'; write it like {EXAMPLE}"
        ) from None


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def in_words(decide: Decide, definition: Any, keys: Collection[str]) -> Decide:
    """The same, whose refusals are readable; `keys` are the settings that there are."""

    def decide_in_words() -> Change:
        try:
            return decide()
        except PreconditionFailed as error:
            raise PreconditionFailed(as_sentence(error.explanation, definition, keys)) from None

    return decide_in_words


def as_sentence(text: str, definition: Any, keys: Collection[str]) -> str:
    """In a line, with strings as JSON has them, and a suggestion for a setting that is not."""
    lines = [line for line in text.split("\n") if line not in ("", HEADING)]
    unknown = [key for key in definition if key not in keys] if isinstance(definition, dict) else []
    said = [
        "; ".join(unrecognised(key, keys) for key in unknown)
        if line.endswith("are not recognised policy settings")
        else BINARY.sub(r"\1", line)
        for line in lines
    ]
    return "; ".join(said)


def in_a_line(text: str) -> str:
    """The same of an entry of definitions, which says of itself what it is."""
    return "; ".join(BINARY.sub(r"\1", line) for line in text.split("\n") if line)


def unrecognised(key: str, keys: Collection[str]) -> str:
    """Why a policy with these settings cannot have that one."""
    if key in KEYS:
        return f"an operator's policy cannot set '{key}', any other policy can"
    argument = f"x-{key.removeprefix('x-')}"
    if argument in ARGUMENTS and not KEYS.keys() & {argument, argument[2:]}:
        return f"no policy sets '{key}': a queue is declared with '{argument}'"
    return f"there is no setting '{key}' here{suggestion(key, keys)}"


def suggestion(key: str, keys: Collection[str]) -> str:
    """The end of a sentence: what may have been meant, if anything looks like it."""
    near = get_close_matches(key, keys, n=1)
    return f", did you mean '{near[0]}'?" if near else ""
