"""`python -m benchmarks.turns FILE serve …`: `fluffle serve` that watches its own turns.

At SIGUSR1 it writes the longest since the last signal into FILE, in milliseconds: by the clock, and
what the loop's thread used of the processor.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

from fluffle.broker.__main__ import main
from fluffle.broker.node import Node

PERIOD_S = 0.002


class Watch:
    """A timer that looks how late it is: a turn that takes long has held it up."""

    def __init__(self, file: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._loop = loop
        self._longest_s = self._longest_cpu_s = 0.0
        self._mark()

    def start(self) -> None:
        self._loop.add_signal_handler(signal.SIGUSR1, self._tell)
        self._again()

    def _mark(self) -> None:
        self._at_s, self._cpu_s = time.monotonic(), time.thread_time()

    def _again(self) -> None:
        self._mark()
        self._loop.call_later(PERIOD_S, self._look)

    def _look(self) -> None:
        late_s = time.monotonic() - self._at_s - PERIOD_S
        self._longest_s = max(self._longest_s, late_s)
        self._longest_cpu_s = max(self._longest_cpu_s, time.thread_time() - self._cpu_s)
        self._again()

    def _tell(self) -> None:
        made = self._file.with_suffix(".made")
        made.write_text(f"{1e3 * self._longest_s} {1e3 * self._longest_cpu_s}")
        made.replace(self._file)
        self._longest_s = self._longest_cpu_s = 0.0


def watch(file: Path) -> None:
    """Have each node that starts in this process be watched."""
    start = Node.start

    async def started(node: Node) -> None:
        await start(node)
        Watch(file, asyncio.get_running_loop()).start()

    Node.start = started  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    watch(Path(sys.argv.pop(1)))
    main()
