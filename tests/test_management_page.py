"""docs/management.md lists every endpoint that is served, and no other."""

from pathlib import Path

from fluffle.broker.protocols.http.endpoints import TABLE

PAGE = Path(__file__).parents[1] / "docs" / "management.md"


def test_the_page_lists_all_endpoints() -> None:
    rows = [
        f"| {each.method} | `{each.path}` | {each.required_right.value} | {each.summary} |"
        for each in sorted(TABLE.endpoints, key=lambda each: (each.path, each.method))
    ]
    shown = PAGE.read_text().partition("## All endpoints\n")[2].splitlines()
    said = [line for line in shown if line.startswith("| ") and "`" in line]
    expected = "\n".join(rows)
    assert [*map(cells, said)] == [*map(cells, rows)], f"put there:\n{expected}"


def cells(row: str) -> list[str]:
    """Method, path and who may: the words behind them are for whoever reads the page."""
    return [cell.strip() for cell in row.split("|")[1:4]]
