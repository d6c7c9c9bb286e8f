"""Definitions files: from their text to entries whose fields are there and have the right type.

A file is about a whole cluster, or about one virtual host, whose entries do not name it.  Fields
that are unknown here are left alone, since newer RabbitMQs have more of them.  Arguments are read
as RabbitMQ reads them: an integer is a `long`, a number with a point a `double`, and so on; the way
back forgets the type tags, which JSON has no place for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fluffle.broker.metadata.change import Entry
from fluffle.protocol.spec import ProtocolError
from fluffle.protocol.wire import Field, FieldTable, FieldValue, encode_table, read_table

FORMAT = "rabbitmq_definition_format"
SINGLE_VHOST = "single_virtual_host"

ORDER = (
    "users",
    "vhosts",
    "permissions",
    "exchanges",
    "topic_permissions",
    "global_parameters",
    "policies",
    "parameters",
    "queues",
    "bindings",
)
"""In which RabbitMQ imports categories: each needs some of those before it."""

ENTRIES_AT_ONCE = 100
"""Are imported in a turn of the loop: a few milliseconds of the node's time."""

LISTS_IN_VHOST = ("exchanges", "queues", "bindings", "policies")


def is_single(content: Mapping[str, Any]) -> bool:
    """True if it is about one virtual host.  Not every version says so; one that lists none is."""
    if FORMAT in content:
        return bool(content[FORMAT] == SINGLE_VHOST)
    entries = [entry for name in LISTS_IN_VHOST for entry in content.get(name, [])]
    return not content.get("vhosts") and not any(
        isinstance(entry, dict) and "vhost" in entry for entry in entries
    )


Types: TypeAlias = type | tuple[type, ...]


class DefinitionsError(Exception):
    """Why definitions cannot be used, in a sentence that says where in the file."""


@dataclass(frozen=True, slots=True)
class Category:
    """Fields of one list of the file: those that its entries must have, and those that they may."""

    required: Mapping[str, Types]
    optional: Mapping[str, Types] = field(default_factory=dict)
    """Types of optional fields; there may be others."""


IN_VHOST: Mapping[str, Types] = {"vhost": str}
_DECLARED: Mapping[str, Types] = {"durable": bool, "auto_delete": bool, "arguments": (dict, list)}

CATEGORIES: Mapping[str, Category] = {
    "users": Category(
        {"name": str},
        {
            "password_hash": str,
            "hashing_algorithm": str,
            "password": str,
            "tags": (str, list),
            "limits": (dict, list),
            "permissions": (dict, list),
        },
    ),
    "vhosts": Category(
        {"name": str},
        {"metadata": dict, "limits": (dict, list), "description": str, "tags": (str, list)},
    ),
    "permissions": Category(
        {**IN_VHOST, "user": str, "configure": str, "write": str, "read": str},
    ),
    "topic_permissions": Category(
        {**IN_VHOST, "user": str, "exchange": str, "write": str, "read": str},
    ),
    "parameters": Category({**IN_VHOST, "component": str, "name": str, "value": object}),
    "global_parameters": Category({"name": str, "value": object}),
    "policies": Category(
        {**IN_VHOST, "name": str, "pattern": str, "definition": dict},
        {"apply-to": str, "priority": int},
    ),
    "exchanges": Category(
        {**IN_VHOST, "name": str, "type": str},
        {**_DECLARED, "internal": bool},
    ),
    "queues": Category({**IN_VHOST, "name": str}, {**_DECLARED, "type": str}),
    "bindings": Category(
        {
            **IN_VHOST,
            "source": str,
            "destination": str,
            "destination_type": str,
            "routing_key": str,
        },
        {"arguments": (dict, list)},
    ),
}

Definitions: TypeAlias = Mapping[str, Sequence[Entry]]
"""The entries by category; every category is there, and every required field."""


