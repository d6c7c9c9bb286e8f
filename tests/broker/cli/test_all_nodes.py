"""What a command makes of what several nodes say."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fluffle.broker.cli.all_nodes import close_everywhere, rows_everywhere
from fluffle.broker.cli.client import Client, RequestRefused, Row


class Told:
    """A client of a node that says this."""

    def __init__(self, *told: Row) -> None:
        self.told = told
        self.asked: list[Row] = []

    def rows(self, verb: str, **arguments: Any) -> list[Row]:
        self.asked.append({"verb": verb, **arguments})
        return list(self.told)


def client_of(*told: Row) -> Client:
    return cast(Client, Told(*told))


MISSING = {"code": 404, "name": "NOT_FOUND", "text": "no connection 'c'"}
DOWN = {"node": "b", "silent": "there is no link to it"}


def closed(node: str, count: int) -> Row:
    return {"node": node, "row": {"closed": count}}


def test_rows_are_those_of_all_and_who_is_silent_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = Told({"node": "a", "row": {"n": 1}}, DOWN, {"node": "c", "row": {"n": 2}})
    listed = rows_everywhere(cast(Client, told), "connections.list", vhost=None, name="x")
    assert list(listed) == [{"n": 1}, {"n": 2}]
    asked = {"verb": "everywhere.rows", "what": "connections.list", "arguments": {"name": "x"}}
    assert told.asked == [asked]
    assert capsys.readouterr().err == "node 'b' tells nothing: there is no link to it\n"


def test_a_refusal_is_one() -> None:
    with pytest.raises(RequestRefused, match="no connection 'c'") as refusal:
        list(rows_everywhere(client_of({"node": "a", "error": MISSING}), "connections.list"))
    assert refusal.value.code == 404


def test_closed_are_those_of_all_nodes() -> None:
    assert close_everywhere(client_of(closed("a", 2), DOWN, closed("c", 3)), user="u") == 5
    assert close_everywhere(client_of(closed("a", 0)), everybody=True) == 0


def test_who_has_one_that_is_meant_is_enough() -> None:
    missing = {"node": "a", "error": MISSING}
    assert close_everywhere(client_of(missing, closed("b", 1)), name="c") == 1
    with pytest.raises(RequestRefused, match="no connection 'c'"):
        close_everywhere(client_of(missing, DOWN), name="c")
