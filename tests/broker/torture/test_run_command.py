"""Tests of what goes on beside a run, so that the tester does not stand still itself."""

import gc

from fluffle.broker.torture.run_command import forget_garbage


def test_what_is_known_is_not_looked_at_for_garbage_again() -> None:
    known: list[object] = [[]]
    assert any(each is known for each in gc.get_objects())
    forget_garbage()
    assert not any(each is known for each in gc.get_objects())
