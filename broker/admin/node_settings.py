"""node.*: what can be set otherwise while a node runs; a restart begins with its options again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.logs import set_level
from fluffle.broker.config.config import memory_bytes

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": logging.CRITICAL + 10,
}
"""RabbitMQ's words, as far as there is a difference here."""


def set_memory_watermark(
    context: NodeContext, *, share: float | None = None, size_bytes: int | None = None
) -> Row:
    """A share of the memory that there is for this process, or so many bytes."""
    context.alarms.watermarks.memory_bytes_max = limit = limit_bytes(share, size_bytes)
    return {"memory_bytes_max": limit}


def set_disk_free_limit(
    context: NodeContext, *, share: float | None = None, size_bytes: int | None = None
) -> Row:
    """So many bytes, or as many as a share of the memory."""
    context.alarms.watermarks.disk_free_bytes_min = limit = limit_bytes(share, size_bytes)
    return {"disk_free_bytes_min": limit}


def limit_bytes(share: float | None, size_bytes: int | None) -> int:
    """PreconditionFailed for both, for neither, and for what is below zero."""
    if (share is None) == (size_bytes is None):
        raise PreconditionFailed("give a number of bytes, or a share of the memory")
    limit = size_bytes if size_bytes is not None else int((share or 0) * memory_bytes())
    if limit < 0:
        raise PreconditionFailed("a limit is not below zero")
    return limit


def set_log_level(_parts: NodeContext, *, level: str) -> Row:
    """Of all that this process logs."""
    if level not in LEVELS:
        raise PreconditionFailed(f"there is no level '{level}'; there are {', '.join(LEVELS)}")
    set_level(LEVELS[level])
    return {}


CHANGES: Mapping[str, Callable[..., Any]] = {
    "node.memory_watermark": set_memory_watermark,
    "node.disk_free_limit": set_disk_free_limit,
    "node.log_level": set_log_level,
}
