"""Pages, orders and columns of lists."""

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from fluffle.broker.admin import local_client
from fluffle.broker.patterns.patterns import searching_for
from fluffle.broker.protocols.http import pagination
from fluffle.broker.protocols.http.responses import ListingResponse, Refusal
from tests.support.loop_turns import TurnCounter

ROWS: list[dict[str, Any]] = [
    {"name": "b", "messages": 2, "stats": {"publish": 1, "rate": 0.5}},
    {"name": "A", "messages": 10},
    {"name": "ab", "messages": None, "stats": {"publish": 3}},
]


def listed(rows: list[dict[str, Any]], query: dict[str, str]) -> Any:
    return asyncio.run(pagination.listed(ListingResponse(rows), query))


def names(answer: Any) -> list[str]:
    rows = answer["items"] if isinstance(answer, dict) else answer
    return [row["name"] for row in rows]


def test_what_is_asked_for_is_not_remembered() -> None:
    before = searching_for.cache_info().misses
    query = {"page": "1", "name": "^a.?$", "use_regex": "true"}
    assert names(listed(ROWS, query)) == ["A", "ab"]
    assert searching_for.cache_info().misses == before


def test_without_a_page_it_is_a_bare_list() -> None:
    assert names(listed(ROWS, {})) == ["A", "ab", "b"]
    assert listed([{"b": 1}, {"a": 2}], {}) == [{"b": 1}, {"a": 2}]
    assert names(listed(ROWS, {"sort": "messages"})) == ["ab", "b", "A"]
    assert names(listed(ROWS, {"sort": "stats.publish", "sort_reverse": "true"})) == [
        "ab",
        "b",
        "A",
    ]


def test_a_number_of_any_size_has_its_place() -> None:
    rows: list[dict[str, Any]] = [{"name": f"{n}", "value": 10**n} for n in (400, 0, 350)]
    assert names(listed(rows, {"sort": "value"})) == ["0", "350", "400"]


def test_columns_are_paths() -> None:
    asked = {"columns": "name,stats.publish,nothing.at.all"}
    assert listed(ROWS, asked) == [
        {"name": "A"},
        {"name": "ab", "stats": {"publish": 3}},
        {"name": "b", "stats": {"publish": 1}},
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
    assert listed([], {"page": "1"})["page_count"] == 0


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


def test_what_is_only_known_of_some_is_asked_of_those() -> None:
    asked: list[str] = []

    async def complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        asked.extend(row["name"] for row in rows)
        return [{**row, "rate": len(row["name"])} for row in rows]

    def options(query: Mapping[str, str]) -> list[str]:
        asked.clear()
        return names(asyncio.run(pagination.listed(ListingResponse(ROWS, complete), query)))

    assert options({"page": "2", "page_size": "1", "sort": "name"}) == ["ab"]
    assert asked == ["ab"]
    assert options({"page": "1", "page_size": "1", "sort": "rate", "sort_reverse": "true"}) == [
        "ab"
    ]
    assert sorted(asked) == ["A", "ab", "b"]


def test_many_rows_have_the_same_order_as_few() -> None:
    chance = Random(7)
    rows: list[dict[str, Any]]
    rows = [{"name": f"q{number}", "n": chance.randrange(900)} for number in range(2500)]
    assert listed(rows, {"sort": "n"}) == sorted(rows, key=lambda row: row["n"])
    backwards = listed(rows, {"sort": "n", "sort_reverse": "true"})
    assert backwards == sorted(rows, key=lambda row: row["n"])[::-1]


def test_who_searches_with_an_expression_lets_others_have_their_turn() -> None:
    others = TurnCounter()

    async def main() -> list[dict[str, Any]]:
        async with others.counted():
            return await pagination.named(
                [{"name": "q"}] * 100, {"name": "^q", "use_regex": "true"}
            )

    assert len(asyncio.run(main())) == 100
    assert others.turns >= 20


def test_a_search_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_client, "ANSWER_TIMEOUT_S", 0)
    with pytest.raises(TimeoutError, match="'name'"):
        listed([{"name": "q"}] * 100, {"page": "1", "name": "^q", "use_regex": "true"})
