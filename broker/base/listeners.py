"""Telling somebody of what has happened, where what fails in him must keep nothing from others."""

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


def call_listener(act: Callable[[], None]) -> None:
    """Call what somebody hears by; what he raises is a bug of his, and is logged.

    AssertionError: then what the node believes is wrong, and whoever tells must let it end.
    """
    try:
        act()
    except AssertionError:
        raise
    except Exception:
        logger.exception("what has happened could not be told to all")
