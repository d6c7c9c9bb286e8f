"""What aiohttp logs: that it has failed, and not what it thinks of requests.

Anybody can send what is no HTTP, and as much of it as he likes; aiohttp would log each with a
traceback, and with the line in question, which may be the one with the password.
"""

from __future__ import annotations

import logging

from aiohttp.http import HttpProcessingError
from aiohttp.web import RequestPayloadError

OF_CLIENTS = HttpProcessingError, RequestPayloadError, ConnectionError
GONE = "Connection closed."
"""What aiohttp calls an error while it runs, if a client has gone in the middle of his body."""

logger = logging.getLogger(__name__)


def is_ours(record: logging.LogRecord) -> bool:
    """Whether something has failed here, rather than a client."""
    error = record.exc_info[1] if record.exc_info is not None else None
    return not isinstance(error, OF_CLIENTS) and str(error) != GONE


logger.addFilter(is_ours)
