"""Seeds that fail at night are kept, as lines of `regressions.toml` to be copied."""

from __future__ import annotations

import pytest

from tests.suite.selection import ROOT

KEPT = ROOT / "build" / "nightly" / "failed_seeds.toml"


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Have the report say which seed the test had, if any: it may go to another process."""
    if report.failed and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        seed = item.callspec.params.get("seed")
        if isinstance(seed, int):
            path = item.path.relative_to(ROOT / "tests")
            report.user_properties.append(("seed", f"{path}::{item.originalname} {seed}"))


def keep(report: pytest.TestReport) -> None:
    """Write it down."""
    for name, value in report.user_properties:
        if name == "seed":
            test, _, seed = str(value).rpartition(" ")
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(entry(test, int(seed)))


def entry(test: str, seed: int, nodes: int | None = None) -> str:
    lines = ["[[seed]]", f'test = "{test}"', f"seed = {seed}"]
    if nodes is not None:
        lines.append(f"nodes = [{nodes}]")
    return "\n".join([*lines, 'reason = ""', "", ""])
