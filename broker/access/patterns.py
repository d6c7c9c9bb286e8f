"""Patterns of permissions: RabbitMQ's regular expressions, read by Python.

RabbitMQ searches names, as octets, for a pattern of PCRE that need not match the whole; an empty
one matches the empty name alone.  The two dialects agree but for the little that `translated`
mends.  What cannot be read matches nothing: a right is not given by mistake.
"""

import re
import warnings
from collections.abc import Mapping
from functools import lru_cache

EMPTY = "^$"
_ODDITIES = re.compile(rb"\\(?P<escaped>.)|\[:(?P<not>\^?)(?P<class>\w+):\]", re.DOTALL)
_ESCAPES: Mapping[bytes, bytes] = {b"z": rb"\Z", b"Z": rb"(?=\n?\Z)"}
_CLASSES: Mapping[bytes, bytes] = {
    b"alnum": rb"a-zA-Z0-9",
    b"alpha": rb"a-zA-Z",
    b"blank": rb" \t",
    b"digit": rb"0-9",
    b"lower": rb"a-z",
    b"space": rb"\s",
    b"upper": rb"A-Z",
    b"word": rb"\w",
    b"xdigit": rb"0-9A-Fa-f",
}


class UnusablePattern(ValueError):
    """A regular expression that cannot be read."""


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[bytes]:
    """The expression that searches octets.  UnusablePattern."""
    octets = (pattern or EMPTY).encode(errors="surrogateescape")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # on what means the same until then
            return re.compile(translated(octets))
    except (re.error, OverflowError, RecursionError) as error:
        raise UnusablePattern(f"cannot use the regular expression '{pattern}': {error}") from error


def found(pattern: str, name: str) -> bool:
    """Whether `name` holds what `pattern` looks for; never for a pattern that cannot be read."""
    try:
        expression = compiled(pattern)
    except UnusablePattern:
        return False
    return expression.search(name.encode(errors="surrogateescape")) is not None


def expanded(pattern: str, variables: Mapping[str, str]) -> str:
    """The pattern with each `{name}` replaced by its value, in which nothing is special."""
    for name, value in variables.items():
        pattern = pattern.replace(f"{{{name}}}", re.escape(value))
    return pattern


def translated(pattern: bytes) -> bytes:
    """An expression of PCRE in Python's words."""
    return _ODDITIES.sub(_in_pythons_words, pattern)


def _in_pythons_words(match: re.Match[bytes]) -> bytes:
    if match["escaped"] is not None:
        return _ESCAPES.get(match["escaped"], match[0])
    if match["not"] or match["class"] not in _CLASSES:
        raise re.error(f"there is no class {match[0].decode(errors='replace')}")
    return _CLASSES[match["class"]]
