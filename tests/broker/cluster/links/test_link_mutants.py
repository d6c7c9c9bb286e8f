"""The tests are tested: mistakes against rule 20 of replicated queues must be found.

Pings never wait behind bodies: frames are cut, pieces of what is urgent go first, and whatever is
received is a sign of life.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from itertools import chain

from hypothesis import is_hypothesis_test

from tests.broker.cluster.links import test_chunks, test_chunks_send_queue, test_keepalive
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES

EXAMPLES: list[Callable[[], None]] = [
    example
    for name, example in chain(
        *(vars(each).items() for each in (test_chunks_send_queue, test_chunks, test_keepalive))
    )
    if name.startswith("test_") and not signature(example).parameters
    if not is_hypothesis_test(example)
]
"""Quick tests of links."""


@FAMILIES["links"].each()
def test_it_is_found(mutant: Mutant) -> None:
    with mutant.in_place():
        assert any(map(fails, EXAMPLES)), mutant.mistake


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert not any(map(fails, EXAMPLES))


def fails(example: Callable[[], None]) -> bool:
    try:
        example()
    except (AssertionError, LookupError, ValueError):
        return True
    return False
