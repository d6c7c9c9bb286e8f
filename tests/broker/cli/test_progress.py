"""The line that says how far long work is."""

import sys

import pytest

from fluffle.broker.cli.progress import ERASE_LINE, Progress


def test_nobody_sits_there(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("moved") as progress:
        progress.at(1, 2)
    assert capsys.readouterr().err == ""


def test_a_line_is_written_over_and_gone_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("moved") as progress:
        for done in (0, 1, 1, 2):
            progress.at(done, 2)
        progress.at(0, 0)
    shown = capsys.readouterr().err
    assert [line.split("]")[-1] for line in shown.split(ERASE_LINE)[1:-1]] == [
        "   0 %  0 of 2 moved",
        "  50 %  1 of 2 moved",
        " 100 %  2 of 2 moved",
    ]
    assert shown.endswith(ERASE_LINE)
