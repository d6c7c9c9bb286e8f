"""Node for all commands of a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.cli.running_node import RunningNode


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningNode]:
    monkeypatch.delenv("FLUFFLE_DATA_DIR", raising=False)
    with RunningNode(tmp_path / "data") as running:
        yield running
