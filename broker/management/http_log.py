"""What aiohttp logs: that it has failed, and not what it thinks of requests.

Anybody can send what is no HTTP, and as much of it as he likes; aiohttp would log each with a
traceback, and with the line in question, which may be the one with the password.
"""

from __future__ import annotations

import logging

from aiohttp.http import HttpProcessingError
from aiohttp.web import RequestPayloadError

OF_CLIENTS = HttpProcessingError, RequestPayloadError

logger = logging.getLogger(__name__)


def is_ours(record: logging.LogRecord) -> bool:
    """Whether something has failed here, rather than a client."""
    return record.exc_info is None or not isinstance(record.exc_info[1], OF_CLIENTS)


logger.addFilter(is_ours)