def files_of(path: Path) -> list[Path]:
    """Return the file, or those of a directory by name.  DefinitionsError for a directory without
    any."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"))
    if not files:
        raise DefinitionsError(f"there is no file in {path} whose name ends with .json")
    return files


def read_file(path: Path) -> Definitions:
    """Return what a file holds.  DefinitionsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DefinitionsError(f"cannot read definitions {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DefinitionsError(f"definitions {path} are not UTF-8") from error
    try:
        return read(text)
    except DefinitionsError as error:
        raise DefinitionsError(f"definitions {path}: {error}") from error


def read(text: str, *, vhost: str = "/") -> Definitions:
    """Entries of a text; `vhost` is where those of one virtual host belong.  DefinitionsError."""
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode()  # finds halves of characters in escapes
    except (ValueError, RecursionError) as error:
        raise DefinitionsError(f"this is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise DefinitionsError("there is no object at the top")
    for name in CATEGORIES:
        if not isinstance(content.get(name, []), list):
            raise DefinitionsError(f"{name} is no list")
    home = vhost if is_single(content) else None
    return {name: [*entries_of(name, content.get(name, []), home)] for name in CATEGORIES}


def entries_of(name: str, entries: Sequence[object], home: str | None) -> Iterator[Entry]:
    """Yield the entries of a category; those without a virtual host belong to `home`, if it is
    given.

    DefinitionsError at what is none, or has a field that cannot be what it is.
    """
    category = CATEGORIES[name]
    for number, entry in enumerate(entries, 1):
        where = f"{name}, entry {number}"
        if not isinstance(entry, dict):
            raise DefinitionsError(f"{where}: this is no object")
        if home is not None and "vhost" in category.required:
            entry = {"vhost": home} | entry
        _check_types(entry, category, where)
        yield entry


def _check_types(entry: Entry, category: Category, where: str) -> None:
    for key, types in {**category.required, **category.optional}.items():
        if key not in entry:
            if key in category.required:
                raise DefinitionsError(f"{where}: there is no '{key}'")
        elif not isinstance(entry[key], types):
            raise DefinitionsError(f"{where}: '{key}' cannot be {_shown(key, entry[key])}")


def _shown(key: str, value: Any) -> str:
    """Return a value for the log, which is no place for passwords."""
    return "what it is" if key.startswith("password") else json.dumps(value)


def mapping_of(value: Any) -> Entry:
    """Return an object as it should be; RabbitMQ writes an empty one as [], and limits as pairs.

    DefinitionsError for anything else.
    """
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not all(map(_is_pair, value)):
        raise DefinitionsError(f"{json.dumps(value)} is no object")
    return dict(value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1


def table_of(arguments: dict[str, Any]) -> FieldTable:
    """Return the arguments of an entry as a field table.  DefinitionsError for what cannot be in
    one."""
    table = _table_of(arguments)
    try:
        read_table(encode_table(table), 0)
    except (ProtocolError, ValueError) as error:
        raise DefinitionsError(f"these cannot be arguments: {error}") from error
    return table


def plain(table: FieldTable) -> dict[str, Any]:
    """Return a field table as arguments of an entry."""
    return {name: _plain_value(value) for name, (_tag, value) in table.items()}


def _table_of(arguments: dict[str, Any]) -> FieldTable:
    return {name: _field_of(value) for name, value in arguments.items()}


def _field_of(value: Any) -> Field:
    match value:
        case None:
            return "V", None
        case bool():
            return "t", value
        case int():
            if not LONG_MIN <= value <= LONG_MAX:
                raise DefinitionsError(f"{value} is too large for an argument")
            return "l", value
        case float():
            return "d", value
        case str():
            return "S", value.encode()
        case dict():
            return "F", _table_of(value)
        case _:
            return "A", [_field_of(item) for item in value]


def _plain_value(value: FieldValue) -> Any:
    match value:
        case bytes():
            return value.decode(errors="replace")
        case dict():
            return plain(value)
        case list():
            return [_plain_value(item) for _tag, item in value]
        case (int(scale), int(unscaled)):
            return unscaled / 10**scale
        case _:
            return value
