"""Budget of a confirmed publish: files and calls.  It may be lowered, and not be raised."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.house.publish_path import CountedPublish, publish_paths

BUDGETS = {"classic": (25, 145), "quorum": (57, 1_060)}
"""Files and calls: `python -m tests.house --list paths` names the first, and `--list calls` the
others."""


@pytest.fixture(scope="module")
def paths() -> Mapping[str, CountedPublish]:
    return publish_paths()


@pytest.mark.parametrize("kind", BUDGETS)
def test_a_confirmed_publish_keeps_to_its_budget(
    kind: str, paths: Mapping[str, CountedPublish]
) -> None:
    files_max, calls_max = BUDGETS[kind]
    assert len(paths[kind].files) <= files_max, paths[kind].files
    assert paths[kind].call_count <= calls_max
