"""Fixtures that tests over real sockets share: both kinds of event loop, and patience."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeAlias

import aio_pika
import pytest

from fluffle.broker.daemon.daemon import new_event_loop
from tests.support.deadlines import DEADLINE_S

Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(scope="session", autouse=True)
def _patient_clients() -> Iterator[None]:
    """Gives a get of aio_pika more than five seconds, which a machine with much to do may need."""
    defaults = aio_pika.Queue.get.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patching:
        patching.setitem(defaults, "timeout", DEADLINE_S)
        yield


@pytest.fixture(params=[asyncio.new_event_loop, new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in one kind of loop."""

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(work, DEADLINE_S))

    return run
