"""Field values as they stand in RabbitMQ's reply texts, which print Erlang terms."""

import re
from collections.abc import Iterable
from decimal import Decimal

from fluffle.protocol.wire import TYPE_NAMES, FieldValue

EXACT_UNITS_MAX = 2**53
"""Greatest number up to which a float is exact."""


def term(value: FieldValue) -> str:
    """Format a field as Erlang's `~p` prints what RabbitMQ decodes it to, without line breaks."""
    match value:
        case None:
            return "undefined"
        case bool():
            return "true" if value else "false"
        case bytes():
            return _binary(value)
        case tuple():
            return "{" + ",".join(map(str, value)) + "}"
        case list():
            return _list(f"{{{TYPE_NAMES[tag]},{term(item)}}}" for tag, item in value)
        case dict():
            return _list(
                f"{{{_binary(name.encode(errors='surrogateescape'))},{TYPE_NAMES[tag]},{term(item)}}}"
                for name, (tag, item) in value.items()
            )
        case float():
            return _float(value)
        case _:
            return str(value)


def escaped(string: str) -> str:
    """Return what stands between the quotes when `~p` prints a string."""
    for char, shown in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        string = string.replace(char, shown)
    return string


def text(value: "FieldValue | str") -> str:
    """Format a field as `term` does, but strings stand for themselves."""
    if isinstance(value, str):
        return value
    return _decoded(value) if isinstance(value, bytes) else term(value)


def string(characters: str) -> str:
    """Return a string, which is a list of numbers if it cannot be printed."""
    if not characters or not _is_printable(characters):
        return _list(str(ord(char)) for char in characters)
    return f'"{escaped(characters)}"'


def atom(name: str) -> str:
    """Return an atom, which needs quotes unless it looks like a word."""
    return name if _BARE_ATOM.fullmatch(name) else f"'{name}'"


_BARE_ATOM = re.compile(r"[a-z][A-Za-z0-9_@]*", re.ASCII)


def _list(terms: Iterable[str]) -> str:
    return "[" + ",".join(terms) + "]"


def _binary(value: bytes) -> str:
    """`<<"printable">>`, or its octets."""
    if not value:
        return "<<>>"
    decoded = _decoded(value)
    if not _is_printable(decoded):
        return "<<" + ",".join(map(str, value)) + ">>"
    is_utf8 = not decoded.isascii() and decoded.encode() == value
    return f'<<"{escaped(decoded)}"{"/utf8" if is_utf8 else ""}>>'


def _is_printable(characters: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in characters)


def _float(value: float) -> str:
    """Plain or scientific, whichever is shorter: `100.0`, `1.0e3`; huge ones scientific."""
    number = Decimal(repr(value)).normalize()
    mantissa, _, exponent = f"{number:e}".partition("e")
    scientific = f"{_with_point(mantissa)}e{int(exponent)}"
    if abs(value) >= EXACT_UNITS_MAX:
        return scientific
    return min(_with_point(f"{number:f}"), scientific, key=len)


def _with_point(digits: str) -> str:
    return digits if "." in digits else f"{digits}.0"


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
