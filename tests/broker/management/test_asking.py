"""Verbs that are asked over HTTP, and when they are answered."""

from types import SimpleNamespace
from typing import Any

import pytest

from fluffle.broker.control import asking as module
from fluffle.broker.control.dispatch import Outcome
from fluffle.broker.management.asking import Asking


async def test_what_does_not_become_safe_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    services: Any = SimpleNamespace(
        turn=SimpleNamespace(begin=lambda: False),
        commits=SimpleNamespace(ticket=2, durable=1, wait=lambda _waiting, _ticket: None),
    )
    parts: Any = None
    dispatcher: Any = SimpleNamespace(ask=lambda _verb, _: Outcome(None, {}, is_change=True))
    with pytest.raises(TimeoutError, match="has not done 'vhosts"):
        await Asking(parts, services, dispatcher).result("vhosts.add")
