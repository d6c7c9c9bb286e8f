"""A broker and its control API, for as long as a command runs, or until a signal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from secrets import token_urlsafe
from typing import TypeAlias

from fluffle.broker.testing.broker import Broker
from fluffle.broker.testing.server.child import run_child, stopped
from fluffle.broker.testing.server.http import HttpServer
from fluffle.broker.testing.server.operations import OPERATIONS
from fluffle.broker.testing.server.serving import Serving

TOKEN_BYTES = 16

Urls: TypeAlias = dict[str, str]
"""By the variables that they are in."""


async def run(broker: Broker, words: Sequence[str], tell: Callable[[Urls], None]) -> int:
    """Run a command with it; the exit code.  Without one, `tell` is told when it serves.

    CannotRun, OSError, and what a node raises that cannot start.
    """
    async with broker:
        server = HttpServer(Serving(broker, OPERATIONS).answer, token_urlsafe(TOKEN_BYTES))
        urls = {"AMQP_URL": broker.url, "FLUFFLE_CONTROL_URL": await server.start()}
        try:
            if words:
                return await run_child(words, os.environ | urls)
            tell(urls)
            await stopped()
            return 0
        finally:
            await server.stop()
