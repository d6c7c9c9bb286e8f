"""What is logged of what aiohttp says."""

import logging

from fluffle.broker.protocols.http import http_log


def test_that_something_has_failed_here_is_logged() -> None:
    for error, is_told in (
        (RuntimeError("a bug"), True),
        (RuntimeError(http_log.GONE), False),
        (ConnectionResetError(), False),
    ):
        told = (type(error), error, None)
        record = logging.LogRecord("", logging.ERROR, "", 0, "Unhandled", (), told)
        assert http_log.is_ours(record) is is_told
