"""A broker in somebody's tests leaves nothing behind; so these tests look for it each time."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterator

import pytest

from fluffle.broker.core.connections import Connections
from tests.support.leaks import nothing_left


class CloseWaits:
    """Waits of brokers that stop for their clients to go."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        """Limits of the waits, in order."""
        self.all_gone = False
        """True if the last wait ended because the last client went."""

    def spy_on(self, wait: Callable[[Connections, float], Awaitable[bool]]) -> object:
        async def wait_empty(connections: Connections, timeout_s: float) -> bool:
            self.seconds.append(timeout_s)
            self.all_gone = await wait(connections, timeout_s)
            return self.all_gone

        return wait_empty


@pytest.fixture
def close_waits(monkeypatch: pytest.MonkeyPatch) -> CloseWaits:
    waits = CloseWaits()
    monkeypatch.setattr(Connections, "wait_empty", waits.spy_on(Connections.wait_empty))
    return waits


@pytest.fixture(scope="session", autouse=True)
def temporary_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Other processes have brokers, too, with directories of their own."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that a test leaves nothing behind, apart from what lasts for the whole run."""
    if "amqp_broker" in request.fixturenames:
        request.getfixturevalue("amqp_broker")
    with nothing_left():
        yield
