"""Long work as a generator that stops now and then and can be left.

What it comes to is its return value.  Between two stops it does a fraction of a millisecond of
work; the caller that has it go on decides when, or whether.  Meanwhile anything may happen.
"""

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]


class Unfinished(Exception):
    """The answer of a function that has begun something: the rest is to be done in steps."""

    def __init__(self, steps: Steps[None]) -> None:
        super().__init__()
        self.steps = steps


def whole(steps: Steps[T]) -> T:
    """Run steps to their end; return the result, however long that takes."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
