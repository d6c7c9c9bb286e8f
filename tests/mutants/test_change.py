"""Patterns of statements: what they match, and what becomes of it."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.change import Change, Insert, NotThere, Remove, Swap


def changed(change: Change, text: str) -> str:
    return "\n".join(map(ast.unparse, change.of(ast.parse(text).body[0])))


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        (Swap("min(A, B)", "B"), "return min(x.y, z)", "return z"),
        (Swap("A < B", "A <= B"), "if f(a) < b.c:\n    g()", "if f(a) <= b.c:\n    g()"),
        (Swap("A.B == C", "A.other == C"), "x = a.b.c == d", "x = a.b.other == d"),
        (Swap("A(B, ...)", "A(0, ...)"), "f(a, b, c=d)", "f(0, b, c=d)"),
        (Swap("A(..., B=C)", "A(..., B=None)"), "x = f(a, b=c, d=e)", "x = f(a, b=c, d=None)"),
        (Swap("(A, B)", "(_, B)"), "a, b = c", "_, b = c"),
        (Swap("A = B", "A = C = B"), "a.b = c", "a.b = C = c"),
        (Swap("A + A", "A"), "x = a.b + a.b", "x = a.b"),
        (Swap("if A: ...", "if False: ..."), "if a:\n    b\n    c", "if False:\n    b\n    c"),
        (
            Swap("if A: ...\nelse: ...", "if True: ...\nelse: ..."),
            "if a:\n    b\nelse:\n    c",
            "if True:\n    b\nelse:\n    c",
        ),
        (Swap("while A: ...", "if A: ..."), "while a.b:\n    c()", "if a.b:\n    c()"),
        (Insert("a = 1"), "b = 2", "a = 1\nb = 2"),
        (Remove(), "a.b(c)", "pass"),
    ],
)
def test_a_change(change: Change, text: str, expected: str) -> None:
    assert changed(change, text) == expected


@pytest.mark.parametrize(
    ("change", "text", "why"),
    [
        (Swap("A < B", "A"), "return a <= b", "0 times"),
        (Swap("A < B", "A"), "return a < b or c < d", "2 times"),
        (Swap("A + A", "A"), "return a + b", "0 times"),
        (Swap("A < B", "A"), "if a:\n    b < c", "0 times"),
        (Swap("A(B, C, ...)", "A(B)"), "f(a)", "0 times"),
        (Swap("A += B", "A = B"), "a -= b", "is not"),
        (Swap("if A: ...", "if B: ..."), "if a:\n    b\nelse:\n    c", "is not"),
    ],
)
def test_what_is_not_there_once_is_not_changed(change: Change, text: str, why: str) -> None:
    with pytest.raises(NotThere, match=why):
        changed(change, text)
