"""Leaks of a test: threads, sockets, directories of brokers, and objects not closed."""

from __future__ import annotations

import gc
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import pytest

from tests.support.deadlines import DEADLINE_S

PAUSE_S = 0.005

CACHED = "Trio thread"
"""Threads that trio keeps for the next ones who want one, for ten seconds."""

DESCRIPTORS = Path("/proc/self/fd")
KINDS = ("socket:", "pipe:", "anon_inode:")


class ProcessResources(NamedTuple):
    """Resources that this process holds."""

    threads: frozenset[str]
    descriptors: frozenset[str]
    directories: frozenset[str]

    def beyond(self, before: ProcessResources) -> list[str]:
        """Resources that did not exist before, as texts."""
        return sorted(
            chosen for now, then in zip(self, before, strict=True) for chosen in now - then
        )


def held() -> ProcessResources:
    """Resources that exist now; where there is no /proc, sockets are not seen."""
    temporary = Path(tempfile.gettempdir())
    return ProcessResources(
        frozenset(
            f"thread {each.name} {each.ident}"
            for each in threading.enumerate()
            if not each.name.startswith(CACHED)
        ),
        frozenset(descriptors()),
        frozenset(str(each) for each in temporary.glob("fluffle-*")),
    )


def descriptors() -> Iterator[str]:
    """Descriptors of sockets, and those that loops have besides."""
    for each in DESCRIPTORS.iterdir() if DESCRIPTORS.is_dir() else ():
        try:
            target = str(each.readlink())
        except OSError:
            continue  # that of the list itself
        if target.startswith(KINDS):
            yield f"{target} as {each.name}"


@contextmanager
def nothing_left() -> Iterator[None]:
    """AssertionError with what is there that was not; a warning for what was never closed.

    A socket whose peer has gone is closed when its loop gets to it.
    """
    before = held()
    yield
    gc.collect()
    end_s = monotonic() + DEADLINE_S
    while (left := held().beyond(before)) and monotonic() < end_s:
        sleep(PAUSE_S)
    assert not left, f"the test has left behind: {left}"


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Have nothing freed that only the garbage collector frees."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def garbage() -> list[str]:
    """Objects of ours that only the collector can free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    types = map(type, gc.garbage)
    found = sorted({each.__name__ for each in types if each.__module__.startswith("fluffle.")})
    gc.garbage.clear()
    return found
