"""JSON Schemas of bodies, in the words that many of them have in common."""

from __future__ import annotations

from fluffle.broker.protocols.http.endpoint_table import Schema

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
YES_OR_NO: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
ARGUMENTS: Schema = {"anyOf": [OBJECT, {"type": "array", "maxItems": 0}]}
"""A table; PHP says an empty one as a list."""
ANYTHING: Schema = {}
TEXTS: Schema = {"type": "array", "items": TEXT}
TAGS: Schema = {"anyOf": [TEXT, TEXTS]}
"""A text with commas will do."""


def fields(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these keys; others are not looked at."""
    schema = {"type": "object", "properties": {**required, **(optional or {})}}
    return {**schema, "required": list(required)} if required else schema


def texts(*names: str) -> Schema:
    """An object of texts."""
    return fields(dict.fromkeys(names, TEXT))
