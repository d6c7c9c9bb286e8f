"""Errors that a node outlives, and logs, end a run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class FatalLogHandler(logging.Handler):
    """Handler of a node's log that makes errors fatal."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            raise AssertionError(record.getMessage()) from record.exc_info[1]


@contextmanager
def fatal_logs() -> Iterator[None]:
    """Make logged errors fatal as long as the block lasts; other lines are dropped."""
    logger, handler = logging.getLogger("fluffle"), FatalLogHandler(logging.ERROR)
    before = logger.level, logger.propagate
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
