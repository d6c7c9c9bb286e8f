"""Rows as people and programs read them."""

import json
import sys
from collections.abc import Iterator

import click
import pytest

from fluffle.broker.cli import output
from fluffle.broker.cli.options import chosen_columns
from fluffle.broker.cli.output import (
    ERASE_LINE,
    ProgressBar,
    counted,
    json_lines,
    pairs,
    shown,
    table,
)

ROWS = [
    {"name": "a", "count": 5, "on": True, "tags": ["x", "y"]},
    {"name": "longer", "count": 12, "on": False, "tags": []},
]


def test_columns_are_aligned_numbers_to_the_right() -> None:
    assert list(table(ROWS, ["name", "count", "on", "tags"])) == [
        "name    count  on   tags",
        "a           5  yes  x, y",
        "longer     12  no",
    ]


def test_columns_are_chosen() -> None:
    assert list(table(ROWS, ["on", "name"]))[1] == "yes  a"
    assert chosen_columns("on, name", ["name", "on"]) == ["on", "name"]
    assert chosen_columns("all", ["name", "on"]) == ["name", "on"]
    with pytest.raises(click.UsageError, match="no column 'x'; there are name, on"):
        chosen_columns("name,x", ["name", "on"])


def test_what_an_older_node_does_not_tell_is_empty() -> None:
    assert list(table([{"name": "a"}], ["name", "later"])) == ["name  later", "a"]


def test_no_rows_are_a_header() -> None:
    assert list(table([], ["name", "x"])) == ["name  x"]
    assert list(json_lines([])) == ["[", "]"]


def test_rows_are_printed_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MEASURED_ROWS", 2)
    taken = []

    def rows() -> Iterator[dict[str, object]]:
        for number in range(1, 6):
            taken.append(number)
            yield {"name": "x" * number}

    lines = table(rows(), ["name"])
    assert [next(lines) for _ in range(3)] == ["name", "x", "xx"]
    assert taken == [1, 2]
    assert list(lines) == ["xxx", "xxxx", "xxxxx"]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (0, "0"),
        (1.5, "1.5"),
        ("é", "é"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb", r"a\nb"),
        ("\udc80", r"\udc80"),
        ({}, ""),
        ({"a": 1}, '{"a": 1}'),
        ([1, "a"], '[1, "a"]'),
        (["\n"], r"\n"),
    ],
)
def test_cells(value: object, cell: str) -> None:
    assert shown(value) == cell


def test_json_is_one_array() -> None:
    lines = list(json_lines(ROWS))
    assert json.loads("".join(lines)) == ROWS
    assert len(lines) == 4


def test_a_row_alone() -> None:
    assert list(pairs({"a": 1, "long": None, "x": "\t"})) == ["a     1", "long", r"x     \t"]


def test_one_is_not_many() -> None:
    said = [counted(count, "is", "are") for count in (0, 1, 2)]
    assert said == ["no queues are", "1 queue is", "2 queues are"]


def test_nobody_sits_there(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("moved") as progress:
        progress.at(1, 2)
    assert capsys.readouterr().err == ""


def test_a_line_is_written_over_and_gone_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressBar("moved") as progress:
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
