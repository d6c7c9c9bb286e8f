"""A broker in somebody's tests leaves nothing behind; so these tests look for it each time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest

from tests.support.leaks import nothing_left


@pytest.fixture(scope="session", autouse=True)
def temporary_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Other processes have brokers, too, with directories of their own."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is there for the whole run is not left by a test."""
    if "amqp_broker" in request.fixturenames:
        request.getfixturevalue("amqp_broker")
    with nothing_left():
        yield
