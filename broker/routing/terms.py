"""Field values as they stand in RabbitMQ's reply texts, which print Erlang terms."""

from collections.abc import Iterable

from fluffle.protocol.types import FieldValue
from fluffle.protocol.wire import TYPE_NAMES


def term(value: FieldValue) -> str:
    """As Erlang's `~p` prints what RabbitMQ decodes a field to (without its line breaks)."""
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
        case _:
            return str(value)


def text(value: "FieldValue | str") -> str:
    """As `term`, but strings stand for themselves."""
    if isinstance(value, str):
        return value
    return _decoded(value) if isinstance(value, bytes) else term(value)


def _list(terms: Iterable[str]) -> str:
    return "[" + ",".join(terms) + "]"


def _binary(value: bytes) -> str:
    """`<<"printable">>`, or its octets."""
    if not value:
        return "<<>>"
    decoded = _decoded(value)
    if not all(char.isprintable() or char in "\n\t" for char in decoded):
        return "<<" + ",".join(map(str, value)) + ">>"
    escaped = decoded.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\t", "\\t")
    is_utf8 = not decoded.isascii() and decoded.encode() == value
    return f'<<"{escaped}"{"/utf8" if is_utf8 else ""}>>'


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
