"""Calls of listeners, where one that fails must keep nothing from the others."""

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


def call_listener(act: Callable[[], None]) -> None:
    """Call a listener; what it raises is a bug of its own, and is logged.

    AssertionError: then what the node believes is wrong, and the caller must let it end.
    """
    try:
        act()
    except AssertionError:
        raise
    except Exception:
        logger.exception("a listener failed")
