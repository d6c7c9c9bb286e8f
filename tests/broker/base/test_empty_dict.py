"""Shared empty dictionary: it is never written."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from fluffle.broker.base.empty_dict import EMPTY_DICT


def add(table: dict[str, int]) -> None:
    table["a"] = 1


def merge(table: dict[str, int]) -> None:
    table |= {"a": 1}


WRITES: dict[str, Callable[[dict[str, int]], object]] = {
    "a key": add,
    "a default": lambda table: table.setdefault("a", 1),
    "an update": lambda table: table.update({"a": 1}),
    "a union": merge,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_is_a_bug(write: Callable[[dict[str, int]], object]) -> None:
    with pytest.raises(AssertionError, match="a dict of your own"):
        write(EMPTY_DICT)
    assert len(EMPTY_DICT) == 0


def test_it_can_be_used_as_any_that_is_empty() -> None:
    nothing: Any = EMPTY_DICT
    nothing.clear()
    assert nothing.pop("a", None) is None
    assert nothing == {}
    assert deepcopy([nothing])[0] is nothing
