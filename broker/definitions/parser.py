"""From the text of a definitions file to entries whose fields are there and have the right type.

Both forms are read: that of a whole cluster, and that of one virtual host, whose entries do not
name it.  Fields that are unknown here are left alone, since newer RabbitMQs have more of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fluffle.broker.definitions.file_format import is_single
from fluffle.broker.durability.definitions.image import Entry

Types: TypeAlias = type | tuple[type, ...]


class DefinitionsError(Exception):
    """Why definitions cannot be used, in a sentence that says where in the file."""


@dataclass(frozen=True, slots=True)
class Category:
    """Fields of one list of the file: those that its entries must have, and those that they may."""

    required: Mapping[str, Types]
    optional: Mapping[str, Types] = field(default_factory=dict)
    """Of these fields the type is checked; there may be others."""


_IN_VHOST: Mapping[str, Types] = {"vhost": str}
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
        {**_IN_VHOST, "user": str, "configure": str, "write": str, "read": str},
    ),
    "topic_permissions": Category(
        {**_IN_VHOST, "user": str, "exchange": str, "write": str, "read": str},
    ),
    "parameters": Category({**_IN_VHOST, "component": str, "name": str, "value": object}),
    "global_parameters": Category({"name": str, "value": object}),
    "policies": Category(
        {**_IN_VHOST, "name": str, "pattern": str, "definition": dict},
        {"apply-to": str, "priority": int},
    ),
    "exchanges": Category(
        {**_IN_VHOST, "name": str, "type": str},
        {**_DECLARED, "internal": bool},
    ),
    "queues": Category({**_IN_VHOST, "name": str}, {**_DECLARED, "type": str}),
    "bindings": Category(
        {
            **_IN_VHOST,
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
