"""A command that is run beside the broker: it has our terminal, hears our signals, and its exit
code is ours."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

PASSED_ON = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""These a terminal sends to all processes in front of it."""

EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
"""As a shell says it."""


class CommandNotRun(Exception):
    """The system has no such command, or does not let us."""

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__(f"cannot run {command}: {error.strerror}")
        self.exit_code = EXIT_CANNOT_RUN
        if isinstance(error, FileNotFoundError):
            self.exit_code = EXIT_NOT_FOUND


class Child:
    """The command, from before it is started to its end.  Signals are its own all the time."""

    __slots__ = ("_early", "_process")

    def __init__(self) -> None:
        """In the loop that will run it."""
        self._process: asyncio.subprocess.Process | None = None
        self._early: list[signal.Signals] = []
        """What came before it was there."""
        loop = asyncio.get_running_loop()
        terminal_sends = OF_TERMINAL if is_in_front() else ()
        for number in PASSED_ON:
            if number in terminal_sends:
                loop.add_signal_handler(number, lambda: None)
            elif is_heard(number):
                loop.add_signal_handler(number, self._pass_on, number)

    async def run(self, words: Sequence[str], environment: Mapping[str, str]) -> int:
        """Its exit code, once it has ended.  CannotRun."""
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
    """Whether the terminal that we have sends us, and whom we start, its signals."""
    with suppress(OSError, AttributeError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


def is_heard(number: signal.Signals) -> bool:
    """False for SIGHUP under nohup.

    That a script which starts us in the background has others ignored is not meant for us, nor for
    the command, whom nothing but a handler of ours spares from having them ignored as well.
    """
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


def stop_signal() -> asyncio.Event:
    """Set once somebody wants us to stop."""
    come = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if is_heard(number):
            loop.add_signal_handler(number, come.set)
    return come
