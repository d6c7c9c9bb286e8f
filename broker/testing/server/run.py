"""A broker and its control API, for as long as a command runs, or until a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from secrets import token_urlsafe
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.testing.broker import Broker
from fluffle.broker.testing.server.http import HttpResponse, HttpServer, Serve

if TYPE_CHECKING:
    from fluffle.broker.testing.cluster.cluster import Cluster
    from fluffle.broker.testing.server.operations import OperationDispatcher


PASSED_ON = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""These a terminal sends to all processes in front of it."""

EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
"""Base of the exit code after a signal, as shells have it."""


class CommandNotRun(Exception):
    """Command that does not exist or must not be run."""

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__(f"cannot run {command}: {error.strerror}")
        self.exit_code = EXIT_CANNOT_RUN
        if isinstance(error, FileNotFoundError):
            self.exit_code = EXIT_NOT_FOUND


class Child:
    """Command that is run beside the broker, from before it is started to its end.

    It has our terminal, and gets our signals all the time.
    """

    def __init__(self) -> None:
        """In the loop that will run it."""
        self._process: asyncio.subprocess.Process | None = None
        self._early: list[signal.Signals] = []
        """Signals that came before the process was started."""
        loop = asyncio.get_running_loop()
        terminal_sends = OF_TERMINAL if is_in_front() else ()
        for number in PASSED_ON:
            if number in terminal_sends:
                loop.add_signal_handler(number, lambda: None)
            elif is_handled(number):
                loop.add_signal_handler(number, self._pass_on, number)

    async def run(self, words: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run the command; return its exit code.  Raises `CommandNotRun`."""
        try:
            self._process = await asyncio.create_subprocess_exec(*words, env=environment)
        except OSError as error:
            raise CommandNotRun(words[0], error) from error
        for number in self._early:
            self._pass_on(number)
        code = await self._process.wait()
        return EXIT_SIGNAL_BASE - code if code < 0 else code

    def _pass_on(self, number: signal.Signals) -> None:
        if self._process is None:
            self._early.append(number)
        else:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def is_in_front() -> bool:
    """True if the terminal that we have sends us, and whom we start, its signals."""
    with suppress(OSError, AttributeError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


def is_handled(number: signal.Signals) -> bool:
    """True if we act on a signal: not on SIGHUP under nohup.

    That a script which starts us in the background has others ignored is not meant for us, nor for
    the command, whom nothing but a handler of ours spares from having them ignored as well.
    """
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


def stop_signal() -> asyncio.Event:
    """Return an event that is set by a signal to stop."""
    come = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if is_handled(number):
            loop.add_signal_handler(number, come.set)
    return come


TOKEN_BYTES = 16

Urls: TypeAlias = dict[str, str]
"""URLs by environment variable."""


async def run(
    served: Broker | Cluster, words: Sequence[str], on_failure: Callable[[str], None] | None
) -> int:
    """Run a command with a broker; the exit code.  If that is not 0, `on_failure` is given the
    timeline of each virtual host.

    Raises `CommandNotRun`, OSError, and what a node raises that cannot start.
    """
    child = Child()
    async with controlled(served) as urls:
        code = await child.run(words, os.environ | urls)
        if code and on_failure is not None:
            async for timeline in timelines(served):
                on_failure(timeline)
        return code


async def timelines(served: Broker | Cluster) -> AsyncIterator[str]:
    """Yield the timelines of all virtual hosts."""
    from fluffle.broker.testing.server.operations import parts_of  # noqa: PLC0415  as below

    try:
        for name in parts_of(served).catalogue.vhosts:
            yield f"virtual host '{name}':\n{await served.vhost(name).timeline()}"
    except RuntimeError as error:  # no node runs
        yield str(error)


async def serve(served: Broker | Cluster, echo_urls: Callable[[Urls], None]) -> int:
    """Serve until a signal comes; `echo_urls` is called when it serves.  Raises as `run`."""
    stopping = stop_signal()
    async with controlled(served) as urls:
        echo_urls(urls)
        await stopping.wait()
    return 0


@asynccontextmanager
async def controlled(served: Broker | Cluster) -> AsyncIterator[Urls]:
    """Run a broker and its control API."""
    async with served:
        server = HttpServer(answering(served), token_urlsafe(TOKEN_BYTES))
        urls = {
            "AMQP_URL": served.url,
            "MQTT_URL": served.mqtt_url,
            "FLUFFLE_CONTROL_URL": await server.start(),
        }
        if not isinstance(served, Broker):
            urls["AMQP_URLS"] = ",".join(served.urls)
            urls["MQTT_URLS"] = ",".join(served.mqtt_urls)
        try:
            yield urls
        finally:
            await server.stop()


def answering(served: Broker | Cluster) -> Serve:
    """Imported with the first request: until then the command is on its way."""

    @cache
    def serving() -> OperationDispatcher:
        from fluffle.broker.testing.server.operations import OPERATIONS, OperationDispatcher  # noqa: PLC0415

        if isinstance(served, Broker):
            return OperationDispatcher(served, OPERATIONS)
        from fluffle.broker.testing.server import cluster_operations  # noqa: PLC0415

        return OperationDispatcher(served, cluster_operations.OPERATIONS)

    async def answer(path: str, body: bytes) -> HttpResponse:
        return await serving().answer(path, body)

    return answer
