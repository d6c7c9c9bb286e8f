"""The settings of a queue as its log has them: a msgpack map of those that are not the default.

Names are those of `QueueSettings`.  A setting that this version does not know is left out, since
who knows it has said it; nothing at all is what the arguments say alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import msgpack

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.quorum.errors import InvalidEntry
from fluffle.broker.queues.settings import DEFAULTS, QueueSettings, settings_of

KINDS: Mapping[str, tuple[type, ...]] = {
    name: get_args(hint) or (hint,) for name, hint in get_type_hints(QueueSettings).items()
}
"""Of what types each setting is."""

TEXT_ERRORS = "surrogateescape"
"""Names may hold octets that are not UTF-8."""


def encode_settings(settings: QueueSettings) -> bytes:
    said = {
        field.name: value
        for field in fields(QueueSettings)
        if (value := getattr(settings, field.name)) != getattr(DEFAULTS, field.name)
    }
    packed: bytes = msgpack.packb(said, default=str, unicode_errors=TEXT_ERRORS)
    return packed


def settings_on_record(encoded: bytes, spec: QueueSpec) -> QueueSettings:
    """Raises `InvalidEntry` for what nobody has written."""
    if not encoded:
        return settings_of(spec)
    try:
        said = msgpack.unpackb(encoded, unicode_errors=TEXT_ERRORS)
        known = {name: read(name, value) for name, value in said.items() if name in KINDS}
        return QueueSettings(**known)
    except (ValueError, TypeError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise InvalidEntry(f"settings that are none: {error}") from error


def read(name: str, value: Any) -> Any:
    """ValueError for what the setting cannot be."""
    (kind, *_) = KINDS[name]
    if issubclass(kind, StrEnum):
        return kind(value)
    if type(value) not in KINDS[name]:
        raise ValueError(f"{name} is {value!r}")
    return value
