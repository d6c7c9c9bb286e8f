"""Verbs that are asked over HTTP, and when they are answered."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fluffle.broker.admin import local_client as module
from fluffle.broker.admin.dispatch import RequestOutcome
from fluffle.broker.protocols.http.verb_client import VerbClient
from fluffle.broker.queues.queue_api import Deferred


async def test_what_does_not_become_safe_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.0)
    runtime = SimpleNamespace(
        turn=SimpleNamespace(begin=lambda: False),
        commits=SimpleNamespace(ticket=2, durable=1, wait=lambda _waiting, _ticket: None),
    )
    services: Any = SimpleNamespace(runtime=runtime)
    context: Any = None
    dispatcher: Any = SimpleNamespace(ask=lambda _verb, _: RequestOutcome(None, {}, is_change=True))
    with pytest.raises(TimeoutError, match="has not done 'vhosts"):
        await VerbClient(context, services, dispatcher).result("vhosts.add")


class SlowSteps:
    """A verb that takes most of the time of a request for each of its steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self._now_s = self._loop.time()
        monkeypatch.setattr(self._loop, "time", lambda: self._now_s)

    def rows(self) -> Iterator[dict[str, int] | Deferred[None]]:
        for number in range(4):
            self._now_s += module.ANSWER_TIMEOUT_S * 0.75
            step = Deferred[None]()
            self._loop.call_soon(step.answer, None)
            yield step
            yield {"number": number}

    @property
    def asking(self) -> VerbClient:
        runtime = SimpleNamespace(
            turn=SimpleNamespace(begin=lambda: False),
            commits=SimpleNamespace(ticket=1, durable=1),
        )
        services: Any = SimpleNamespace(runtime=runtime)
        dispatcher: Any = SimpleNamespace(
            ask=lambda _verb, _: RequestOutcome(None, self.rows(), is_change=True),
            guarded=lambda make: make(),
        )
        context: Any = None
        return VerbClient(context, services, dispatcher)


async def test_what_changes_many_things_has_its_time_for_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = SlowSteps(monkeypatch)
    assert len(await steps.asking.rows_of_many("queues.grow")) == 4
    with pytest.raises(TimeoutError, match=r"has not done 'queues\.list'"):
        await steps.asking.rows("queues.list")
