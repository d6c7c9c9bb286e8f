"""Pages, orders and columns of lists."""

from typing import Any

import pytest

from fluffle.broker.management.listing import listed
from fluffle.broker.management.replies import Refusal

ROWS: list[dict[str, Any]] = [
    {"name": "b", "messages": 2, "stats": {"publish": 1, "rate": 0.5}},
    {"name": "A", "messages": 10},
    {"name": "ab", "messages": None, "stats": {"publish": 3}},
]


def names(answer: Any) -> list[str]:
    rows = answer["items"] if isinstance(answer, dict) else answer
    return [row["name"] for row in rows]


def test_without_a_page_it_is_a_bare_list() -> None:
    assert listed(ROWS, {}) == ROWS
    assert names(listed(ROWS, {"sort": "messages"})) == ["ab", "b", "A"]
    assert names(listed(ROWS, {"sort": "stats.publish", "sort_reverse": "true"})) == [
        "ab",
        "b",
        "A",
    ]


def test_columns_are_paths() -> None:
    asked = {"columns": "name,stats.publish,nothing.at.all"}
    assert listed(ROWS, asked) == [
        {"name": "b", "stats": {"publish": 1}},
        {"name": "A"},
        {"name": "ab", "stats": {"publish": 3}},
    ]


def test_a_page_says_how_many_there_are() -> None:
    assert listed(ROWS, {"page": "2", "page_size": "1", "name": "a", "columns": "name"}) == {
        "filtered_count": 2,
        "item_count": 1,
        "items": [{"name": "ab"}],
        "page": 2,
        "page_count": 2,
        "page_size": 1,
        "total_count": 3,
    }
    assert names(listed(ROWS, {"page": "1", "name": "^a", "use_regex": "true"})) == ["A", "ab"]
    assert listed([], {"page": "1"})["page_count"] == 0  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "query",
    [
        {"page": "0"},
        {"page": "2"},
        {"page": "x"},
        {"page": "1", "page_size": "501"},
        {"page": "1", "page_size": "0"},
        {"page": "1", "name": "(", "use_regex": "true"},
    ],
)
def test_what_cannot_be_listed_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        listed(ROWS, query)
    assert refused.value.reply.status == 400
